"use strict";
// Draws the figures, and follows the stream of events.
// Guarantees: elements are kept and touched only where something changed, so that nothing jumps and readers of screens are not
// disturbed. On failure: the last figures stay, marked as old.

// ---- Drawing: elements are kept by key, and touched only where something changed.
function make(tag, ...children) {
  const node = tag === "svg" || tag === "path" ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  node.append(...children);
  return node;
}
function set(node, { text, title = "", level = "" }) {
  if (node.textContent !== text) node.textContent = text;
  if (node.title !== title) node.title = title;
  if (node.className !== level) node.className = level;
}
const note = (name, text) => set(find(`[data-note="${name}"]`), { text, level: find(`[data-note="${name}"]`).className });
function keyed(parent, items, create, update) {
  const old = new Map([...parent.children].map((node) => [node.itemKey, node]));
  let place = parent.firstElementChild;
  for (const item of items) {
    let node = old.get(item.key);
    old.delete(item.key);
    if (!node) { node = create(item); node.itemKey = item.key; }
    if (place === node) place = node.nextElementSibling; else parent.insertBefore(node, place);
    update(node, item);
  }
  for (const node of old.values()) node.remove();
}
function spark() {
  const svg = make("svg", make("path"));
  for (const [k, v] of [["viewBox", "0 0 120 24"], ["preserveAspectRatio", "none"], ["aria-hidden", "true"]]) svg.setAttribute(k, v);
  return svg;
}
function draw(svg, key, value) {
  const now = status.uptime_seconds, all = history.get(key) ?? [];
  if (value != null && all.at(-1)?.[0] !== now) all.push([now, value]);
  while (all.length > 0 && all[0][0] < now - HISTORY_SECONDS) all.shift();
  history.set(key, all);
  if (document.hidden) return;
  const top = Math.max(1e-12, ...all.map(([, v]) => v)), point = ([t, v]) => `${(120 - (now - t)).toFixed(1)} ${(23 - 21 * v / top).toFixed(1)}`;
  svg.firstChild.setAttribute("d", all.map((p, i) => (i === 0 || p[0] - all[i - 1][0] > 4 ? "M" : "L") + point(p)).join(""));
}
function drawBoxes(name, boxes) {
  keyed(find(`[data-boxes="${name}"]`), boxes, (item) => {
    const main = make("p", make("strong"), " ", make("span")), head = make("div", make("h3", item.name), make("span"));
    const node = make("li", head, main, spark(), make("dl"));
    head.className = "head"; main.className = "main"; main.lastChild.className = "quiet"; node.dataset.box = item.key;
    return node;
  }, (node, item) => {
    const [head, main, svg, dl] = node.children;
    set(head.lastChild, item.state ?? { text: "" });
    set(main.firstChild, item.main);
    set(main.lastChild, { text: item.unit, level: "quiet" });
    draw(svg, `box.${item.key}`, item.value);
    node.className = item.state?.level === "bad" ? "box failing" : "box";
    keyed(dl, item.facts, (of) => { const div = make("div", make("dt", of.label), make("dd")); div.dataset.fact = of.label; return div; },
      (div, of) => { set(div.firstChild, { text: of.label }); set(div.lastChild, of); });
  });
  return boxes.length > 0;
}
function drawTable(name, list) {
  keyed(find(`[data-table="${name}"] tbody`), list, (row) => {
    const tr = make("tr", ...row.cells.map((_, at) => make(at === 0 ? "th" : "td")));
    tr.firstChild.scope = "row"; tr.dataset.key = row.key;
    if (row.series) tr.append(make("td", spark()));
    return tr;
  }, (tr, row) => {
    row.cells.forEach((of, at) => set(tr.children[at], of));
    if (row.series) draw(tr.lastChild.firstChild, ...row.series);
  });
  return list.length > 0;
}
const show = (section, shown) => { find(`[data-section="${section}"]`).hidden = !shown; };
function drawAll() {
  if (!status) return;
  const chain = drawBoxes("chain", [...edgeBoxes(), ...cloudBoxes()]), sinks = drawBoxes("sinks", sinkBoxes());
  show("flow", chain || sinks);
  show("latency", drawTable("latency", latencyRows()));
  show("machine", drawBoxes("machine", machineBoxes()));
  drawState();
  if (document.hidden) return;
  show("dimensions", drawTable("dimensions", dimensionRows()));
  show("rules", drawTable("rules", ruleRows()) || samples.has("weir_cloud_rules_set"));
  const c = "weir_cloud_rules_", text = (name, format) => cell(sum(c + name), format).text;
  note("rules", `Set ${text("set", "exact")}: ${text("active")} active, ${text("refused")} refused; looked at ${text("age_seconds", "seconds")} ago.`);
  show("alerts", drawTable("alerts", alertRows()) || samples.has("weir_cloud_process_alerts_total"));
  note("alerts", alerts.length === 0 ? "None yet." : `The newest ${alerts.length}, newest first.`);
  const dead = deadRows(), known = Object.keys(DEAD).some((name) => samples.has(name));
  show("dead-letters", known);
  drawTable("dead-letters", dead);
  note("dead-letters", dead.length === 0 ? "None." : `${full(dead.reduce((all, row) => all + row.value, 0), "")} since the program started.`);
  $("samples").hidden = false;
  if ($("samples").open) drawTable("samples", sampleRows());
}

// ---- The state: of the program, and of what we know of it.
const feed = { lost: "", again: 0, heard: 0, locked: false, open: false };
function stateNow() {
  if (feed.locked) return ["locked", "needs a token", "idle"];
  if (!feed.open && feed.lost) return ["lost", status ? "connection lost" : "no connection", "bad"];
  if (!status) return ["connecting", "connecting", "idle"];
  if (age() > NO_DATA_SECONDS) return ["no-data", "no data", "bad"];
  if (status.live.length > 0) return ["not-alive", "not alive", "bad"];
  return status.ready.length > 0 ? ["not-ready", "not ready", "warn"] : ["running", "running", "ok"];
}
const age = () => (performance.now() - feed.heard) / 1000;
function drawState() {
  const [id, text, level] = stateNow(), old = status && (age() > OLD_SECONDS || id === "lost"), tried = Math.max(0, Math.ceil((feed.again - performance.now()) / 1000));
  set($("state"), { text, level });
  $("state").dataset.state = id;
  set($("age"), !status ? { text: "" } : old ? { text: `data is ${Math.floor(age())} s old`, level: "warn" } : { text: "live", level: "quiet" });
  $("main").classList.toggle("old", Boolean(old));
  $("trouble").hidden = id !== "lost";
  const next = tried > 0 ? `next try in ${tried} s` : "trying now";
  if (id === "lost") set($("trouble"), { text: `${status ? "Connection lost" : "No connection"}: ${feed.lost}; ${next}.${status ? " What stands below is the last that came." : ""}`, level: "bad" });
  document.title = status ? `${status.name}: ${text}, ${status.program}` : `Weir: ${text}`;
  if (!status) return;
  set($("name"), { text: status.name });
  set($("program"), { text: `${status.program} ${status.version}` });
  set($("uptime"), { text: `· up ${span(status.uptime_seconds)}`, title: full(status.uptime_seconds, " seconds") });
  const reasons = [["not alive", "bad", status.live], ["not ready", "warn", status.ready]].flatMap(([what, l, list]) =>
    list.map(({ who, why }) => ({ key: `${what} ${who}`, text: `${what}: ${who}: ${why}`, level: l })));
  keyed($("reasons"), reasons, () => make("li"), set);
}

// ---- The stream.
function on(event, data) {
  const read = JSON.parse(data);
  feed.heard = performance.now();
  if (event === "status") { feed.lost = ""; take(read); drawAll(); }
  if (event !== "alert" || alerts.some(({ key }) => key === data)) return; // Older ones come again with each connection.
  alerts.push({ key: data, alert: read });
  alerts = alerts.map((a, at) => [a, at]).sort(([a, i], [b, j]) => (b.alert.time ?? 0) - (a.alert.time ?? 0) || j - i).map(([a]) => a).slice(0, ALERTS_MAX);
}
async function readEvents(body, came) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "", event = "", data = [];
  for (;;) {
    const { value, done } = await reader.read();
    if (done) throw new Error("the program closed it");
    came();
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines.map((l) => l.replace(/\r$/, ""))) {
      const [, field, text] = /^([^:]*):? ?(.*)$/s.exec(line);
      if (line === "") { if (data.length > 0) on(event || "message", data.join("\n")); event = ""; data = []; }
      else if (field === "event") event = text;
      else if (field === "data") data.push(text);
    }
  }
}
const store = (kind, key, ...value) => { // A browser may forbid storage.
  try { return value.length === 0 ? window[kind].getItem(key) : value[0] == null ? window[kind].removeItem(key) : window[kind].setItem(key, value[0]); } catch { return null; }
};
let token = store("sessionStorage", "weir-token");
function askToken(why) {
  feed.locked = true;
  $("refusal").textContent = why;
  $("locked").hidden = false;
  $("token").value = "";
  $("token").focus();
  drawState();
  return new Promise((done) => {
    $("token-form").onsubmit = (submitted) => {
      submitted.preventDefault();
      token = $("token").value.trim();
      if (!/^[\x21-\x7e]+$/.test(token)) { $("refusal").textContent = "A token has letters, digits and signs of ASCII only."; return; }
      store("sessionStorage", "weir-token", token);
      $("locked").hidden = true;
      feed.locked = false;
      done();
    };
  });
}
async function follow() {
  for (let wait = 1; ;) {
    const attempt = new AbortController();
    let watchdog = 0, silent = false;
    const came = () => { clearTimeout(watchdog); watchdog = setTimeout(() => { silent = true; attempt.abort(); }, SILENT_SECONDS * 1000); };
    try {
      came();
      const answer = await fetch("api/events", { signal: attempt.signal, cache: "no-store", credentials: "same-origin",
        headers: { Accept: "text/event-stream", ...(token ? { Authorization: `Bearer ${token}` } : {}) } });
      if (!answer.ok) {
        const line = (await answer.text()).split("\n")[0].slice(0, 500);
        clearTimeout(watchdog);
        if (answer.status !== 401 && answer.status !== 403) throw new Error(`answer ${answer.status}: ${line}`);
        store("sessionStorage", "weir-token", null);
        await askToken(line || `answer ${answer.status}`);
        continue;
      }
      feed.open = true;
      await readEvents(answer.body, () => { wait = 1; came(); });
    } catch (error) {
      feed.lost = silent ? `nothing came for ${SILENT_SECONDS} s` : error.message;
    }
    clearTimeout(watchdog);
    attempt.abort();
    feed.open = false;
    feed.again = performance.now() + wait * 1000;
    drawState();
    await new Promise((done) => { setTimeout(done, wait * 1000); });
    wait = Math.min(wait * 2, WAIT_SECONDS_MAX);
  }
}

// ---- What a person does.
const darkWanted = matchMedia("(prefers-color-scheme: dark)");
let chosen = store("localStorage", "weir-theme");
function drawTheme() {
  const theme = chosen ?? (darkWanted.matches ? "dark" : "light");
  document.documentElement.dataset.theme = theme;
  $("theme").setAttribute("aria-pressed", String(theme === "dark"));
}
$("theme").addEventListener("click", () => {
  chosen = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
  store("localStorage", "weir-theme", chosen);
  drawTheme();
});
darkWanted.addEventListener("change", drawTheme);
$("search").addEventListener("input", drawAll);
$("samples").addEventListener("toggle", drawAll);
document.addEventListener("visibilitychange", drawAll);
setInterval(drawState, 500);
drawTheme();
follow();
