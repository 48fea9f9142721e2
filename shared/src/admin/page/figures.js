"use strict";
// Figures of samples: numbers for people, rates and quantiles, the boxes of the flow and the rows of the tables. Draws nothing.
// Guarantees: what is not measured is left out (undefined); what is not known yet is a dash (null).
const RATE_SECONDS = 5, QUANTILE_SECONDS = 60, HISTORY_SECONDS = 120, ALERTS_MAX = 50, SAMPLES_SHOWN = 400;
const OLD_SECONDS = 3, NO_DATA_SECONDS = 10, SILENT_SECONDS = 15, WAIT_SECONDS_MAX = 10;
const $ = (id) => document.getElementById(id);
const find = (selector, within = document) => within.querySelector(selector);

// ---- Numbers, short: undefined is not measured (and left out), null is not known yet.
const digits = (v) => v === 0 ? "0" : Math.abs(v) < 0.01 ? "< 0.01" : Math.abs(v) < 9.995 ? v.toFixed(2)
  : Math.abs(v) < 99.95 ? v.toFixed(1) : v.toFixed(0);
function scaled(v, units, whole) {
  let at = 0;
  while (Math.abs(v) >= 999.5 && at < units.length - 1) { v /= 1000; at += 1; }
  return (at === 0 && whole && Number.isInteger(v) ? String(v) : digits(v)) + units[at];
}
const full = (v, unit) => `${v.toLocaleString("en", { maximumFractionDigits: 9 })}${unit}`;
const TIMES = [[1e-6, 1e9, " ns"], [1e-3, 1e6, " µs"], [0.9995, 1e3, " ms"], [120, 1, " s"], [7200, 1 / 60, " min"],
  [172800, 1 / 3600, " h"], [Infinity, 1 / 86400, " d"]];
const FORMATS = {
  count: (v) => [scaled(v, ["", " k", " M", " G", " T"], true), full(v, "")],
  rate: (v) => [scaled(v, ["/s", " k/s", " M/s", " G/s"]), full(v, " per second")],
  bytes: (v) => [scaled(v, [" B", " kB", " MB", " GB", " TB"], true), full(v, " bytes")],
  byteRate: (v) => [scaled(v, [" B/s", " kB/s", " MB/s", " GB/s"]), full(v, " bytes per second")],
  number: (v) => [digits(v), full(v, "")],
  exact: (v) => [String(v), full(v, "")],
  percent: (v) => [`${digits(v * 100)} %`, full(v * 100, " %")],
  seconds: (v) => {
    if (v === 0) return ["0 s", "0 seconds"];
    const [, by, unit] = TIMES.find(([below]) => Math.abs(v) < below) ?? TIMES.at(-1);
    return [digits(v * by) + unit, full(v, " seconds")];
  },
};
function cell(value, format = "count", level = "") {
  if (value == null) return { text: "–", title: "not known", level: "" };
  const [text, title] = FORMATS[format](value);
  return { text, title, level };
}
const word = (text, level = "word") => ({ text, title: text.length > 20 ? text : "", level });
function span(seconds) {
  const s = Math.floor(seconds), parts = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  const from = Math.max(0, parts.findIndex(([n]) => s >= n));
  if (s < 1) return "0 s";
  return parts.slice(from, from + 2).map(([n, unit], i) => `${Math.floor(i ? (s % parts[from][0]) / n : s / n)} ${unit}`).join(" ");
}

// ---- Samples: what is now, and what was, by the program's own uptime, which no clock step touches.
let status = null, samples = new Map(), byKey = new Map(), recent = [], minute = [], history = new Map(), alerts = [];
const OF_MINUTE = /_bucket$|_seconds_(sum|count)$/;
function take(next) {
  if (!status || next.uptime_seconds < status.uptime_seconds || next.name !== status.name || next.program !== status.program) {
    recent = []; minute = []; history = new Map();
  }
  status = next;
  samples = new Map();
  byKey = new Map();
  const now = { at: next.uptime_seconds, values: new Map() }, long = { at: now.at, values: new Map() };
  for (const [name, labels, value] of next.samples) {
    const row = { labels, value, key: name + JSON.stringify(labels) };
    if (samples.has(name)) samples.get(name).push(row); else samples.set(name, [row]);
    byKey.set(row.key, row);
    now.values.set(row.key, value);
    if (OF_MINUTE.test(name)) long.values.set(row.key, value);
  }
  for (const [past, snapshot, seconds] of [[recent, now, RATE_SECONDS], [minute, long, QUANTILE_SECONDS]]) {
    past.push(snapshot);
    while (past.length > 2 && past[1].at <= now.at - seconds) past.shift();
  }
}
function rows(name, where = {}) {
  const one = byKey.get(name + JSON.stringify(where)); // All labels were given: there may be a thousand rules.
  return one ? [one] : (samples.get(name) ?? []).filter(({ labels }) => Object.entries(where).every(([k, v]) => labels[k] === v));
}
function over(found, join) {
  const values = found.map((row) => row.value).filter((v) => v != null);
  return found.length === 0 ? undefined : values.length === 0 ? null : values.reduce(join);
}
const sum = (name, where) => over(rows(name, where), (a, b) => a + b);
const most = (name, where) => over(rows(name, where), (a, b) => Math.max(a, b));
const least = (name, where) => over(rows(name, where), (a, b) => Math.min(a, b));
const values = (name, label) => [...new Set(rows(name).map((row) => row.labels[label]))];
const grown = (row, past) => Math.max(0, (row.value ?? 0) - (past.values.get(row.key) ?? 0));
function rate(name, where) {
  const found = rows(name, where), seconds = status.uptime_seconds - recent[0].at;
  if (found.length === 0) return undefined;
  return seconds < 0.5 ? null : found.reduce((all, row) => all + grown(row, recent[0]), 0) / seconds;
}
/** Of the last minute; `null`: nothing was measured. */
function growth(name, where) {
  const found = rows(name, where);
  return found.length === 0 ? undefined : minute.length < 2 ? null : found.reduce((all, row) => all + grown(row, minute[0]), 0);
}
/** [value, whether it is above the highest bound], linear within a bucket as Prometheus' histogram_quantile. */
function quantile(name, where, q) {
  const counts = new Map();
  if (minute.length < 2) return null;
  for (const row of rows(`${name}_bucket`, where)) {
    const bound = row.labels.le === "+Inf" ? Infinity : Number(row.labels.le);
    counts.set(bound, (counts.get(bound) ?? 0) + grown(row, minute[0]));
  }
  const buckets = [...counts].sort((a, b) => a[0] - b[0]), all = buckets.at(-1)?.[1] ?? 0;
  if (all === 0) return null;
  const at = buckets.findIndex(([, count]) => count >= q * all);
  const [low, below] = at > 0 ? buckets[at - 1] : [0, 0], [high, count] = buckets[at];
  return high === Infinity ? [low, true] : [low + (high - low) * (q * all - below) / Math.max(count - below, 1e-9), false];
}
function quantileCell(found) {
  const shown = cell(found?.[0], "seconds");
  return found?.[1] ? { ...shown, text: `> ${shown.text}`, level: "warn" } : found ? shown : { ...shown, title: "nothing measured" };
}
const plus = (...all) => {
  const known = all.filter((v) => v !== undefined);
  return known.length === 0 ? undefined : known.includes(null) ? null : known.reduce((a, b) => a + b);
};
const ratio = (a, b) => a == null || b == null || b === 0 ? null : a / b;

// ---- The flow. A fact that is not measured is left out; a count of trouble has a mark once it is not 0.
const fact = (label, value, format, level) => value === undefined ? null : { key: label, label, ...cell(value, format, level) };
const trouble = (label, value, level = "warn", format = "count") => fact(label, value, format, value > 0 ? level : "");
function mean(label, name, where) {
  if (samples.has(`${name}_bucket`)) return { key: label, label: `${label}, p50`, ...quantileCell(quantile(name, where, 0.5)) };
  const count = growth(`${name}_count`, where);
  return count === undefined ? null : fact(`${label}, mean`, ratio(growth(`${name}_sum`, where), count), "seconds");
}
function box(id, name, value, unit, facts, state, format = "rate") {
  return { key: id, name, value, unit, main: cell(value, format), facts: facts.filter(Boolean), state };
}
const link = (value, name = "") => value === undefined ? undefined : value > 0 ? word(`${name}connected`, "ok") : word(`${name}not connected`, "bad");
const good = (bad, otherwise = "ok") => bad ? word(bad, "bad") : word(otherwise, "ok");
function edgeBoxes() {
  const e = "weir_edge_", found = [];
  const received = sum(`${e}messages_received_total`), acknowledged = sum(`${e}messages_acknowledged_total`);
  if (samples.has(`${e}mqtt_connected`) || samples.has(`${e}file_rows_total`)) found.push(box("sources", "Sources", rate(`${e}messages_received_total`), "messages", [
    fact("messages", received), fact("bytes in", rate(`${e}received_bytes_total`), "byteRate"),
    fact("to acknowledge", acknowledged === undefined ? undefined : Math.max(0, received - acknowledged)),
    fact("redelivered", sum(`${e}messages_redelivered_total`)), fact("MQTT connections", sum(`${e}mqtt_connections_total`)),
    fact("file rows", rate(`${e}file_rows_total`), "rate"), fact("file rows, total", sum(`${e}file_rows_total`)),
    fact("files behind", sum(`${e}file_behind_bytes`), "bytes"), trouble("file errors", sum(`${e}file_errors_total`)),
  ], link(least(`${e}mqtt_connected`), "MQTT ")));
  const readings = { topic: "weir.readings" }, journaled = `${e}records_journaled_total`, kept = `${e}readings_kept_total`;
  if (samples.has(journaled)) found.push(box("decode", "Decode", plus(rate(journaled, readings), rate(kept)), "readings", [
    fact("to send", sum(journaled, readings)), fact("for windows only", sum(kept)), fact("filtered", sum(`${e}filtered_total`)),
    trouble("rejected", sum(`${e}rejected_total`)), trouble("device clock off", sum(`${e}device_clock_off_total`)),
  ]));
  const budget = sum(`${e}journal_budget_bytes`), bytes = sum(`${e}journal_bytes`), until = least(`${e}journal_seconds_until_full`);
  if (samples.has(journaled)) found.push(box("journal", "Journal", rate(journaled), "records", [
    fact("records", sum(journaled)), fact("on disk", bytes, "bytes"),
    budget > 0 ? fact("budget", budget, "bytes") : budget === 0 ? { key: "budget", label: "budget", ...word("none", "") } : null,
    budget > 0 ? fact("used", ratio(bytes, budget), "percent", bytes > 0.9 * budget ? "warn" : "") : null,
    mean("commit", `${e}journal_commit_seconds`),
    until === null ? { key: "until", label: "until full", ...word("not filling", "") } : fact("until full", until, "seconds", until < 3600 ? "warn" : ""),
    fact("disk free", least(`${e}disk_free_bytes`), "bytes"), trouble("given up", sum(`${e}gap_records_total`), "bad"),
    trouble("damaged", sum(`${e}journal_damaged_bytes_total`), "bad", "bytes"),
  ], good(sum(`${e}journal_full`) > 0 && "full")));
  if (samples.has(`${e}window_keys`)) found.push(box("windows", "Windows", rate(`${e}window_results_total`), "results", [
    fact("results", sum(`${e}window_results_total`)), fact("keys", sum(`${e}window_keys`)), fact("state", sum(`${e}state_bytes`), "bytes"),
    fact("late", sum(`${e}late_readings_total`)), trouble("unreadable", sum(`${e}windows_unreadable_total`)),
    trouble("saves failed", sum(`${e}state_save_failed_total`)),
  ]));
  const sent = `${e}records_forwarded_total`, backlog = `${e}backlog_forwarded_total`, seconds = most(`${e}held_seconds`);
  if (samples.has(sent)) found.push(box("kafka", "Kafka", plus(rate(sent), rate(backlog)), "records", [
    fact("forwarded", sum(sent)), fact("backlog", sum(backlog)), fact("in flight", sum(`${e}in_flight_records`)),
    fact("held", sum(`${e}held_bytes`), "bytes"), fact("oldest held", seconds, "seconds", seconds > 60 ? "warn" : ""),
    trouble("producer restarts", sum(`${e}producer_restarts_total`)),
  ], link(least(`${e}kafka_connected`))));
  return found;
}
function cloudBoxes() {
  const p = "weir_cloud_process_", d = "weir_cloud_dimension_", r = "weir_cloud_rule_", found = [];
  if (!samples.has(`${p}received_total`)) return found;
  const age = most(`${p}lag_seconds`);
  found.push(box("kafka-in", "Kafka in", rate(`${p}received_total`), "records", [
    fact("records", sum(`${p}received_total`)), fact("lag", sum(`${p}lag_records`)), fact("lag, oldest", age, "seconds", age > 60 ? "warn" : ""),
    fact("partitions", sum(`${p}partitions`)), fact("controls", sum(`${p}controls_total`)),
    trouble("numbers missing", sum(`${p}missing_total`)), trouble("offsets lost", sum(`${p}lost_offsets_total`), "bad"),
  ]));
  found.push(box("deduplicate", "Deduplicate", rate(`${p}repeats_total`), "repeats", [
    fact("repeats", sum(`${p}repeats_total`)), fact("marks", sum(`${p}marks`)), fact("sent again", sum(`${p}retried_total`)),
    trouble("reopened", sum(`${p}reopened_total`)),
  ]));
  if (samples.has(`${d}hits_total`)) found.push(box("join", "Join", plus(rate(`${d}hits_total`), rate(`${d}misses_total`)), "look-ups", [
    ...values(`${d}hits_total`, "dimension").flatMap((dimension) => [
      fact(`${dimension} hits`, sum(`${d}hits_total`, { dimension })), fact(`${dimension} misses`, sum(`${d}misses_total`, { dimension })),
    ]),
    fact("waiting for a row", sum(`${p}held_records`)),
  ], good(sum(`${d}stale`) > 0 && "stale")));
  if (samples.has("weir_cloud_rules_active")) found.push(box("rules", "Rules", rate(`${r}evaluated_total`) ?? null, "evaluations", [
    fact("matched", sum(`${r}matched_total`)), fact("filtered", sum(`${p}filtered_total`)), fact("alerts", sum(`${p}alerts_total`)),
    fact("states", sum(`${p}rule_states`)), trouble("failures", sum(`${p}rule_failures_total`)),
    trouble("refused rules", sum("weir_cloud_rules_refused")), trouble("switched off", sum(`${r}tripped_total`)),
  ]));
  found.push(box("outputs", "Outputs", rate(`${p}enriched_total`), "enriched", [
    fact("enriched", sum(`${p}enriched_total`)), fact("commits", rate(`${p}commits_total`, { outcome: "committed" }), "rate"),
    mean("cycle", `${p}cycle_seconds`), trouble("aborted", sum(`${p}commits_total`, { outcome: "aborted" })),
    trouble("rejected", sum(`${p}rejected_total`)), trouble("fenced", sum(`${p}fenced_total`)), trouble("clients made anew", sum(`${p}rebuilt_total`)),
  ]));
  return found;
}
function sinkBoxes() {
  const s = "weir_cloud_sink_";
  return values(`${s}rows_total`, "sink").map((sink) => {
    const of = { sink }, age = most(`${s}lag_seconds`, of);
    return box(`sink-${sink}`, `Sink ${sink}`, rate(`${s}rows_total`, of), "rows", [
      fact("rows", sum(`${s}rows_total`, of)), fact("lag", sum(`${s}lag_records`, of)),
      fact("lag, oldest", age, "seconds", age > 60 ? "warn" : ""), mean("write", `${s}write_seconds`, of),
      trouble("dead letters", sum(`${s}dead_letters_total`, of)), trouble("retries", sum(`${s}retries_total`, of)),
      fact("skipped", sum(`${s}skipped_total`, of)), trouble("refused for now", sum(`${s}sent_again_total`, of)),
    ], sum(`${s}paused`, of) > 0 ? word("paused", "warn") : good(sum(`${s}fenced`, of) > 0 ? "fenced" : sum(`${s}failing`, of) > 0 && "failing"));
  });
}
function machineBoxes() {
  const p = "process_", ends = plus(least("weir_edge_tls_not_after_seconds") ?? least("weir_cloud_tls_not_after_seconds"));
  const tile = (id, name, value, format, unit, facts = []) => value === undefined ? null : box(id, name, value, unit, facts, undefined, format);
  return [
    tile("cpu", "CPU", rate(`${p}cpu_seconds_total`), "number", "cores", [fact("used", sum(`${p}cpu_seconds_total`), "seconds")]),
    tile("memory", "Resident memory", sum(`${p}resident_memory_bytes`), "bytes", "", [fact("threads", sum(`${p}threads`))]),
    tile("files", "Open files", sum(`${p}open_fds`), "count", "", [fact("at most", sum(`${p}max_fds`))]),
    tile("network-in", "Network in", rate(`${p}network_receive_bytes_total`), "byteRate", "", [fact("total", sum(`${p}network_receive_bytes_total`), "bytes")]),
    tile("network-out", "Network out", rate(`${p}network_transmit_bytes_total`), "byteRate", "", [fact("total", sum(`${p}network_transmit_bytes_total`), "bytes")]),
    tile("clock", "Clock steps", sum("weir_edge_clock_steps"), "count", "",
      [{ key: "clock", label: "clock", ...(sum("weir_edge_clock_trusted") > 0 ? word("trusted", "") : word("untrusted", "warn")) }]),
    tile("certificate", "Certificates", ends && Math.max(0, ends - status.time_ms / 1000), "seconds", "left"),
  ].filter(Boolean);
}

// ---- The tables: rows of {key, cells}.
const HOPS = ["journal", "kafka", "process", "mysql", "elasticsearch", "clickhouse"];
const SINCE = { device: "taken (device)", received: "received (edge)", kafka: "in Kafka" };
function latencyRows() {
  const name = "weir_event_latency_seconds", pairs = new Map();
  for (const { labels: { hop, from } } of rows(`${name}_bucket`)) pairs.set(`${hop}.${from}`, { hop, from });
  const place = ({ hop }) => (HOPS.indexOf(hop) + HOPS.length + 1) % (HOPS.length + 1);
  return [...pairs].sort((a, b) => place(a[1]) - place(b[1])).map(([key, of]) => {
    const p99 = quantile(name, of, 0.99);
    return { key, series: [`latency.${key}`, p99?.[0]], cells: [word(of.hop), word(SINCE[of.from] ?? of.from),
      quantileCell(quantile(name, of, 0.5)), quantileCell(p99), cell(growth(`${name}_bucket`, { ...of, le: "+Inf" }))] };
  });
}
function ruleRows() {
  const r = "weir_cloud_rule_", found = rows(`${r}evaluated_total`).map((row) => row.labels);
  return found.sort((a, b) => a.rule - b.rule || (a.rule > b.rule ? 1 : -1)).map((labels) => {
    const of = labels, total = (name) => sum(`${r}${name}_total`, of) ?? null;
    const each = (ratio(rate(`${r}time_nanoseconds_total`, of), rate(`${r}evaluated_total`, of))
      ?? ratio(total("time_nanoseconds"), total("evaluated")));
    return { key: `${of.rule}.${of.kind}`, cells: [word(of.rule), word(of.kind),
      total("tripped") > 0 ? word("switched off", "word warn") : word("on"), cell(rate(`${r}evaluated_total`, of), "rate"),
      cell(rate(`${r}matched_total`, of), "rate"), cell(total("matched")), cell(total("failed"), "count", total("failed") > 0 ? "warn" : ""),
      cell(total("suppressed")), each == null ? cell(null) : { text: `${Math.round(each).toLocaleString("en")} ns`, title: full(each, " ns"), level: "" }] };
  });
}
function dimensionRows() {
  const d = "weir_cloud_dimension_";
  return values(`${d}rows`, "dimension").map((dimension) => {
    const of = { dimension }, reloads = rows(`${d}reloads_total`, of);
    const why = reloads.map((row) => `${row.labels.reason}: ${row.value}`).join(", ");
    return { key: dimension, cells: [word(dimension), sum(`${d}stale`, of) > 0 ? word("stale", "word bad") : word("fresh", "word ok"),
      cell(sum(`${d}rows`, of)), cell(sum(`${d}bytes`, of), "bytes"), cell(sum(`${d}version`, of), "exact"), cell(sum(`${d}age_seconds`, of), "seconds"),
      cell(rate(`${d}changes_total`, of), "rate"), { ...cell(sum(`${d}reloads_total`, of)), title: why }] };
  });
}
const DEAD = { // Metric → [stage, reason, topic] of its labels.
  weir_edge_rejected_total: (l) => ["edge", l.reason, "weir.edge-rejected"],
  weir_cloud_process_rejected_total: (l) => ["process", l.reason, l.topic],
  weir_cloud_process_rule_failures_total: () => ["rules", "a rule failed; its record went on", ""],
  weir_cloud_sink_dead_letters_total: (l) => [`sink ${l.sink}`, "the store cannot hold it", l.topic],
};
function deadRows() {
  return Object.entries(DEAD).flatMap(([name, of]) => rows(name).filter((row) => row.value > 0).map((row) => {
    const [stage, reason, topic] = of(row.labels);
    return { key: row.key, value: row.value, cells: [word(stage), word(reason ?? ""), word(topic ?? ""), cell(row.value), cell(rate(name, row.labels), "rate")] };
  })).sort((a, b) => b.value - a.value);
}
function alertRows() {
  const today = new Date().toDateString(), words = { first: "raised", repeat: "again", recovered: "recovered" };
  return alerts.map(({ key, alert }) => {
    const time = new Date(alert.time ?? NaN), known = !Number.isNaN(time.getTime());
    const clock = known ? time.toLocaleTimeString("en-GB") : "–", day = known && time.toDateString() !== today ? `${time.toLocaleDateString("sv")} ` : "";
    return { key, cells: [{ text: day + clock, title: known ? time.toISOString() : "", level: "word" },
      word(words[alert.kind] ?? "–", alert.kind === "recovered" ? "word ok" : "word warn"), word(alert.severity ?? "–"),
      word(String(alert.rule ?? "–")), word(alert.key || alert.device || "–"), { text: alert.message ?? "", title: "", level: "text" }] };
  });
}
function sampleRows() {
  const words = $("search").value.toLowerCase().split(/\s+/).filter(Boolean), found = [];
  for (const [name, all] of samples) for (const { labels, value } of all) {
    const text = name + (Object.keys(labels).length ? `{${Object.entries(labels).map(([k, v]) => `${k}="${v}"`).join(", ")}}` : "");
    const low = text.toLowerCase();
    if (words.every((w) => low.includes(w))) found.push({ key: text, cells: [{ text, title: "", level: "" }, { text: value == null ? "not finite" : String(value), title: "", level: "" }] });
  }
  note("samples", found.length > SAMPLES_SHOWN ? `the first ${SAMPLES_SHOWN} of ${found.length}` : `${found.length} found`);
  return found.slice(0, SAMPLES_SHOWN);
}
