// Keeps the page up to date, and does what its buttons say. The server has painted everything once already.
//
// What clients and nodes have said comes in as text: nothing here makes markup of data. New rows are copies of the templates that
// the server has put on the page.

const page = document.body;
const $ = (id) => document.getElementById(id);
const SESSIONS = Number(page.dataset.sessions);
const EVENTS = Number(page.dataset.events);
const KEPT = 300;
const UNKNOWN = "–";

/* Words, the same as the server's (words.rs). */

const count = (n) => String(n).replace(/\B(?=(\d{3})+$)/g, "\u202f");
const whole = (x) => String(Math.floor(x));
const rate = (x) => (x >= 10 ? whole(x) : x.toFixed(1).replace(/\.0$/, ""));
const plural = (n, one, many = `${one}s`) => `${count(n)} ${n === 1 ? one : many}`;
const list = (names) => names.join(", ");

function bytes(n) {
  let unit = 0;
  let rest = 0;
  while (n >= 1024 && unit < 4) {
    rest = n % 1024;
    n = Math.floor(n / 1024);
    unit += 1;
  }
  const name = ["B", "KiB", "MiB", "GiB", "TiB"][unit];
  return unit === 0 || n >= 10 ? `${n} ${name}` : `${n}.${Math.floor((rest * 10) / 1024)} ${name}`;
}

function span(seconds) {
  const ms = seconds * 1e3;
  if (ms < 10) return `${ms.toFixed(1)} ms`;
  return ms < 1000 ? `${whole(ms)} ms` : `${seconds.toFixed(1)} s`;
}

function age(seconds) {
  const s = Math.max(0, Math.floor(seconds));
  if (s < 120) return `${s} s`;
  if (s < 7200) return `${Math.floor(s / 60)} min`;
  return s < 172800 ? `${Math.floor(s / 3600)} h` : `${Math.floor(s / 86400)} d`;
}

/** How far this browser's clock is ahead of the server's, in milliseconds. */
let ahead = 0;
const since = (at) => age((Date.now() - ahead - Date.parse(at)) / 1e3);
const spaced = (word) => word.replaceAll("_", " ");

const CONDITIONS = {
  ok: "All is well",
  degraded: "Everything is served, but not all is well",
  stopping: "Stopping",
  failing: "Not everything is served",
};
const TONES = { up: "ok", down: "bad", drain: "off", maint: "off" };
const tone = (state) => TONES[state] ?? "warn";

/* Cells. Only what is different is touched, so that a selection or the focus stays where it is. */

function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function mark(element, name, value) {
  if (element.getAttribute(name) !== value) element.setAttribute(name, value);
}

function cells(row, texts) {
  for (const [name, text] of Object.entries(texts)) say(row.querySelector(`[data-f="${name}"]`), text);
}

/** Makes `body` hold one row for each item, in their order. */
function rows(body, template, items, key, fill) {
  const old = new Map(Array.from(body.children, (row) => [row.dataset.key, row]));
  let next = body.firstElementChild;
  for (const item of items) {
    const name = key(item);
    let row = old.get(name);
    old.delete(name);
    if (!row) {
      row = $(template).content.firstElementChild.cloneNode(true);
      row.dataset.key = name;
    }
    if (row === next) next = next.nextElementSibling;
    else body.insertBefore(row, next);
    fill(row, item);
  }
  for (const row of old.values()) row.remove();
}

function share(row, now, limit) {
  const known = limit !== null;
  cells(row, { now: count(now), of: known ? ` / ${count(limit)}` : "" });
  const bar = row.querySelector(".bar");
  bar.toggleAttribute("hidden", !known);
  const percent = known ? Math.min(100, Math.floor((now * 100) / Math.max(1, limit))) : 0;
  mark(bar.querySelector(".part"), "width", String(percent));
}

function state(row, words, tone) {
  row.dataset.tone = tone;
  const pill = row.querySelector('.pill[data-f="state"]');
  pill.dataset.tone = tone;
  say(pill, words);
}

/* The status. */

let latest = null;
const history = { sessions: [], waiting: [], new: [], rejected: [], bytes: [] };

function nodeRow(row, node, several) {
  const held = node.held_back_s > 0;
  state(row, held ? "held back" : spaced(node.state), held ? "warn" : tone(node.state));
  const aside = [];
  if (node.server_version) aside.push(`PostgreSQL ${node.server_version.split(" ")[0]}`);
  if (node.backup) aside.push("backup");
  let lag = UNKNOWN;
  // That of a node that is down is one it had.
  const isOfNow = node.health !== "down";
  if (isOfNow && node.lag_seconds !== null) lag = `${node.lag_seconds.toFixed(1)} s`;
  else if (isOfNow && node.lag_bytes !== null) lag = bytes(node.lag_bytes);
  cells(row, {
    name: node.name,
    cluster: several ? node.cluster : "",
    addr: node.at,
    lasting: node.admin === "ready" ? "for" : `${node.health} for`,
    since: since(node.since),
    role: node.superseded ? "old primary" : (node.role ?? "unknown"),
    aside: list(aside),
    lag,
    weight: node.weight === node.weight_in_file ? String(node.weight) : `${node.weight} (file: ${node.weight_in_file})`,
    new: rate(node.new_per_second),
    p99: node.connect_p99_seconds === null ? UNKNOWN : span(node.connect_p99_seconds),
  });
  share(row, node.sessions, node.limit);
  check(row.querySelector(".check"), node.check);
  mark(row.querySelector("[data-do]"), "aria-label", `Change ${node.name}`);
}

function check(cell, check) {
  const took = check && span(check.duration_seconds);
  const error = check?.error ? `: ${check.error}` : "";
  const result = check?.ok ? `ok in ${took}` : `${check?.step} failed after ${took}`;
  cell.dataset.tone = check ? (check.ok ? "ok" : "bad") : "";
  cells(cell, { check: check ? result + error : "not yet" });
  const steps = cell.querySelector(".steps");
  const all = check?.steps ?? [];
  while (steps.children.length > all.length) steps.lastElementChild.remove();
  all.forEach((step, at) => {
    let item = steps.children[at];
    if (!item) {
      item = document.createElement("li");
      item.append(document.createElement("b"), " ", document.createElement("i"), " ", document.createElement("span"));
      steps.append(item);
    }
    say(item.children[0], step.name);
    say(item.children[1], span(step.seconds));
    say(item.children[2], step.found);
  });
}

function listenerRow(row, listener) {
  if (listener.paused) state(row, "paused", "warn");
  else state(row, listener.ready ? "open" : "no node", listener.ready ? "ok" : "bad");
  cells(row, {
    name: listener.name,
    bind: listener.bind,
    target: listener.target,
    balance: listener.balance,
    to: list(listener.new_sessions_go_to) || "nowhere: they wait",
    why: listener.why,
    waiting: count(listener.waiting),
    oldest: listener.waiting === 0 ? UNKNOWN : age(listener.oldest_wait_seconds),
    new: rate(listener.new_per_second),
    rejected: count(listener.rejected_total),
  });
  share(row, listener.sessions, listener.limit);
  const button = row.querySelector("[data-do]");
  const action = listener.paused ? "Resume" : "Pause";
  say(button, `${action}…`);
  mark(button, "aria-label", `${action} ${listener.name}`);
}

function frontBlock(block, front) {
  state(block, front.ready ? "ready" : front.troubles.join("; "), front.ready ? "ok" : "bad");
  const figures = [
    `${count(front.connections)} connections`,
    `${count(front.requests)} requests`,
    `${count(front.waiting)} waiting`,
    `${count(front.rejected_total)} rejected since the start`,
  ];
  cells(block, { name: front.name, bind: front.bind, figures: list(figures) });
  const upstreams = front.groups.flatMap((group) => group.upstreams.map((upstream) => [group.name, upstream]));
  const key = ([group, upstream]) => `${group} ${upstream.upstream} ${upstream.addr}`;
  rows(block.querySelector("tbody"), "upstream-row", upstreams, key, upstreamRow);
}

function upstreamRow(row, [group, upstream]) {
  state(row, spaced(upstream.health), tone(upstream.health));
  cells(row, {
    upstream: upstream.upstream,
    addr: upstream.addr === upstream.upstream ? "" : upstream.addr,
    group,
    since: since(upstream.since),
    weight: `${upstream.weight}${upstream.backup ? ", backup" : ""}`,
    total: count(upstream.requests_total),
    check: upstream.check ?? "not yet",
  });
  share(row, upstream.requests, upstream.limit);
}

/** Draws a card's line as the server does (spark.rs). */
function card(name, value, unit) {
  const figures = history[name];
  const element = document.querySelector(`[data-card="${name}"]`);
  const most = Math.max(0, ...figures);
  cells(element, { value: unit(value), most: unit(most) });
  const first = KEPT - figures.length;
  const point = (figure, at) => `${first + at} ${(38 - (36 * figure) / Math.max(1, most)).toFixed(1)}`;
  const line = figures.length < 2 ? "" : `M${figures.map(point).join("L")}`;
  mark(element.querySelector(".line"), "d", line);
  mark(element.querySelector(".area"), "d", line && `${line}L${KEPT - 1} 40L${first} 40Z`);
}

function remember(status) {
  const { history: all, totals } = status;
  if (all) {
    for (const name of ["sessions", "waiting", "new", "rejected"]) history[name] = all[name];
    history.bytes = all.to_client_bytes.map((n, at) => n + all.to_node_bytes[at]);
    if (all.until) ahead = Date.now() - Date.parse(all.until);
    return;
  }
  history.sessions.push(totals.sessions);
  history.waiting.push(totals.waiting);
  history.new.push(totals.new_per_second);
  history.rejected.push(totals.rejected_per_second);
  history.bytes.push(totals.to_client_bytes_per_second + totals.to_node_bytes_per_second);
  for (const figures of Object.values(history)) if (figures.length > KEPT) figures.shift();
}

/** Tells who listens to the page that the verdict is another one. */
function announce(status) {
  const words = `${CONDITIONS[status.condition]}. ${status.verdict}`;
  const lasting = (text) => text.replace(/\b\d+ (s|min|h|d)\b/g, "").replace(/\b\d+ sessions? waits?\b/g, "");
  if (announce.last !== undefined && announce.last !== lasting(words)) say($("spoken"), words);
  announce.last = lasting(words);
}

function paint(status) {
  // Another process, which counts its events from 1 again.
  if (latest && status.uptime_seconds < latest.uptime_seconds) {
    lastEvent = 0;
    $("events-rows").replaceChildren();
  }
  // Another version has another page. Nobody is interrupted in what they are about to change.
  if (status.version !== page.dataset.version && !document.querySelector("dialog[open]")) location.reload();
  latest = status;
  remember(status);
  const words = CONDITIONS[status.condition];
  document.title = `${words} · pgsplit`;
  $("top").dataset.condition = status.condition;
  say($("condition"), words);
  say($("verdict"), status.verdict);
  announce(status);
  say($("uptime"), age(status.uptime_seconds));
  const { totals } = status;
  card("sessions", totals.sessions, count);
  card("waiting", totals.waiting, count);
  card("new", totals.new_per_second, count);
  card("rejected", totals.rejected_per_second, count);
  card("bytes", totals.to_client_bytes_per_second + totals.to_node_bytes_per_second, bytes);
  const several = new Set(status.nodes.map((node) => node.cluster)).size > 1;
  $("nodes").hidden = status.nodes.length === 0;
  const nodeKey = (node) => `${several ? node.cluster : ""}/${node.name}`;
  rows($("nodes-rows"), "node-row", status.nodes, nodeKey, (row, node) => nodeRow(row, node, several));
  $("listeners").hidden = status.listeners.length === 0;
  rows($("listeners-rows"), "listener-row", status.listeners, (listener) => listener.name, listenerRow);
  $("http").hidden = status.http.length === 0;
  rows($("fronts"), "front-block", status.http, (front) => front.name, frontBlock);
  const { config } = status;
  $("loaded").dateTime = config.loaded_at;
  say($("loaded"), since(config.loaded_at));
  $("reload-fault").hidden = !config.last_error;
  say($("reload-error"), config.last_error ?? "");
  abouts(status);
  if ($("change").open) consequences();
  if (pausing) say($("confirm-will"), pausing());
}

/* Events. */

let lastEvent = Number(page.dataset.lastEvent);

const shown = (value) => (typeof value === "string" ? value : JSON.stringify(value));

function eventRow(row, event) {
  const fields = Object.entries(event.fields).filter(([, value]) => value !== null);
  const has = (name) => fields.some(([other]) => other === name);
  const key = ["node", "listener", "upstream", "front", "session"].find(has);
  const about = key ? shown(event.fields[key]) : "";
  const changes = has("from") && has("to");
  let details = changes ? `${shown(event.fields.from)} → ${shown(event.fields.to)}` : "";
  const error = event.fields.error ?? event.fields.text;
  if (error) details += (details && ": ") + shown(error);
  for (const [name, value] of fields) {
    if (name === "error" || name === "text" || name === key || (changes && (name === "from" || name === "to"))) continue;
    details += `${details && ", "}${name}=${shown(value)}`;
  }
  row.dataset.level = event.level;
  row.dataset.about = about;
  const pill = row.querySelector(".pill");
  pill.dataset.tone = { error: "bad", warn: "warn" }[event.level] ?? "off";
  const time = row.querySelector("time");
  time.dateTime = time.title = event.at;
  cells(row, { hour: event.at.slice(11, 19), level: event.level, about, what: spaced(event.event), details });
}

function happened(event) {
  if (event.id <= lastEvent) return;
  lastEvent = event.id;
  const row = $("event-row").content.firstElementChild.cloneNode(true);
  row.dataset.key = String(event.id);
  eventRow(row, event);
  const body = $("events-rows");
  body.prepend(row);
  while (body.children.length > EVENTS) body.lastElementChild.remove();
  sift();
}

/** Looks for the latest, when some were gone before they could be sent. */
async function anew() {
  const { events } = await ask("GET", `/api/v1/events?limit=${EVENTS}`);
  lastEvent = Math.max(lastEvent, ...events.map((event) => event.id));
  rows($("events-rows"), "event-row", events.reverse(), (event) => String(event.id), eventRow);
  sift();
}

/** Shows the events that are asked for. */
function sift() {
  const [level, about] = [$("events-level").value, $("events-about").value];
  const levels = { "": ["info", "warn", "error"], warn: ["warn", "error"], error: ["error"] }[level];
  let some = false;
  for (const row of $("events-rows").children) {
    row.hidden = !levels.includes(row.dataset.level) || (about !== "" && row.dataset.about !== about);
    some ||= !row.hidden;
  }
  $("events-none").hidden = some;
  say($("events-none"), level || about ? "Nothing of this kind has happened of late." : "Nothing has happened yet.");
}

/** Offers the nodes there are to choose events by. */
function abouts(status) {
  const select = $("events-about");
  const names = [...new Set(status.nodes.map((node) => node.name))];
  const old = Array.from(select.options, (option) => option.value).slice(1);
  if (names.join("\n") === old.join("\n")) return;
  const chosen = select.value;
  while (select.options.length > 1) select.options[1].remove();
  for (const name of names) select.add(new Option(name, name));
  select.value = names.includes(chosen) ? chosen : "";
  sift();
}

$("events-level").addEventListener("change", sift);
$("events-about").addEventListener("change", sift);

/* Sessions: asked for while somebody looks at them. */

const order = { sort: "age", order: "desc" };
let asking = null;

function sessionRow(row, session) {
  const name = (text) => text ?? UNKNOWN;
  cells(row, {
    id: session.id,
    client: session.client,
    user: name(session.user),
    database: name(session.database),
    application: name(session.application),
    listener: session.listener,
    node: name(session.node),
    state: session.state,
    age: age(session.age_seconds),
    idle: age(session.idle_seconds),
    bytes: bytes(session.to_node_bytes + session.to_client_bytes),
  });
  mark(row.querySelector("[data-do]"), "aria-label", `End session ${session.id}`);
}

async function sessions() {
  asking?.abort();
  const mine = (asking = new AbortController());
  const query = new URLSearchParams({ ...order, limit: SESSIONS });
  const search = $("sessions-find").value.trim();
  if (search) query.set("search", search);
  try {
    const answer = await ask("GET", `/api/v1/sessions?${query}`, { signal: mine.signal });
    rows($("sessions-rows"), "session-row", answer.sessions, (session) => session.id, sessionRow);
    const [here, all] = [answer.sessions.length, answer.total];
    say($("sessions-total"), here < all ? `${count(here)} of ${count(all)}` : count(all));
    $("sessions-more").hidden = here === all;
    say($("sessions-more"), `and ${count(all - here)} more: look for some by name above, or ask \`pgsplit sessions\`.`);
    $("sessions-fault").hidden = true;
  } catch (fault) {
    if (fault.name === "AbortError") return;
    say($("sessions-fault"), inWords(fault));
    $("sessions-fault").hidden = false;
  } finally {
    if (asking === mine) asking = null;
  }
}

let looking = false;
new IntersectionObserver((entries) => {
  looking = entries.at(-1).isIntersecting;
}).observe($("sessions"));
setInterval(() => {
  if (looking && !asking && !document.hidden && source) sessions();
}, 2000);

let typing = 0;
$("sessions-find").addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(sessions, 200);
});

for (const button of document.querySelectorAll("[data-sort]")) {
  button.addEventListener("click", () => {
    const by = button.dataset.sort;
    order.order = order.sort === by && order.order === "desc" ? "asc" : "desc";
    order.sort = by;
    for (const other of document.querySelectorAll("[data-sort]")) {
      const word = other === button ? `${order.order}ending` : "none";
      other.closest("th").setAttribute("aria-sort", word);
    }
    sessions();
  });
}

/* News. */

let source = null;
let heard = performance.now();
let uptime = 0;
let retry = 0;

function listen() {
  clearTimeout(retry);
  source?.close();
  source = new EventSource(`/api/v1/stream?since=${lastEvent}`);
  source.addEventListener("status", ({ data }) => {
    heard = performance.now();
    const status = JSON.parse(data);
    // Another process counts its events from the beginning.
    if (status.uptime_seconds < uptime) {
      lastEvent = 0;
      anew().then(listen);
    }
    uptime = status.uptime_seconds;
    paint(status);
    news();
  });
  source.addEventListener("event", ({ data }) => happened(JSON.parse(data)));
  source.addEventListener("missed", anew);
  source.addEventListener("error", () => {
    // After an answer that is no stream the browser does not try again.
    if (source?.readyState === EventSource.CLOSED) retry = setTimeout(listen, 3000);
    news();
  });
}

function news() {
  const quiet = (performance.now() - heard) / 1e3;
  const lost = quiet > 3;
  const text = lost ? `no news since ${age(quiet)}: pgsplit does not answer, trying again` : "live";
  $("news").dataset.tone = lost ? "bad" : "ok";
  // Told once to who listens, not with each second.
  if (lost !== page.hasAttribute("data-stale")) say($("spoken"), lost ? "pgsplit does not answer." : "News come again.");
  page.toggleAttribute("data-stale", lost);
  say($("news"), text);
}

setInterval(news, 1000);
document.addEventListener("visibilitychange", () => {
  if (document.hidden) {
    clearTimeout(retry);
    source?.close();
    source = null;
  } else {
    heard = performance.now();
    listen();
  }
});

/* Requests. */

const KEY = "pgsplit-token";

/** What the API answers; throws its refusal as it is. Over an address changes take the token, which is asked for once. */
async function ask(method, path, options = {}) {
  for (;;) {
    const headers = { accept: "application/json" };
    const token = sessionStorage.getItem(KEY);
    if (method !== "GET" && token) headers.authorization = `Bearer ${token}`;
    if (options.body) headers["content-type"] = "application/json";
    let answer;
    try {
      answer = await fetch(path, { method, headers, cache: "no-store", ...options });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw { error: "pgsplit does not answer", hint: "" };
    }
    const body = await answer.json().catch(() => ({ error: `pgsplit answers ${answer.status}`, hint: "" }));
    if (answer.ok) return body;
    if (answer.status !== 401 || method === "GET") throw body;
    sessionStorage.removeItem(KEY);
    const given = await askToken(token ? body.error : "");
    if (!given) throw { error: "nothing was changed", hint: "" };
    sessionStorage.setItem(KEY, given);
  }
}

const inWords = (fault) => (fault.hint ? `${fault.error}: ${fault.hint}` : (fault.error ?? String(fault)));

/** What somebody types, or nothing. */
function askToken(refusal) {
  const dialog = $("ask-token");
  $("token").value = "";
  complain("token-fault", refusal);
  dialog.showModal();
  $("token").focus();
  return new Promise((done) => {
    dialog.onsubmit = (event) => {
      event.preventDefault();
      dialog.close($("token").value);
    };
    dialog.onclose = () => {
      $("token").value = "";
      done(dialog.returnValue);
      dialog.returnValue = "";
    };
  });
}

function complain(id, text) {
  $(id).hidden = !text;
  say($(id), text);
}

let fading = 0;
function done(text) {
  clearTimeout(fading);
  $("done").hidden = false;
  say($("done"), text);
  fading = setTimeout(() => {
    $("done").hidden = true;
  }, 10000);
}

for (const button of document.querySelectorAll("[data-close]")) {
  button.addEventListener("click", () => button.closest("dialog").close(""));
}

/* What will happen, in words. */

let changed = null;
const theNode = () => latest?.nodes.find((node) => node.name === changed.name && node.cluster === changed.cluster);

/** Where new sessions go that now go to a node. */
function elsewhere(node) {
  const doors = latest.listeners.filter(
    (listener) => listener.cluster === node.cluster && listener.new_sessions_go_to.includes(node.name),
  );
  if (doors.length === 0) return "It gets no new sessions now.";
  const words = doors.map((listener) => {
    const others = listener.new_sessions_go_to.filter((name) => name !== node.name);
    if (others.length > 0) return `${listener.name} go to ${list(others)}`;
    if (listener.target !== "prefer-standby") return `${listener.name} wait: no other node fits now`;
    return `${listener.name} go to the primary, if it is there`;
  });
  return `New ones of ${words.join("; of ")}.`;
}

function leaving(node) {
  const { name, sessions } = node;
  if (sessions === 0) return `${name} has no sessions.`;
  const end = sessions === 1 ? "ends" : "end";
  const how = {
    drain: `${end} between two transactions`,
    close: `${end} at once, also in a transaction`,
    keep: `${sessions === 1 ? "stays" : "stay"} until ${sessions === 1 ? "its client goes" : "their clients go"}`,
  }[node.on_drain];
  return `${plural(sessions, "session")} on ${name} ${how}.`;
}

function will(node, what) {
  switch (what) {
    case "ready":
      return `${node.name} gets new sessions again, as soon as its checks say that it lives.`;
    case "drain":
      return `${leaving(node)} ${elsewhere(node)}`;
    case "maint":
      return `${leaving(node)} ${elsewhere(node)} ${node.name} is not checked until it is ready again.`;
    case "weight":
      if ($("weight").value === "0") return `${node.name} keeps its ${plural(node.sessions, "session")}. ${elsewhere(node)}`;
      return `${node.name} gets a share of ${$("weight").value || "?"} of new sessions, where it has one of ${node.weight} now.`;
    case "kill":
      return `${plural(node.sessions, "session")} on ${node.name} ${node.sessions === 1 ? "ends" : "end"} at once, also in a transaction; clients may come back to it.`;
    default:
      return "nothing yet.";
  }
}

const chosen = () => $("change").querySelector("input[name=what]:checked")?.value;

function consequences() {
  const node = theNode();
  const what = chosen();
  const button = $("change-do");
  $("weight-label").hidden = what !== "weight";
  $("weight").disabled = what !== "weight";
  button.disabled = !node || !what;
  if (!node) return say($("change-will"), `${changed.name} is gone.`);
  const role = node.superseded ? "old primary" : (node.role ?? "role unknown");
  say($("change-about"), `${role}, ${spaced(node.state)}, ${plural(node.sessions, "session")}, weight ${node.weight}`);
  say($("change-will"), will(node, what));
  const verb = { ready: "Make ready", drain: "Drain", maint: "Put in maint", weight: "Set the weight of", kill: "End sessions of" }[what];
  say(button, verb ? `${verb} ${node.name}` : "Change");
  return undefined;
}

function changeNode(name, cluster) {
  changed = { name, cluster };
  const node = theNode();
  if (!node) return;
  const dialog = $("change");
  say($("change-title"), `Change ${name}`);
  $("weight").value = String(node.weight);
  const use = node.admin;
  for (const input of dialog.querySelectorAll("input[name=what]")) {
    input.checked = false;
    input.disabled = input.value === use;
    input.closest("label").hidden = input.value === use;
  }
  complain("change-fault", "");
  consequences();
  dialog.showModal();
}

$("change").addEventListener("input", consequences);
async function makeChange(node, what) {
  const told = will(node, what);
  if (what === "kill") {
    const { killed } = await ask("DELETE", `/api/v1/sessions?${new URLSearchParams({ node: node.name })}`);
    return `${plural(killed, "session")} of ${node.name} ended.`;
  }
  const change = what === "weight" ? { weight: Number($("weight").value) } : { admin: what };
  const path = `/api/v1/nodes/${encodeURIComponent(node.name)}`;
  const { notes } = await ask("PATCH", path, { body: JSON.stringify(change) });
  const is = what === "weight" ? `weight ${change.weight}` : what;
  return [`${node.name}: ${is}.`, told, ...notes].join(" ");
}

$("change").addEventListener("submit", (event) => {
  event.preventDefault();
  const [node, what] = [theNode(), chosen()];
  if (!node || !what) return;
  once("change-fault", async () => {
    done(await makeChange(node, what));
    $("change").close();
  });
});

/** Does one thing at a time: a second press while the first is under way does nothing. */
let busy = false;
async function once(fault, act) {
  if (busy) return;
  busy = true;
  try {
    await act();
  } catch (refusal) {
    complain(fault, inWords(refusal));
  } finally {
    busy = false;
  }
}

/* One question. */

/** Says again what will happen, while a question about a listener is open. */
let pausing = null;

function confirm(title, words, action, act) {
  const dialog = $("confirm");
  say($("confirm-title"), title);
  say($("confirm-will"), words);
  say($("confirm-do"), action);
  complain("confirm-fault", "");
  dialog.onsubmit = (event) => {
    event.preventDefault();
    once("confirm-fault", async () => {
      done(await act());
      dialog.close();
    });
  };
  dialog.onclose = () => {
    pausing = null;
  };
  dialog.showModal();
}

function pause(name) {
  const find = () => latest.listeners.find((listener) => listener.name === name);
  const listener = find();
  if (!listener) return;
  const path = `/api/v1/listeners/${encodeURIComponent(name)}`;
  if (listener.paused) {
    const words = () => `New sessions of ${name} go to nodes again; ${plural(find()?.waiting ?? 0, "one that waits does", "that wait do")} so at once.`;
    confirm(`Resume ${name}`, words(), `Resume ${name}`, async () => {
      await ask("POST", `${path}/resume`);
      return `${name} is resumed.`;
    });
    pausing = words;
  } else {
    const words = () =>
      `New sessions of ${name} wait until somebody resumes it, and give up after their time. ` +
      `${plural(find()?.sessions ?? 0, "session")} that ${find()?.sessions === 1 ? "is" : "are"} open go on.`;
    confirm(`Pause ${name}`, words(), `Pause ${name}`, async () => {
      await ask("POST", `${path}/pause`);
      return `${name} is paused.`;
    });
    pausing = words;
  }
}

function endSession(row) {
  const text = (name) => row.querySelector(`[data-f="${name}"]`).textContent;
  const id = text("id");
  const words = `Session ${id} of ${text("user")} from ${text("client")} on ${text("node")} ends at once, also in a transaction.`;
  confirm("End a session", words, `End ${id}`, async () => {
    await ask("DELETE", `/api/v1/sessions/${encodeURIComponent(id)}`);
    sessions();
    return `${id} is ended.`;
  });
}

document.querySelector("main").addEventListener("click", (event) => {
  const button = event.target.closest("[data-do]");
  const row = button?.closest("tr");
  if (!row || !latest) return;
  if (button.dataset.do === "pause") pause(row.dataset.key);
  if (button.dataset.do === "end") endSession(row);
  if (button.dataset.do !== "change") return;
  const several = new Set(latest.nodes.map((node) => node.cluster)).size > 1;
  const node = latest.nodes.find((node) => `${several ? node.cluster : ""}/${node.name}` === row.dataset.key);
  if (node) changeNode(node.name, node.cluster);
});

/* The configuration. */

$("effective").addEventListener("toggle", async () => {
  if (!$("effective").open) return;
  try {
    say($("effective-text"), JSON.stringify(await ask("GET", "/api/v1/config"), null, 2));
  } catch (fault) {
    say($("effective-text"), inWords(fault));
  }
});

if (!document.hidden) listen();
