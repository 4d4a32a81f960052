
// Asks the API, listens to its events, and answers clicks.

const state = {
  status: { workloads: [], bindings: [], uplinks: [], services: [], guarded: [], dropped: [], problems: [] },
  /** Status has come. */
  known: false,
  flows: { exits: [], dropped: [] },
  changes: [],
  /** Opened groups by key; of a network how many of its workloads are shown. */
  opened: new Map(),
  explained: "",
};

/** Counters of workloads are in status alone, which is asked for that often even if nothing changes. */
const REFRESH = 5000;

async function ask(path) {
  const answer = await fetch("/api/v1/" + path);
  const body = await answer.json();
  if (!answer.ok) throw new Error(body.error);
  return body;
}

function render() {
  const filter = words($("filter").value);
  const shown = state.status.workloads.filter(workload => matches(workload, filter));
  const groups = ways(shown);
  // Few enough to look at: nothing to be opened by hand.
  const opened = filter.length && shown.length <= 50 ? allOf(groups) : state.opened;
  showWays(wayRows(groups, opened), opened);
  showServices(state.status);
  showChanges(state.changes.filter(change => matches(change, filter)));
  renderCounters();
}

function renderCounters() {
  if (!state.known) return;
  showTotals(totals(state.status, state.flows));
  showExits(state.status, state.flows.exits);
  showWrong(wrong(state.status, state.flows.dropped));
}

function allOf(groups) {
  const networks = groups.flatMap(group => group.networks);
  return new Map([...groups.map(group => [group.key, STEP]), ...networks.map(network => [network.key, STEP])]);
}

/** One question at a time; what is asked for meanwhile is one more. */
let asking = false;
let again = false;
async function refresh() {
  if (asking) {
    again = true;
    return;
  }
  asking = true;
  try {
    const before = summary();
    const [status, changes] = await Promise.all([ask("status"), ask("changes")]);
    state.status = status;
    state.known = true;
    state.changes = changes.changes.reverse();
    render();
    if (before !== "" && summary() !== before) set($("news"), summary());
  } catch {
    // The stream of events tells when the daemon is away.
  } finally {
    asking = false;
    if (again) {
      again = false;
      refresh();
    }
  }
}

function summary() {
  const count = name => state.status.workloads.filter(workload => workload.state === name).length;
  return state.status.workloads.length ? count("Bound") + " bound, " + count("Dropped") + " dropped, " + count("Waiting") + " waiting" : "";
}

function live(text, name) {
  set($("live"), text);
  dress($("live"), name);
}

let events;
let timer;
let lost;
/** How long a connection may be away before the page says so: each is made anew now and then. */
const PATIENCE = 1500;
/** Listens while somebody looks. */
function listen() {
  events?.close();
  clearInterval(timer);
  if (document.hidden) return;
  events = new EventSource("/api/v1/events");
  events.addEventListener("open", () => {
    clearTimeout(lost);
    lost = undefined;
    live("Live", "on");
    refresh();
  });
  events.addEventListener("status", refresh);
  events.addEventListener("flows", event => {
    state.flows = JSON.parse(event.data);
    renderCounters();
  });
  events.addEventListener("error", () => {
    const since = new Date().toLocaleTimeString();
    lost ??= setTimeout(() => live("egressd has not answered since " + since + "; the page shows that moment", "lost"), PATIENCE);
    // A refused connection is tried again by the browser, an answer that is no stream is not.
    if (events.readyState === EventSource.CLOSED) setTimeout(listen, 1000);
  });
  timer = setInterval(refresh, REFRESH);
}

async function explain() {
  const from = encodeURIComponent(state.explained);
  set($("explain-title"), state.explained);
  const text = ask("explain?from=" + from + "&to=" + encodeURIComponent($("to").value.trim())).then(answer => answer.text, error => error.message);
  const flows = ask("flows?workload=" + from).then(answer => answer.flows ?? [], () => []);
  set($("explanation"), await text);
  showFlows(await flows);
}

$("ways").addEventListener("click", event => {
  const { act, of, workload } = event.target.closest("button")?.dataset ?? {};
  if (act === "workload") {
    state.explained = workload;
    $("to").value = "";
    set($("explanation"), "");
    $("explain").showModal();
    explain();
  } else if (act === "more") {
    state.opened.set(of, state.opened.get(of) + STEP);
    render();
  } else if (act === "group") {
    if (!state.opened.delete(of)) state.opened.set(of, STEP);
    render();
  }
});
$("wrong").addEventListener("click", async event => {
  const button = event.target.closest("button");
  if (!button) return;
  const copied = await navigator.clipboard?.writeText(button.dataset.copy).then(() => true, () => false);
  set(button, copied ? "Copied" : "Not copied");
  setTimeout(() => set(button, "Copy"), 1500);
});
$("explain-form").addEventListener("submit", event => {
  event.preventDefault();
  explain();
});
$("close").addEventListener("click", () => $("explain").close());
let typing;
$("filter").addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(render, 100);
});
document.addEventListener("visibilitychange", listen);
render();
listen();
