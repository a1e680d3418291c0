// discover's page: what is wrong, the services, the edge, sources, reloads, changes. Loaded after page.js of the admin server.
"use strict";
(() => {
  const STATES = ["up", "down", "draining", "maint", "held"];
  const HINTS = {
    gone: "went", registered: "came", server_down: "HAProxy: down", server_up: "HAProxy: up", server_draining: "HAProxy: draining", server_maint: "HAProxy: maint",
    out_of_service: "out of service", in_service: "in service again", hold_ended: "hold ended", reload_failed: "reload failed", left_out: "left out", taken_in: "taken in",
  };
  let points = {}; // of each service, as /traffic has them
  let before = null; // the status before, for what has changed
  let noted = -1;
  let stats = null; // HAProxy's stats page
  const sum = (service, n) => (points[service] ?? []).reduce((all, point) => all + point[n], 0);
  const stateOf = (row) => (row.all > 0 && !row.up && !row.draining ? "bad" : row.down || row.maint || row.held || row.note ? "soso" : "");
  const rank = (row) => ({ bad: 2, soso: 1 })[stateOf(row)] ?? 0;
  const short = (list, n) => list.slice(0, n).join(", ") + (list.length > n ? `, … ${list.length - n} more` : "");
  const whatCls = (what) => (/down|gone|out|failed|held/.test(what) ? "soso" : /up|registered|in_service|taken/.test(what) ? "good" : "");

  function places(row) {
    const ports = row.ports?.length ? row.ports.map((p) => `:${p}`) : [];
    return short([...ports, ...(row.hosts ?? [])], 3) || "–";
  }

  function picture(row) {
    const all = points[row.service];
    if (!all) return make("span", "dim", "–");
    const says = `${spaced(sum(row.service, 0))} requests and ${spaced(sum(row.service, 1))} errors in 15 minutes`;
    return spark(all.map((p) => p[0]), all.map((p) => p[1]), says);
  }

  const services = grid({
    id: "services", title: "Services", key: (r) => r.service, level: stateOf, sort: { key: "state", down: true },
    columns: [
      { key: "service", title: "service", width: "22%" },
      { key: "state", title: "backends", width: "15rem", value: (r) => rank(r) * 1e6 + (r.down + r.maint) * 100 + r.all / 1e5, show: (r) => bar(Object.fromEntries(STATES.map((s) => [s, r[s] ?? 0]))) },
      { key: "places", title: "port and places", cls: "less", width: "12rem", value: (r) => r.ports?.[0] ?? 1e6, show: places },
      { key: "traffic", title: "15 minutes", cls: "least", width: "9rem", value: (r) => sum(r.service, 0), show: picture },
      { key: "sessions", title: "sessions", cls: "number less wide", width: "5.5rem", show: (r) => (r.sessions === null ? "–" : spaced(r.sessions)) },
      { key: "requests", title: "requests", cls: "number less", width: "6.5rem", show: (r) => (r.requests === null ? "–" : spaced(r.requests)) },
      { key: "errors", title: "errors, 5xx", cls: "number least", width: "6rem", value: (r) => (r.errors ?? 0) + (r.responses_5xx ?? 0), show: (r) => (r.errors === null ? "–" : spaced(r.errors + r.responses_5xx)) },
      { key: "note", title: "note", cls: "less", show: (r) => r.note ?? "" },
    ],
    inner: service,
  });
  services.stamp = (r) => sum(r.service, 0) + (points[r.service]?.length ?? 0);

  // A service unfolded: its backends and its last changes.
  async function service(row) {
    const name = encodeURIComponent(row.service);
    const [seen, past] = await Promise.all([get(`backends/${name}`), get(`history?service=${name}&most=200`)]);
    if (!seen) return make("p", "dim", "The service has gone.");
    const came = {};
    (past?.changes ?? []).forEach((c) => { if (c.what === "registered") came[c.backend] ??= c.at_unix_ms; });
    const backends = seen.backends.map((b) => ({
      state: word(b.state), "container or name": b.name ?? b.id, address: b.mode === "http" ? link(`http://${b.address}/`, b.address) : b.address, node: nodes[b.address.replace(/:\d+$/, "")] ?? "–",
      age: came[b.id] ? moment(came[b.id]) : make("span", "dim", "–"),
      "HAProxy says": b.says ? `${b.says}${b.since_ms !== null ? ` for ${duration(b.since_ms)}` : ""}` : "–",
      "last check": [b.check, b.check_said].filter(Boolean).join(": ") || "–",
      sessions: b.sessions, requests: b.requests, errors: b.errors, weight: b.weight,
    }));
    const links = make("p", "line", stats ? link(`${stats}#${row.service}`, "HAProxy's stats") : null, stats ? " · " : null, link(`services/${name}`, "JSON"),
      row.ports?.length ? ` · ports ${row.ports.join(", ")}` : "", row.hosts?.length ? ` · ${row.hosts.join(", ")}` : "");
    const lines = (past?.changes ?? []).slice(0, 12);
    return make("div", "", row.note ? make("p", "line", row.note) : null, links, backends.length ? table(backends) : make("p", "dim", "No backend."),
      lines.length ? make("div", "", make("b", "", "Last changes"), table(lines.map(change))) : null);
  }

  const change = (c) => ({ when: moment(c.at_unix_ms), what: what(c), backend: c.name ?? c.backend ?? "", address: c.address ?? "", reason: c.reason ?? "", why: c.why ?? "", took: c.took_ms === undefined ? "" : duration(c.took_ms) });
  function what(c) {
    const cls = whatCls(c.what);
    return make("span", cls ? `pill ${cls}` : "pill", HINTS[c.what] ?? c.what.replaceAll("_", " "));
  }

  const routes = grid({
    id: "routes", title: "Edge", key: (r) => `${r.host}${r.path}${r.tls}`, first: 200, none: "no rule",
    columns: [
      { key: "host", width: "26%" }, { key: "path", width: "14%" },
      { key: "tls", title: "TLS", cls: "least", width: "8rem", show: (r) => r.tls || "–" },
      { key: "service", show: (r) => [r.service, ...r.with].join(", ") },
      { key: "containers", title: "from", cls: "less", value: (r) => r.containers[0] ?? "", show: (r) => (r.containers.length ? r.containers.join(", ") + (r.more ? `, … ${r.more} more` : "") : r.by) },
    ],
  });
  routes.section.hidden = true;

  const timeline = grid({
    id: "timeline", title: "Timeline", key: (c) => c.key, first: 12, none: "no change yet",
    columns: [
      { key: "at_unix_ms", title: "when", width: "10.5rem", show: (c) => moment(c.at_unix_ms) },
      { key: "what", width: "9.5rem", show: what },
      { key: "service", width: "18%", show: (c) => c.service ?? "" },
      { key: "backend", cls: "less", width: "18%", show: (c) => [c.name ?? c.backend, c.address].filter(Boolean).join(" at ") },
      { key: "reason", title: "reason", cls: "least", show: (c) => [c.reason, c.why].filter(Boolean).join(": ") },
      { key: "took_ms", title: "took", cls: "number less", width: "5.5rem", value: (c) => c.took_ms ?? -1, show: (c) => (c.took_ms === undefined ? "" : duration(c.took_ms)) },
    ],
  });

  const some = (all, n, each) => [...all.slice(0, n).map(each), ...(all.length > n ? [{ level: "note", what: `… and ${all.length - n} more like these`, why: "" }] : [])];
  const reasonOf = (b) => `${b.name ?? b.id} at ${b.address}: ${[b.says, b.check, b.check_said].filter(Boolean).join(", ") || (b.registered !== "up" ? `registered as ${b.registered}` : "HAProxy has no such server")}${b.since_ms !== null ? `, for ${duration(b.since_ms)}` : ""}`;

  function wrong(status) {
    const all = [], haproxy = status.haproxy ?? {}, edge = haproxy.edge ?? {};
    const add = (level, text, why, command, docs) => all.push({ level, what: text, why, command, docs });
    if (haproxy.error) add("wrong", "HAProxy does not run what is desired", haproxy.error, "discover diff", "operations.md: Symptoms: HAProxy and reloads");
    else if (status.last_turn?.error) add("wrong", "The last turn failed", status.last_turn.error, "discover status", "operations.md: Symptoms: HAProxy and reloads");
    for (const s of status.sources.filter((s) => s.standing !== "synced")) {
      const since = s.stale_for_ms ? ` for ${duration(s.stale_for_ms)}` : "";
      add("wrong", `Source ${s.source} is ${s.standing}${since}`, `${s.error ?? "it has not answered yet"}. The last state stays.`, "discover ls", "operations.md: Symptoms: registrations");
    }
    const rows = status.services, dead = rows.filter((r) => stateOf(r) === "bad");
    const why = (r) => [r.note, (r.wrong ?? []).map(reasonOf).join("; ")].filter(Boolean).join(" · ");
    all.push(...some(dead, 8, (r) => ({ level: "wrong", what: `${r.service}: none of ${many(r.all, "backend")} is up`, why: why(r), command: `discover history ${r.service}`, docs: "operations.md: Clients get 503" })));
    const partly = rows.filter((r) => stateOf(r) !== "bad" && (r.down || r.maint));
    all.push(...some(partly, 8, (r) => ({ level: "soso", what: `${r.service}: ${r.down + r.maint} of ${r.all} down`, why: why(r), command: `discover history ${r.service}`, docs: "" })));
    all.push(...some(Object.entries(status.held_services ?? {}), 5, ([name, n]) => ({ level: "soso", what: `${name}: ${many(n, "backend")} held`, why: "their registrations ran out together; the guard keeps them under HAProxy's checks", command: `discover release ${name}`, docs: "operations.md: The guard" })));
    all.push(...some(rows.filter((r) => r.note && stateOf(r) !== "bad" && !r.down && !r.maint), 8, (r) => ({ level: "soso", what: r.service, why: r.note, command: `discover ls ${r.service}`, docs: "operations.md: A service is missing in HAProxy" })));
    const left = [...status.quarantined, ...Object.entries(haproxy.quarantined ?? {}).map(([key, reason]) => ({ key, reason }))];
    all.push(...some(left, 5, (q) => ({ level: "soso", what: `Left out: ${q.key}`, why: q.reason, command: "", docs: "operations.md: Symptoms: services and servers" })));
    all.push(...some(Object.entries(edge.lost ?? {}), 5, ([place, reason]) => ({ level: "soso", what: `Not routed: ${place}`, why: reason, command: "discover check", docs: "operations.md: Symptoms: the edge" })));
    if (edge.taken) add("wrong", "The edge listens nowhere", "another program has its port", "ss -ltnp", "operations.md: Symptoms: the edge");
    if (haproxy.stats_taken) add("soso", "No stats page", "another program has its port", "ss -ltnp", "operations.md: No stats page");
    const certificates = status.certificates?.left_out ?? [];
    all.push(...some(certificates, 5, (c) => ({ level: "soso", what: `Certificate left out: ${c.file}`, why: c.reason, command: "", docs: "operations.md: Symptoms: the edge" })));
    all.push(...some(Object.entries(haproxy.paused ?? {}), 3, ([name, p]) => ({ level: "note", what: `${name} waits`, why: p.reason, command: "", docs: "" })));
    if (haproxy.waiting?.length) add("note", "A reload waits for its time", haproxy.waiting.join(", "));
    const behind = Object.values(haproxy.behind ?? {}).reduce((a, b) => a + b, 0);
    if (behind) add("note", `${many(behind, "change")} of servers to come`, "one turn makes a slice of them");
    if (haproxy.installed && haproxy.installed !== haproxy.version) add("note", "HAProxy's program was replaced", `${haproxy.version} runs, ${haproxy.installed} is installed; the next reload is by the new one`, "", "");
    return all;
  }

  const total = (rows, key) => rows.reduce((all, r) => all + (r[key] ?? 0), 0);
  const nodes = {}; // by address, as the registry's agents say

  function draw(status) {
    const haproxy = status.haproxy ?? {}, rows = status.services;
    stats = status.stats_port ? `http://${location.hostname.includes(":") ? `[${location.hostname}]` : location.hostname}:${status.stats_port}/` : null;
    trouble(wrong(status));
    facts([["services", spaced(rows.length)], ["backends", spaced(total(rows, "all"))], ...STATES.map((s) => (total(rows, s) || s === "up" ? [s, spaced(total(rows, s))] : null)),
      haproxy.version ? ["HAProxy", haproxy.version] : null, haproxy.edge ? ["edge rules", spaced(haproxy.edge.rules)] : null, ["discover", status.version], ["seen by", status.backends_seen_by]]);
    services.set(rows);
    services.refill();
    part("sources", "Sources", status.sources, (rows) => table(rows));
    const reload = (r) => ({ when: moment(r.at_unix_ms), reasons: r.reasons, outcome: word(r.error ? "failed" : "ok"), error: r.error ?? "" });
    const some = (rows) => (rows?.length ? rows : null);
    part("reloads", "Reloads", some(haproxy.reloads), (rows) => table(rows.map(reload)));
    const left = [...status.quarantined, ...Object.entries(haproxy.quarantined ?? {}).map(([key, reason]) => ({ key, reason }))];
    part("left-out", "Left out", some(left), (rows) => table(rows));
    part("certificates", "Certificates", some(status.certificates?.served), (rows) => table(rows));
    part("rest", "Everything else", { "last turn": status.last_turn, ...haproxy, reloads: undefined, quarantined: undefined, edge: haproxy.edge && { ...haproxy.edge, sections: undefined, lost: undefined } }, pairs, true);
    if (status.changes_noted !== noted) past(status.changes_noted);
    if (!before || before !== haproxy.edge?.rules) rules(haproxy.edge);
    before = haproxy.edge?.rules;
    if (stats && !byId("stats")) byId("nav").prepend(Object.assign(link(stats, "HAProxy's stats"), { id: "stats" }));
  }

  let asking = false;
  async function past(count) {
    if (asking) return;
    asking = true;
    try {
      const told = await get("history?most=1000");
      if (told) timeline.set(told.changes.map((c, n) => ({ ...c, key: `${c.at_unix_ms} ${told.changes.length - n} ${c.what} ${c.backend ?? ""}` })));
      noted = count;
    } finally { asking = false; }
  }

  async function rules(edge) {
    routes.section.hidden = !edge;
    if (edge) routes.set((await get("routes"))?.routes ?? []);
  }

  // All hosts, as the registry alone tells them.
  async function fleet() {
    const told = await get("fleet").catch(() => null);
    if (!told?.nodes) return;
    told.nodes.forEach((n) => n.addresses.forEach((address) => { nodes[address] = n.node; }));
    const keys = (title, list, n) => (n ? make("div", "", make("b", "", `${many(n, "registration")} ${title}`), table(list.map((key) => ({ key })))) : null);
    const inside = (told) => make("div", "", told.nodes.length ? table(told.nodes.map((n) => ({ ...n, agent: word(n.agent === "there" ? "up" : "lost") }))) : make("p", "line dim", "No agent is registered."),
      told.discoverers.length ? make("div", "", make("b", "", "Discoverers that announce themselves"), table(told.discoverers)) : null,
      keys("without a port and without a route", told.without_port, told.counts.without_port), keys("whose agent is not there", told.without_agent, told.counts.without_agent));
    part("fleet", "Fleet", { ...told, revision: 0 }, inside, true);
  }

  async function traffic() {
    const told = await get("traffic").catch(() => null);
    if (told) { points = told.services; services.draw(); }
  }

  own = { draw };
  setInterval(traffic, 15000);
  setInterval(fleet, 60000);
  setTimeout(fleet, 1000);
  setTimeout(traffic, 300);
})();
