
// Puts what the model says into the document. Elements are kept where they are and changed in place: nothing moves, and focus stays.

const $ = id => document.getElementById(id);
/** How many workloads of a group are shown at a time. */
const STEP = 100;

function set(element, text) {
  const now = String(text ?? "");
  if (element.textContent !== now) element.textContent = now;
}

function dress(element, name) {
  if (element.className !== name) element.className = name;
}

/** Makes the children of `parent` those of `items`: kept by key, made by `make`, filled by `fill`. */
function sync(parent, items, keyOf, make, fill) {
  const kept = new Map([...parent.children].map(child => [child.dataset.key, child]));
  items.forEach((item, index) => {
    const key = keyOf(item, index);
    let child = kept.get(key);
    if (child) kept.delete(key);
    else {
      child = make(item);
      child.dataset.key = key;
    }
    if (parent.children[index] !== child) parent.insertBefore(child, parent.children[index] ?? null);
    fill(child, item);
  });
  kept.forEach(child => child.remove());
}

const byIndex = (_, index) => String(index);

function row(cells) {
  return () => {
    const made = document.createElement("tr");
    for (let index = 0; index < cells; index++) made.append(document.createElement("td"));
    return made;
  };
}

/** A table's rows of plain texts; a cell may be `[text, class]`. */
function table(body, rows) {
  sync(body, rows, byIndex, row(rows[0]?.length ?? 0), (made, cells) => {
    cells.forEach((cell, index) => {
      const [text, name] = Array.isArray(cell) ? cell : [cell, ""];
      set(made.children[index], text);
      dress(made.children[index], name);
      // A narrow column cuts it off.
      made.children[index].title = text;
    });
  });
}

function showTotals(all) {
  const make = () => {
    const made = document.createElement("div");
    made.append(document.createElement("dt"), document.createElement("dd"));
    return made;
  };
  sync($("totals"), all, byIndex, make, (made, [name, value, state]) => {
    set(made.children[0], name);
    set(made.children[1], value.toLocaleString?.() ?? value);
    dress(made.children[1], value ? state ?? "" : "");
  });
}

/** The rows of groups, of opened groups' networks, and of opened networks' workloads. A group with one network has its workloads at once. */
function wayRows(groups, opened) {
  const rows = [];
  const workloads = (key, members) => {
    const shown = opened.get(key);
    if (!shown) return;
    for (const workload of members.slice(0, shown)) {
      rows.push({ kind: "workload", key: key + "|" + workload.workload + "|" + (workload.address ?? ""), workload });
    }
    if (members.length > shown) rows.push({ kind: "more", key, left: members.length - shown });
  };
  for (const group of groups) {
    rows.push({ kind: "group", level: 0, ...group });
    if (group.networks.length === 1) workloads(group.key, group.members);
    else if (opened.has(group.key)) {
      for (const network of group.networks) {
        rows.push({ kind: "group", level: 1, ...network });
        workloads(network.key, network.members);
      }
    }
  }
  return rows;
}

function makeWay() {
  const made = row(10)();
  made.children[0].append(document.createElement("button"));
  return made;
}

function fillWay(made, item, opened) {
  const button = made.children[0].firstChild;
  const cells = { group: groupCells, workload: workloadCells, more: moreCells }[item.kind](item, opened);
  made.className = cells.row;
  set(button, cells.name);
  made.children[0].title = cells.name;
  Object.assign(button.dataset, { act: item.kind, of: item.key, workload: item.workload?.workload ?? "" });
  if (item.kind === "group") button.setAttribute("aria-expanded", String(opened.has(item.key)));
  cells.values.forEach(([text, name], index) => {
    set(made.children[index + 1], text);
    dress(made.children[index + 1], name ?? "");
    made.children[index + 1].title = text ?? "";
  });
}

/** The first of several, and how many more there are. */
function listed(all) {
  return all.length > 1 ? all[0] + " +" + (all.length - 1) : all[0] ?? "";
}

function exitText(workload) {
  const shown = listed(exitsOf(workload));
  return workload.spread ? shown + " (" + workload.spread + ")" : shown;
}

function groupCells(item, opened) {
  const [first] = item.members;
  const count = item.members.length;
  return {
    row: "group level" + item.level,
    name: (opened.has(item.key) ? "▾ " : "▸ ") + count.toLocaleString() + (count === 1 ? " address" : " addresses"),
    values: [
      [oneOf(item.members, "network", "networks")],
      [oneOf(item.members, "binding", "bindings")],
      [exitText(first), "flow"],
      [first.nic, "flow"],
      [first.gateway, "flow"],
      [listed(publicOf(first)), "flow"],
      [sum(item.members.map(member => member.flows)).toLocaleString(), "number"],
      [first.reason ? first.state + ": " + first.reason : first.state, first.state],
      [""],
    ],
  };
}

function workloadCells({ workload }) {
  const network = workload.network ? workload.network + (workload.defaultRoute ? "* " : " ") : "";
  return {
    row: "level2",
    name: workload.workload,
    values: [
      [network + (workload.address ?? "")],
      [workload.binding],
      [exitText(workload), "flow"],
      [workload.nic, "flow"],
      [workload.gateway, "flow"],
      [listed(publicOf(workload)), "flow"],
      [workload.flows.toLocaleString(), "number"],
      [workload.reason ? workload.state + ": " + workload.reason : workload.state, workload.state],
      [workload.since ? clock(workload.since) : ""],
    ],
  };
}

function moreCells({ left }) {
  const name = "Show " + Math.min(left, STEP) + " more of " + left.toLocaleString();
  return { row: "level2", name, values: Array.from({ length: 9 }, () => [""]) };
}

function showWays(rows, opened) {
  sync($("ways"), rows, item => item.kind + item.key, makeWay, (made, item) => fillWay(made, item, opened));
}

function showExits(status, exits) {
  const up = new Map(status.uplinks.map(uplink => [uplink.nic, uplink.up]));
  const most = Math.max(1, ...exits.map(exit => exit.flows));
  const rows = exits.map(exit => {
    const down = exit.nic !== undefined && !up.get(exit.nic);
    const mega = exit.bytesPerSecond === undefined ? "–" : (exit.bytesPerSecond * 8 / 1e6).toFixed(2);
    return [exit.exit, [(exit.nic ?? "none") + (down ? " is down" : ""), down ? "flow Down" : "flow"], [exit.flows.toLocaleString(), "number bar"], [exit.newPerSecond?.toFixed(1) ?? "–", "number"], [mega, "number"]];
  });
  table($("exits"), rows);
  exits.forEach((exit, index) => $("exits").children[index].children[2].style.setProperty("--part", (100 * exit.flows / most) + "%"));
}

function showServices(status) {
  table($("services"), status.services.map(service => {
    // Those that get nothing first: they are what somebody looks for.
    const [resting, serving] = [true, false].map(rests => service.servers.filter(server => (noteOf(server) !== "") === rests));
    const servers = [...resting, ...serving].map(server => {
      const weight = server.weight > 1 ? " weight " + server.weight : "";
      return server.workload + " " + at(server.address, server.port) + weight + noteOf(server);
    });
    const shown = servers.slice(0, 5).join(", ") + (servers.length > 5 ? " +" + (servers.length - 5) : "");
    return [service.service, service.binding, service.balance, service.clientSource, [shown || "none", serving.length ? "" : "Dropped"]];
  }));
}

function showChanges(changes) {
  table($("changes"), changes.map(change => [
    clock(change.at),
    change.workload + (change.address && change.address !== change.workload ? " " + change.address : ""),
    change.from ?? "new",
    [change.to, change.to],
    change.reason ?? (change.exit ? change.exit + " by " + change.nic : ""),
  ]));
}

function showWrong(items) {
  const make = () => {
    const made = document.createElement("li");
    for (const name of ["strong", "span", "code", "button"]) made.append(document.createElement(name));
    return made;
  };
  sync($("wrong"), items, byIndex, make, (made, item) => {
    const [who, text, command, copy] = made.children;
    set(who, item.who);
    set(text, item.text + " ");
    set(command, item.cure);
    copy.dataset.copy = item.cure || item.text;
    if (copy.textContent === "") set(copy, "Copy");
    copy.setAttribute("aria-label", item.cure ? "Copy the command for " + item.who : "Copy what is wrong with " + item.who);
  });
  $("well").hidden = items.length > 0;
}

function showFlows(flows) {
  table($("flows"), flows.map(flow => [
    flow.direction, flow.protocol, at(flow.source, flow.sourcePort), at(flow.destination, flow.destinationPort), flow.exit ?? "", flow.state,
  ]));
}
