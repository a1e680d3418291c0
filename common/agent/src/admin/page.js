// What every agent's page is made of. The agent's own script (own.js) sets `own`; without one each part of the status is a table of its
// own (see admin/mod.rs). Text goes in through textContent only: names come from strangers.
"use strict";
const ROW = 30; // pixels, as --row in page.css
const BEYOND = 400; // pixels above and below the window in which rows are there
const MAX_ROWS = 500; // of a plain table
const GOOD = ["up", "ok", "ready", "synced", "healthy", "live", "leader", "running", "connected", "passing", "registered", "published", "adopted", "granted"];
const SOSO = ["draining", "pending", "stale", "held", "starting", "unknown", "damped", "maint", "drain", "flapping", "reconnecting", "waiting"];
const BAD = ["down", "failed", "failing", "error", "unhealthy", "quarantined", "refused", "lost", "disconnected", "rejected", "expired"];
const UNITS = /_(unix_ms|ms|bytes)$/;
const NAMES = /(port|id|number|revision)$/; // numbers that are names, not quantities
let skew = 0; // the server's clock minus ours, ms
let shown = ""; // the last status drawn, as text
let own = null; // the agent's part: { draw(status) }
const byId = (id) => document.getElementById(id);
const isObject = (v) => v !== null && typeof v === "object" && !Array.isArray(v);
const isRows = (v) => Array.isArray(v) && v.length > 0 && v.every(isObject);
const collator = new Intl.Collator("en", { numeric: true });
const label = (key) => key.replace(UNITS, "").replaceAll("_", " ").replace("haproxy", "HAProxy");
const spaced = (n) => n.toLocaleString("en").replaceAll(",", "\u202f");
const many = (n, word) => `${spaced(n)} ${word}${n === 1 ? "" : "s"}`;

function make(tag, cls, ...children) {
  const e = document.createElement(tag);
  if (cls) e.className = cls;
  e.append(...children.filter((c) => c !== null && c !== undefined)); // strings become text nodes
  return e;
}

function link(href, text) {
  const a = make("a", "", text);
  a.href = href;
  return a;
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

const now = () => Date.now() + skew;

function age(time) {
  const ms = now() - Number(time.dataset.at);
  time.textContent = ms < -1000 ? `in ${duration(-ms)}` : ms < 1000 ? "now" : `${duration(Math.floor(ms / 1000) * 1000)} ago`;
}

// A moment: its age, which grows by itself.
function moment(unixMs) {
  const time = make("time");
  time.dataset.at = unixMs;
  time.dateTime = new Date(unixMs).toISOString();
  time.title = new Date(unixMs).toLocaleString();
  age(time);
  return time;
}

function plain(value) {
  if (value === null || value === undefined || value === "") return "–";
  if (Array.isArray(value)) return value.map(plain).join(", ") || "none";
  if (isObject(value)) return Object.entries(value).map(([k, v]) => `${k}=${plain(v)}`).join(", ") || "none";
  if (typeof value === "boolean") return value ? "yes" : "no";
  return String(value);
}

function word(text) {
  const low = typeof text === "string" ? text.toLowerCase() : "";
  const cls = GOOD.includes(low) ? "good" : SOSO.includes(low) ? "soso" : BAD.includes(low) ? "bad" : "";
  return cls ? make("span", `pill ${cls}`, text) : text;
}

function cell(key, value) {
  if (isRows(value)) return table(value);
  if (typeof value === "number") {
    if (key.endsWith("_unix_ms")) return moment(value);
    if (key.endsWith("_ms")) return duration(value);
    if (key.endsWith("_bytes")) return size(value);
    return NAMES.test(key) ? String(value) : spaced(value);
  }
  if (isObject(value) && Object.keys(value).length) return pairs(value);
  const text = plain(value);
  return text === "–" ? make("span", "dim", text) : word(text);
}

const isNumber = (key, rows) => !UNITS.test(key) && !NAMES.test(key) && rows.some((r) => typeof r[key] === "number")
  && rows.every((r) => r[key] === undefined || r[key] === null || typeof r[key] === "number");

// A table of rows as they are; `keys` chooses columns.
function table(rows, keys = [...new Set(rows.flatMap(Object.keys))]) {
  const numbers = new Set(keys.filter((k) => isNumber(k, rows)));
  const number = (k) => (numbers.has(k) ? "number" : "");
  const head = make("thead", "", make("tr", "", ...keys.map((k) => Object.assign(make("th", number(k), label(k)), { scope: "col" }))));
  const body = make("tbody", "", ...rows.slice(0, MAX_ROWS).map((row) =>
    make("tr", "", ...keys.map((k) => make("td", number(k), row[k] instanceof Node ? row[k] : cell(k, row[k]))))));
  const rest = rows.length > MAX_ROWS ? make("caption", "dim", `The first ${MAX_ROWS} of ${rows.length} rows.`) : null;
  return make("table", "", rest, head, body);
}

function pairs(object) {
  const rows = Object.entries(object).map(([k, v]) => make("tr", "", Object.assign(make("th", "", label(k)), { scope: "row" }), make("td", "", cell(k, v))));
  return make("table", "kv", make("tbody", "", ...rows));
}

// A small picture of numbers over time, with a word of it for those who do not see it.
function spark(points, errors, says) {
  const of = (tag, values) => {
    const e = document.createElementNS("http://www.w3.org/2000/svg", tag);
    Object.entries(values).forEach(([k, v]) => e.setAttribute(k, v));
    return e;
  };
  const svg = of("svg", { class: "spark", viewBox: `0 0 ${Math.max(points.length - 1, 1)} 20`, preserveAspectRatio: "none", role: "img", "aria-label": says });
  const most = Math.max(1, ...points, ...errors);
  errors.forEach((n, at) => { if (n) { const h = Math.max(3, (18 * n) / most); svg.append(of("rect", { x: at - 0.4, y: 20 - h, width: 0.8, height: h })); } });
  svg.append(of("polyline", { points: points.map((n, at) => `${at},${19 - (17 * n) / most}`).join(" ") }));
  const title = of("title", {});
  title.textContent = says;
  svg.prepend(title);
  return svg;
}

// A bar of how many are in which state, and the same in words.
function bar(counts) {
  const some = Object.entries(counts).filter(([state, n]) => n > 0 && state !== "held");
  const strip = make("span", "bar", ...some.map(([state, n]) => { const i = make("i", `b-${state}`); i.style.flexGrow = n; return i; }));
  strip.setAttribute("aria-hidden", "true");
  const words = Object.entries(counts).filter(([state, n]) => n > 0 || state === "up").map(([state, n]) => `${spaced(n)} ${state}`);
  return make("span", "", strip, words.join(" · "));
}

// A table of any length: sorted, filtered, folded; only rows in or near the window are in the document.
// columns: [{ key, title, value(row) to sort by, show(row) → text or element, width, cls }]; the first one folds where there is `inner(row)`.
class Grid {
  constructor({ id, title, columns, key, inner, level, sort, first, none }) {
    Object.assign(this, { id, columns, key, inner, level, first: first ?? Infinity, none: none ?? "none", sort: sort ?? null });
    this.rows = []; this.view = []; this.at = new Map(); this.open = new Map(); this.tall = new Map(); this.texts = new WeakMap();
    this.count = make("span", "count");
    this.body = make("tbody");
    this.gaps = ["", ""].map(() => { const tr = make("tr", "gap", make("td")); tr.setAttribute("aria-hidden", "true"); tr.firstChild.colSpan = columns.length; return tr; });
    this.heads = columns.map((c) => {
      const button = make("button", "", c.title ?? label(c.key));
      button.type = "button";
      button.addEventListener("click", () => this.turn(c));
      const th = make("th", c.cls ?? "", c.fixed ? c.title ?? "" : button);
      th.scope = "col";
      if (c.width) th.style.width = c.width;
      return th;
    });
    this.table = make("table", "grid", make("thead", "", make("tr", "", ...this.heads)), this.body);
    this.table.setAttribute("aria-label", title);
    this.more = make("button", "more");
    this.more.addEventListener("click", () => { this.first = Infinity; this.draw(); });
    this.section = make("section", "", make("div", "head", make("h2", "", title), this.count), make("div", "", this.table), this.more);
    this.section.id = id;
    addEventListener("scroll", () => this.soon(), { passive: true });
    addEventListener("resize", () => this.soon());
    this.arrow();
  }

  set(rows) { this.rows = rows; this.draw(); }

  turn(column) {
    this.sort = { key: column.key, down: this.sort?.key === column.key ? !this.sort.down : column.cls?.startsWith("number") };
    this.arrow();
    this.draw();
  }

  arrow() {
    this.columns.forEach((c, n) => {
      if (this.sort?.key === c.key) this.heads[n].setAttribute("aria-sort", this.sort.down ? "descending" : "ascending");
      else this.heads[n].removeAttribute("aria-sort");
    });
  }

  text(row) {
    if (!this.texts.has(row)) this.texts.set(row, JSON.stringify(row).toLowerCase());
    return this.texts.get(row);
  }

  draw() {
    const wanted = byId("filter").value.trim().toLowerCase().split(/\s+/).filter(Boolean);
    this.view = wanted.length ? this.rows.filter((r) => wanted.every((w) => this.text(r).includes(w))) : [...this.rows];
    const by = this.sort && this.columns.find((c) => c.key === this.sort.key);
    if (by) {
      const value = by.value ?? ((r) => r[by.key] ?? "");
      const order = (a, b) => { const [x, y] = [value(a), value(b)]; return typeof x === "number" && typeof y === "number" ? x - y : collator.compare(x, y); };
      this.view.sort(this.sort.down ? (a, b) => order(b, a) : order);
    }
    const hits = this.view.length;
    this.count.textContent = hits < this.rows.length ? `${spaced(hits)} of ${spaced(this.rows.length)}` : hits ? spaced(hits) : this.none;
    this.table.hidden = hits === 0;
    this.more.hidden = hits <= this.first;
    this.more.textContent = `Show all ${spaced(hits)}`;
    this.view.length = Math.min(hits, this.first);
    this.table.setAttribute("aria-rowcount", this.view.length + 1);
    this.window();
  }

  soon() {
    if (this.asked) return;
    this.asked = true;
    requestAnimationFrame(() => { this.asked = false; this.window(); });
  }

  height(row) { return ROW + 1 + (this.open.has(this.key(row)) ? this.tall.get(this.key(row)) ?? 200 : 0); }

  // Puts the rows into the document that can be seen.
  window() {
    const top = -this.body.getBoundingClientRect().top - BEYOND, bottom = top + innerHeight + 2 * BEYOND;
    let [from, above, to] = [0, 0, 0];
    const last = Math.max(0, this.view.length - 30); // the window may be below a table that has just become short
    while (from < last && above + this.height(this.view[from]) < top) above += this.height(this.view[from++]);
    let end = above;
    for (to = from; to < this.view.length && end < bottom; to += 1) end += this.height(this.view[to]);
    let below = 0;
    for (let n = to; n < this.view.length; n += 1) below += this.height(this.view[n]);
    this.gaps[0].firstChild.style.height = `${above}px`;
    this.gaps[1].firstChild.style.height = `${below}px`;
    this.gaps[0].hidden = above === 0;
    this.gaps[1].hidden = below === 0;
    const wanted = [this.gaps[0]], there = new Map();
    // The row that has the focus stays, however far away it is.
    const held = document.activeElement?.closest?.(".row"), holder = this.body.contains(held) ? this.view.findIndex((r) => this.at.get(this.key(r))?.tr === held) : -1;
    const rows = [...Array(to - from).keys()].map((n) => n + from);
    if (holder >= 0 && holder < from) rows.unshift(holder);
    if (holder >= to) rows.push(holder);
    for (const n of rows) {
      const key = this.key(this.view[n]), was = this.at.get(key);
      const line = this.line(was, this.view[n], key);
      line.tr.setAttribute("aria-rowindex", n + 2);
      there.set(key, line);
      wanted.push(line.tr);
      if (this.open.has(key)) wanted.push(this.open.get(key));
    }
    wanted.push(this.gaps[1]);
    this.at = there;
    const keep = new Set(wanted);
    [...this.body.children].forEach((e) => { if (!keep.has(e)) e.remove(); });
    wanted.forEach((e, n) => { if (this.body.children[n] !== e) this.body.insertBefore(e, this.body.children[n] ?? null); });
    this.open.forEach((e, key) => { if (e.isConnected) this.tall.set(key, e.offsetHeight); });
  }

  // The row's element; what is the same as before stays, and so does the focus on its button.
  line(was, row, key) {
    const text = this.text(row) + (this.stamp?.(row) ?? "");
    if (was?.text === text) return was;
    const line = was ?? { tr: make("tr"), button: this.inner ? this.folder(key) : null };
    line.text = text;
    line.tr.className = `row ${this.level?.(row) ?? ""}`;
    this.columns.forEach((c, n) => {
      let td = line.tr.children[n];
      if (!td) line.tr.append(td = make("td", c.cls ?? ""));
      const content = c.show ? c.show(row) : cell(c.key, row[c.key]);
      if (n === 0 && line.button) {
        line.button.textContent = plain(content);
        if (!line.button.isConnected) td.append(line.button);
      } else td.replaceChildren(content ?? "");
      td.title = td.textContent.length > 12 && !td.querySelector("svg, time") ? td.textContent : "";
    });
    return line;
  }

  folder(key) {
    const button = make("button", "fold");
    button.type = "button";
    button.setAttribute("aria-expanded", this.open.has(key));
    button.addEventListener("click", () => { this.fold(key); button.setAttribute("aria-expanded", this.open.has(key)); });
    return button;
  }

  fold(key) {
    if (this.open.delete(key)) return this.window();
    const td = make("td", "", "…");
    td.colSpan = this.columns.length;
    this.open.set(key, make("tr", "inner", td));
    this.window();
    this.fill(key);
  }

  // Asks again for what is unfolded.
  async fill(key) {
    const row = this.rows.find((r) => this.key(r) === key), tr = this.open.get(key);
    if (!tr) return;
    if (!row) return this.fold(key);
    const content = await this.inner(row);
    if (!content || content.textContent === tr.dataset.text) return;
    tr.dataset.text = content.textContent;
    tr.firstChild.replaceChildren(content);
    this.window();
  }

  refill() { [...this.open.keys()].forEach((key) => this.fill(key)); }
}

// A part of the page that is a table or two, folded or not. It is built again where its data is another one; without data it is hidden.
function part(id, title, data, build, folded) {
  let e = byId(id);
  const text = JSON.stringify(data ?? null);
  if (e?.text === text) return;
  if (!e) {
    const inside = make("div");
    e = folded ? make("section", "", make("details", "", make("summary", "", title), inside)) : make("section", "", make("div", "head", make("h2", "", title)), inside);
    e.id = id;
    e.inside = inside;
    byId("parts").append(e);
  }
  e.text = text;
  e.hidden = text === "null";
  if (!e.hidden) e.inside.replaceChildren(build(data));
}

const grids = [];
function grid(about) {
  const made = new Grid(about);
  grids.push(made);
  byId("parts").append(made.section);
  return made;
}

// What is wrong, the worst first: [{ level: "wrong" | "soso" | "note", what, why, command, docs }].
let told = "";
function trouble(all) {
  const rank = { wrong: 0, soso: 1, note: 2 };
  all.sort((a, b) => rank[a.level] - rank[b.level]);
  const text = JSON.stringify(all);
  if (text === told) return;
  told = text;
  const bad = all.filter((t) => t.level !== "note"), wrong = bad.length;
  // Said aloud only when something else is wrong than before, not at each second of a duration.
  const aloud = wrong ? `${many(wrong, "thing")} wrong: ${bad.map((t) => t.what.replace(/ for .*$/, "")).join("; ")}` : "";
  if (byId("said").textContent !== aloud) byId("said").textContent = aloud;
  byId("trouble").hidden = all.length === 0;
  const li = (t) => make("li", t.level, make("b", "", t.level === "wrong" ? "✖ " : t.level === "soso" ? "▲ " : "• ", t.what), make("span", "why", t.why ?? ""),
    t.command ? make("code", "", t.command) : null, t.docs ? make("span", "dim", t.docs) : null);
  byId("trouble").replaceChildren(make("div", "head", make("h2", "", wrong ? "What is wrong" : "To know"), make("span", "count", `${all.length}`)),
    make("ul", "", ...all.map(li)));
  document.title = document.title.replace(/^(\(\d+\) )?/, wrong ? `(${wrong}) ` : "");
}

function facts(all) {
  byId("facts").replaceChildren(...all.filter(Boolean).map(([name, value]) => make("span", "", `${name} `, make("b", "", value))));
}

function generic(status) {
  const rest = {};
  for (const [key, value] of Object.entries(status)) {
    if (isRows(value)) part(`part-${key}`, label(key), value, (rows) => table(rows));
    else if (isObject(value) && Object.keys(value).length) part(`part-${key}`, label(key), value, pairs);
    else rest[key] = value;
  }
  part("part-rest", "overview", rest, pairs);
}

function show(text) {
  if (text === shown) return;
  shown = text;
  const status = JSON.parse(text);
  if (own) own.draw(status); else generic(status);
}

async function get(path) {
  const answer = await fetch(path);
  return answer.ok ? answer.json() : null;
}

function pill(id, cls, text) {
  byId(id).className = `pill ${cls}`;
  byId(id).textContent = text;
}

async function ready() {
  try {
    const answer = await fetch("ready");
    const date = Date.parse(answer.headers.get("date"));
    if (Math.abs(date - Date.now()) > 2000) skew = date - Date.now(); // the header counts whole seconds
    const said = (await answer.text()).trim();
    pill("ready", answer.ok ? "good" : "bad", answer.ok ? "ready" : "not ready");
    because(answer.ok ? "" : reason(said));
  } catch {
    pill("ready", "bad", "no answer");
  }
}

// Why it is not ready, unless that is among what is wrong already.
function because(why) {
  const line = byId("why"), text = byId("trouble").hidden || !own ? why : "";
  line.hidden = text === "";
  if (line.textContent !== text) line.textContent = text;
}

function reason(said) {
  try { return JSON.parse(said).detail ?? said; } catch { return said; }
}

async function poll() {
  try {
    show(await (await fetch("status?page")).text());
  } catch { /* the pill says it */ }
}

// Begins once the agent's own script has been read. The page brings the state of its own moment, so that it never stands there without one.
addEventListener("DOMContentLoaded", () => {
  const first = JSON.parse(byId("first").textContent);
  show(JSON.stringify(first.status));
  because(first.why ?? "");
  const events = new EventSource("events?page");
  events.addEventListener("status", (e) => { show(e.data); ready(); });
  events.onopen = () => pill("link", "good", "live");
  events.onerror = () => {
    pill("link", "soso", "reconnecting");
    // A browser gives up after an answer that is no stream (503: too many viewers); then the status is asked for instead.
    if (events.readyState === EventSource.CLOSED) { pill("link", "soso", "every 5 s"); setInterval(poll, 5000); }
  };
  byId("filter").addEventListener("input", () => grids.forEach((g) => g.draw()));
  addEventListener("keydown", (e) => {
    if (e.key === "/" && !(e.target instanceof HTMLInputElement)) { e.preventDefault(); byId("filter").focus(); }
    if (e.key === "Escape" && e.target === byId("filter")) { e.target.value = ""; grids.forEach((g) => g.draw()); }
  });
  setInterval(() => document.querySelectorAll("time").forEach(age), 1000);
  setInterval(ready, 5000);
  ready();
});
