// Shows any status by its form alone (see admin/mod.rs). Text goes in through textContent only: names come from strangers.
"use strict";
const MAX_ROWS = 500;
const MAX_LINES = 12;
const GOOD = ["up", "ok", "ready", "synced", "healthy", "live", "leader", "held lease", "running", "connected", "passing", "registered", "published"];
const SOSO = ["draining", "pending", "stale", "held", "starting", "unknown", "damped", "maint", "drain", "flapping", "reconnecting", "waiting"];
const BAD = ["down", "failed", "error", "unhealthy", "quarantined", "lost", "disconnected", "rejected", "expired"];
const UNITS = /_(unix_ms|ms|bytes)$/;
const NAMES = /(port|id|number|revision)$/; // numbers that are names, not quantities
let skew = 0; // the server's clock minus ours, ms
let shown = ""; // the last status drawn, as text
const byId = (id) => document.getElementById(id);
const isObject = (v) => v !== null && typeof v === "object" && !Array.isArray(v);
const isRows = (v) => Array.isArray(v) && v.length > 0 && v.every(isObject);
const isMap = (v) => isObject(v) && Object.keys(v).length > 0 && Object.values(v).every(isObject);
const label = (key) => key.replace(UNITS, "").replaceAll("_", " ").replace("haproxy", "HAProxy");

function make(tag, cls, ...children) {
  const e = document.createElement(tag);
  if (cls) e.className = cls;
  e.append(...children); // strings become text nodes
  return e;
}

function duration(ms) {
  const s = Math.abs(ms) / 1000;
  if (s < 1) return `${Math.round(ms * 10) / 10} ms`;
  if (s < 60) return `${s < 10 ? Math.round(s * 10) / 10 : Math.round(s)} s`;
  const two = (big, bigUnit, small, smallUnit) => `${big} ${bigUnit}` + (small ? ` ${small} ${smallUnit}` : "");
  if (s < 3600) return two(Math.floor(s / 60), "min", Math.floor(s % 60), "s");
  if (s < 86400) return two(Math.floor(s / 3600), "h", Math.floor((s % 3600) / 60), "min");
  return two(Math.floor(s / 86400), "d", Math.floor((s % 86400) / 3600), "h");
}

function size(n) {
  let unit = 0;
  for (; n >= 1024 && unit < 4; unit += 1) n /= 1024;
  return `${Math.round(n * 10) / 10} ${["B", "KiB", "MiB", "GiB", "TiB"][unit]}`;
}

function age(time) {
  const ms = Date.now() + skew - Number(time.dataset.at);
  time.textContent = ms < -1000 ? `in ${duration(-ms)}` : ms < 1000 ? "now" : `${duration(Math.floor(ms / 1000) * 1000)} ago`;
}

function plain(value) {
  if (value === null || value === undefined || value === "") return "–";
  if (Array.isArray(value)) return value.map(plain).join(", ") || "none";
  if (isObject(value)) return Object.entries(value).map(([k, v]) => `${k}=${plain(v)}`).join(", ") || "none";
  if (typeof value === "boolean") return value ? "yes" : "no";
  return String(value);
}

// What was unfolded stays so when the next status is drawn.
const unfolded = new Set();
function details(id, rows) {
  const out = make("details", "", make("summary", "", `${rows.length}`), table(rows));
  out.open = unfolded.has(id);
  out.addEventListener("toggle", () => (out.open ? unfolded.add(id) : unfolded.delete(id)));
  return out;
}

// An object within a cell: a line for each entry, and folded up when they are many.
function lines(key, object) {
  const entries = Object.entries(object);
  if (entries.length > MAX_LINES) return details(key, entries.map(([name, value]) => ({ name, value })));
  return make("div", "lines", ...entries.map(([k, v]) => make("div", "", make("span", "dim", label(k)), " ", cell(k, v, object))));
}

function cell(key, value, row) {
  // A row goes by its first value, usually its name.
  if (isRows(value)) return details(`${plain(Object.values(row)[0])} ${key}`, value);
  if (typeof value === "number") {
    if (key.endsWith("_unix_ms")) {
      const time = make("time");
      time.dataset.at = value;
      time.title = new Date(value).toLocaleString();
      age(time);
      return time;
    }
    if (key.endsWith("_ms")) return duration(value);
    if (key.endsWith("_bytes")) return size(value);
    return NAMES.test(key) ? String(value) : value.toLocaleString("en").replaceAll(",", "\u202f");
  }
  if (isObject(value) && Object.keys(value).length) return lines(key, value);
  const text = plain(value);
  const word = typeof value === "string" ? value.toLowerCase() : "";
  const cls = GOOD.includes(word) ? "good" : SOSO.includes(word) ? "soso" : BAD.includes(word) ? "bad" : "";
  return cls ? make("span", `pill ${cls}`, text) : text === "–" ? make("span", "dim", text) : text;
}

const isNumber = (key, rows) => !UNITS.test(key) && !NAMES.test(key) && rows.some((r) => typeof r[key] === "number")
  && rows.every((r) => r[key] === undefined || r[key] === null || typeof r[key] === "number");

function table(rows) {
  const keys = [...new Set(rows.flatMap(Object.keys))];
  const numbers = new Set(keys.filter((k) => isNumber(k, rows)));
  const number = (k) => (numbers.has(k) ? "number" : "");
  const head = make("thead", "", make("tr", "", ...keys.map((k) => make("th", number(k), label(k)))));
  const body = make("tbody", "", ...rows.slice(0, MAX_ROWS).map((row) =>
    make("tr", "", ...keys.map((k) => make("td", number(k), cell(k, row[k], row))))));
  return make("table", "", head, body);
}

function pairs(object) {
  const rows = Object.entries(object).map(([k, v]) => make("tr", "", make("th", "", label(k)), make("td", "", cell(k, v, object))));
  return make("table", "kv", make("tbody", "", ...rows));
}

function section(title, content, count, total) {
  const head = make("div", "head", make("h2", "", label(title)));
  if (count !== undefined) head.append(make("span", "count", total > count ? `${count} of ${total}` : `${count}`));
  const out = make("section", count === undefined ? "" : "wide", head, make("div", "", content));
  if (count > MAX_ROWS) out.append(make("div", "more dim", `The first ${MAX_ROWS} rows are shown: filter, or see the JSON.`));
  return out;
}

function draw(status) {
  const wanted = byId("filter").value.trim().toLowerCase();
  const overview = {}, cards = [], tables = [], none = [];
  for (const [key, value] of Object.entries(status)) {
    const rows = isRows(value) ? value : isMap(value) ? Object.entries(value).map(([name, v]) => ({ name, ...v })) : null;
    if (rows) {
      const hits = wanted ? rows.filter((r) => JSON.stringify(r).toLowerCase().includes(wanted)) : rows;
      tables.push(section(key, hits.length ? table(hits) : make("div", "more dim", "No row matches."), hits.length, rows.length));
    } else if (Array.isArray(value) ? value.length === 0 : isObject(value) && Object.keys(value).length === 0) none.push(label(key));
    else if (isObject(value)) cards.push(section(key, pairs(value)));
    else overview[key] = value;
  }
  if (Object.keys(overview).length) cards.unshift(section("overview", pairs(overview)));
  if (none.length) tables.push(Object.assign(make("div", "", `Empty: ${none.join(", ")}`), { id: "quiet" }));
  byId("main").replaceChildren(...cards, ...tables);
}

function show(text) {
  if (text === shown) return;
  shown = text;
  redraw();
}
const redraw = () => { if (shown) draw(JSON.parse(shown)); };

function pill(id, cls, text) {
  byId(id).className = `pill ${cls}`;
  byId(id).textContent = text;
}

async function ready() {
  try {
    const answer = await fetch("ready");
    const date = Date.parse(answer.headers.get("date"));
    if (Math.abs(date - Date.now()) > 2000) skew = date - Date.now(); // the header counts whole seconds
    const why = (await answer.text()).trim();
    pill("ready", answer.ok ? "good" : "bad", answer.ok ? "ready" : "not ready");
    byId("why").hidden = answer.ok;
    byId("why").textContent = why;
  } catch {
    pill("ready", "bad", "no answer");
  }
}

async function poll() {
  try {
    show(await (await fetch("status")).text());
  } catch { /* the pill says it */ }
}

// The page brings the state of its own moment, so that it never stands there without one; data, which runs nothing.
const first = JSON.parse(byId("first").textContent);
show(JSON.stringify(first.status));
byId("why").hidden = first.why === null;
byId("why").textContent = first.why ?? "";

const events = new EventSource("events");
events.addEventListener("status", (e) => { show(e.data); ready(); });
events.onopen = () => pill("link", "good", "live");
events.onerror = () => {
  pill("link", "soso", "reconnecting");
  // A browser gives up after an answer that is no stream (503: too many viewers); then the status is asked for instead.
  if (events.readyState === EventSource.CLOSED) { pill("link", "soso", "every 5 s"); setInterval(poll, 5000); }
};
byId("filter").addEventListener("input", redraw);
setInterval(() => document.querySelectorAll("time").forEach(age), 1000);
setInterval(ready, 5000);
ready();
