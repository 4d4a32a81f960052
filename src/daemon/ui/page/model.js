
"use strict";

// What the answers of the API come to: groups, totals and what is wrong. Nothing here touches the document.

const ORDER = ["Bound", "Dropped", "Refused", "Fallback", "Waiting", "Unbound"];

/** Why the datapath dropped packets, and what to do about it. */
const DROPS = {
  Guard: "came from an unknown source on a guarded bridge. A new container is known within moments; if it goes on, check that the container engine answers.",
  NoExit: "came from workloads that have no usable exit. Each of them is listed here with its cure; egress.unavailable=fallback would send them through the default route.",
  Seal: "would have left through another NIC than their exit's, or with an address that is not that NIC's. Look for another program's source NAT or policy rule: egressd check",
  ForeignMark: "came from bound workloads and had lost egressd's packet mark. Another program writes packet marks: egressd check",
  Rate: "were above the rate of their binding. There is nothing to do: TCP adapts to it.",
  Departed: "belonged to flows of workloads that had just lost their exit, until those flows were deleted. There is nothing to do.",
  ServerLimit: "were new connections to servers that have reached maxConnections. Add servers, or raise it.",
  ClientLimit: "were new connections of clients above newConnectionsPerSecond. Raise it if these are good clients.",
  Spoofed: "had the address of a workload and came in on another port than its own. Some container uses a neighbour's address.",
};

/** A command that repairs something, as messages write it: behind a colon, a semicolon or a word like "run". */
const COMMAND = /(?:[:;] |`|\b(?:run|by|with|use) )((?:ip (?:-6 )?(?:address|link|route|rule) |(?:ip6?tables|nft|sysctl|modprobe) |docker (?:network|run|start|rm|restart) |kubectl (?:get|describe) |egressd (?:check|cleanup|explain|status))[^;,`]*?)(?= (?:tells|shows) |[;,`]|\.$|$)/;

/** The command in a message, if there is one. */
function cure(message) {
  const found = COMMAND.exec(message);
  return found ? found[1].replace(/[.,)\s]+$/, "") : "";
}

function exitsOf(workload) {
  return workload.exits?.length ? workload.exits : workload.exit ? [workload.exit] : [];
}

/** What the outside sees, as far as somebody says. */
function publicOf(workload) {
  const several = workload.publicAddresses ?? {};
  return workload.publicAddress ? [workload.publicAddress] : exitsOf(workload).flatMap(exit => several[exit] ?? []);
}

/** Why a server gets no new connections; nothing of one that gets them. */
function noteOf(server) {
  if (server.weight === 0) return " (drains)";
  if (server.health === "Unhealthy") return " (unhealthy: " + server.reason + ")";
  if (server.health === "Unknown") return " (not asked yet)";
  return server.full ? " (full)" : "";
}

function matches(workload, words) {
  if (words.length === 0) return true;
  const fields = [workload.workload, workload.address, workload.network, workload.binding, workload.nic, workload.gateway,
    workload.state, workload.reason, ...exitsOf(workload), ...publicOf(workload)];
  const text = fields.filter(Boolean).join("\n").toLowerCase();
  return words.every(word => text.includes(word));
}

function words(filter) {
  return filter.toLowerCase().split(/\s+/).filter(Boolean);
}

/** A group of workloads under a key; `of` makes what tells its members from others. */
function grouped(workloads, keyOf) {
  const groups = new Map();
  for (const workload of workloads) {
    const key = keyOf(workload);
    const group = groups.get(key);
    if (group) group.push(workload);
    else groups.set(key, [workload]);
  }
  return groups;
}

/** Workloads that leave the same way, and in them those of one network. */
function ways(workloads) {
  const rank = workload => String(ORDER.indexOf(workload.state) & 15).padStart(2, "0");
  const way = w => [rank(w), w.state, exitsOf(w).join(", "), w.spread ?? "", w.nic ?? "", w.gateway ?? "", w.reason ?? ""].join("|");
  const groups = [...grouped(workloads, way)].sort(([a], [b]) => (a < b ? -1 : 1));
  return groups.map(([key, members]) => ({
    key,
    members,
    networks: [...grouped(members, w => w.network ?? "")].sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([network, within]) => ({ key: key + "|" + network, network, members: within })),
  }));
}

/** How many different values a field has, or the one that all have. */
function oneOf(members, field, noun) {
  const values = new Set(members.map(member => member[field] ?? ""));
  return values.size === 1 ? [...values][0] : values.size + " " + noun;
}

function sum(numbers) {
  return numbers.reduce((all, one) => all + one, 0);
}

function totals(status, flows) {
  const count = state => status.workloads.filter(workload => workload.state === state).length;
  const rate = flows.exits.some(exit => exit.newPerSecond !== undefined) ? sum(flows.exits.map(exit => exit.newPerSecond ?? 0)) : undefined;
  return [
    ["Addresses", status.workloads.length],
    ["Bound", count("Bound"), "Bound"],
    ["Dropped", count("Dropped") + count("Refused"), "Dropped"],
    ["Waiting", count("Waiting"), "Waiting"],
    ["Fallback", count("Fallback"), "Fallback"],
    ["Open flows", sum(flows.exits.map(exit => exit.flows))],
    ["New flows/s", rate === undefined ? "–" : rate.toFixed(1)],
    ["Packets dropped", sum(flows.dropped.map(drop => drop.packets))],
  ];
}

/** A sentence about what somebody wrote quotes it, be it an image's label: a command in it is nobody's cure. */
const QUOTES = /^Egress[A-Z][a-z]+ /;

/** What is wrong: who, the sentence, and the command that mends it. Workloads with the same sentence are one item. */
function wrong(status, dropped) {
  const items = status.problems.map(text => ({ who: "egressd", text, quotes: QUOTES.test(text) }));
  const failing = status.workloads.filter(workload => workload.message);
  for (const [text, members] of grouped(failing, workload => workload.message)) {
    const names = [...new Set(members.map(member => member.workload))];
    const shown = names.slice(0, 3).join(", ") + (names.length > 3 ? " and " + (names.length - 3) + " more" : "");
    items.push({ who: shown + ": " + members[0].state, text, quotes: ["Invalid", "NotServed", "PoolInvalid"].includes(members[0].reason) });
  }
  for (const binding of status.bindings) {
    for (const text of binding.errors ?? []) items.push({ who: binding.binding, text, quotes: true });
    if (binding.lost?.length) {
      const more = binding.lost.length > 3 ? " and " + (binding.lost.length - 3) + " more" : "";
      items.push({ who: binding.binding, text: "Other bindings have what it asks for: " + binding.lost.slice(0, 3).join(", ") + more });
    }
  }
  for (const drop of dropped.filter(drop => drop.packets > 0)) {
    items.push({ who: drop.packets + " packets dropped: " + drop.reason + " (" + drop.family + ")", text: "They " + (DROPS[drop.reason] ?? "were not let out.") });
  }
  return items.map(item => ({ ...item, cure: item.quotes ? "" : cure(item.text) }));
}

/** A time as people write it; of today only the clock. */
function clock(text) {
  const at = new Date(text);
  const today = at.toDateString() === new Date().toDateString();
  return today ? at.toLocaleTimeString() : at.toLocaleString();
}

function at(address, port) {
  if (port === undefined) return address;
  return address.includes(":") ? "[" + address + "]:" + port : address + ":" + port;
}
