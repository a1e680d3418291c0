// register's page: what is wrong, the containers, what is left out and why, services of a config, changes. Loaded after page.js.
"use strict";
(() => {
  const RANK = { refused: 4, failing: 3, down: 3, waiting: 2, draining: 1, up: 0 };
  const levelOf = (r) => ({ refused: "bad", failing: "bad", down: "bad", waiting: "soso", draining: "soso" })[r.state] ?? "";
  const whatCls = (what) => (/withdrawn|down|away|full|failing|left|gone/.test(what) ? "soso" : /registered|resumed|back|_up/.test(what) ? "good" : "");
  const checked = (r) => (r.checks ?? []).map((c) => Object.values(c).filter((v) => typeof v !== "object").join(" ")).join("; ");
  let noted = -1;
  let asking = false;

  const containers = grid({
    id: "containers", title: "Containers", key: (r) => `${r.container_id} ${r.port ?? ""} ${r.id ?? ""} ${r.service ?? ""}`, level: levelOf, sort: { key: "state", down: true }, none: "none is registered",
    columns: [
      { key: "container", width: "20%" }, { key: "port", cls: "less", width: "6rem", show: (r) => r.port ?? "–" },
      { key: "service", width: "20%", show: (r) => r.service ?? "–" }, { key: "address", cls: "least", width: "12rem", show: (r) => r.address ?? "–" },
      { key: "state", width: "6.5rem", value: (r) => RANK[r.state] ?? 0, show: (r) => word(r.state) }, { key: "cause", title: "reason", cls: "less", width: "10rem" },
      { key: "reason", title: "why", cls: "least" },
    ],
    inner: container,
  });

  async function container(row) {
    const past = row.service ? await get(`history?service=${encodeURIComponent(row.service)}&most=200`) : null;
    const lines = (past?.changes ?? []).filter((c) => !row.id || c.backend === row.id).slice(0, 12);
    return make("div", "", make("p", "line", row.reason), pairs({ container: `${row.container} (${row.container_id})`, id: row.id, address: row.address, checks: checked(row) || null }),
      make("p", "line", make("code", "", `register explain ${row.container}`)),
      lines.length ? make("div", "", make("b", "", "Last changes"), table(lines.map((c) => ({ when: moment(c.at_unix_ms), what: what(c), reason: c.reason ?? "", why: c.why ?? "", took: took(c) })))) : null);
  }

  const took = (c) => (c.took_ms === undefined ? "" : duration(c.took_ms));
  const what = (c) => make("span", whatCls(c.what) ? `pill ${whatCls(c.what)}` : "pill", c.what.replaceAll("_", " "));

  const skipped = grid({
    id: "skipped", title: "Left out", key: (r) => r.cause, sort: { key: "count", down: true }, none: "none",
    columns: [{ key: "cause", title: "reason", width: "14rem" }, { key: "count", title: "containers", cls: "number", width: "6rem" }, { key: "names", title: "such as", show: (r) => short(r.names, 6) }],
    inner: async (r) => table(r.rows.map((row) => ({ container: row.container, id: row.container_id, port: row.port ?? "–", why: row.reason }))),
  });
  const short = (list, n) => list.slice(0, n).join(", ") + (list.length > n ? `, … ${list.length - n} more` : "");

  const services = grid({
    id: "services", title: "Services of the config", key: (r) => r.service, level: (r) => ({ failing: "bad", LeftOut: "bad", "left-out": "bad", waiting: "soso" })[r.state] ?? "", none: "none",
    columns: [{ key: "service", width: "24%" }, { key: "address", cls: "less", width: "14rem" }, { key: "state", width: "7rem", show: (r) => word(r.state) }, { key: "reason", title: "why", cls: "less" }],
    inner: async (r) => make("div", "", make("p", "line", r.refused ?? r.reason), pairs({ checks: checked(r) || null }), r.reporters?.length ? table(r.reporters) : null),
  });

  const timeline = grid({
    id: "timeline", title: "Timeline", key: (c) => c.key, first: 12, none: "no change yet",
    columns: [
      { key: "at_unix_ms", title: "when", width: "10.5rem", show: (c) => moment(c.at_unix_ms) }, { key: "what", width: "9.5rem", show: what },
      { key: "service", width: "18%", show: (c) => c.service ?? "" }, { key: "name", title: "container", cls: "less", width: "18%", show: (c) => c.name ?? "" },
      { key: "reason", cls: "least", show: (c) => [c.reason, c.why].filter(Boolean).join(": ") }, { key: "took_ms", title: "took", cls: "number less", width: "5.5rem", value: (c) => c.took_ms ?? -1, show: took },
    ],
  });

  const some = (all, n, each) => [...all.slice(0, n).map(each), ...(all.length > n ? [{ level: "note", what: `… and ${all.length - n} more like these` }] : [])];

  function wrong(status) {
    const all = [], docker = status.docker ?? {}, registry = status.registry ?? {};
    const add = (level, text, why, command, docs) => all.push({ level, what: text, why, command, docs });
    if (status.docker && docker.state !== "synced") add("wrong", `Docker is ${docker.state}`, docker.error ?? "it has not answered yet", "docker info", "operations.md: First look");
    if (registry.alarm) add("wrong", "The registry is full", registry.error, "etcdctl alarm list", "operations.md: etcd is full");
    else if (registry.error) add("wrong", "The registry does not serve", registry.error, "etcdctl endpoint status", "operations.md: Symptoms: registrations");
    all.push(...some(Object.entries(docker.refused ?? {}), 5, ([id, why]) => ({ level: "soso", what: `Docker does not describe ${id}`, why, command: `docker inspect ${id}` })));
    const rows = status.registrations ?? [];
    const bad = rows.filter((r) => levelOf(r) === "bad");
    all.push(...some(bad, 8, (r) => ({ level: "wrong", what: `${r.container}${r.port ? ` ${r.port}` : ""} is ${r.state}`, why: [r.reason, checked(r)].filter(Boolean).join(" · "), command: `register explain ${r.container}`, docs: "" })));
    const waiting = rows.filter((r) => r.state === "waiting");
    all.push(...some(waiting, 5, (r) => ({ level: "soso", what: `${r.container} waits`, why: r.reason, command: `register explain ${r.container}` })));
    all.push(...some((status.services ?? []).filter((r) => r.state !== "up"), 8, (r) => ({ level: r.state === "waiting" ? "soso" : "wrong", what: `${r.service} is ${r.state}`, why: r.reason, command: "register status" })));
    if (status.config?.refused) add("wrong", "The new config is refused; the former one goes on", status.config.refused, `register check --config ${status.config.file}`);
    const labels = (status.skipped ?? []).filter((r) => ["bad_label", "bad_name", "same_id", "same_address"].includes(r.cause));
    all.push(...some(labels, 5, (r) => ({ level: "soso", what: `${r.container} is left out`, why: r.reason, command: `register explain ${r.container}` })));
    return all;
  }

  function draw(status) {
    trouble(wrong(status));
    const rows = status.registrations ?? [], left = status.skipped ?? [];
    const count = (state) => rows.filter((r) => r.state === state).length;
    facts([status.docker ? ["containers", spaced(status.docker.containers ?? 0)] : null, ["registered", spaced(count("up") + count("draining") + count("down"))], ...["up", "draining", "down", "waiting", "failing", "refused"].map((s) => (count(s) ? [s, spaced(count(s))] : null)),
      status.registry ? ["registry", `${status.registry.at}: ${status.registry.state}`] : null, status.host_ip ? ["address", plain(status.host_ip.address)] : null, ["register", status.version], ["started", moment(status.started_unix_ms)]]);
    containers.section.hidden = !status.docker;
    containers.set(rows);
    skipped.section.hidden = left.length === 0;
    const groups = new Map();
    left.forEach((r) => groups.set(r.cause, [...(groups.get(r.cause) ?? []), r]));
    skipped.set([...groups].map(([cause, all]) => ({ cause, count: new Set(all.map((r) => r.container_id)).size, names: [...new Set(all.map((r) => r.container))], rows: all })));
    services.section.hidden = !status.services;
    services.set(status.services ?? []);
    [containers, skipped, services].forEach((g) => g.refill());
    part("rest", "Everything else", { docker: status.docker, registry: status.registry, "host address": status.host_ip, config: status.config }, pairs, true);
    if (status.changes_noted !== noted) past(status.changes_noted);
  }

  async function past(count) {
    if (asking) return;
    asking = true;
    try {
      const told = await get("history?most=1000");
      if (told) timeline.set(told.changes.map((c, n) => ({ ...c, key: `${c.at_unix_ms} ${told.changes.length - n} ${c.what} ${c.backend ?? ""}` })));
      noted = count;
    } finally { asking = false; }
  }

  own = { draw };
})();
