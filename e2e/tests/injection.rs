//! Registrations made of what could inject, through the whole of discover: etcd, haproxy.cfg, HAProxy's sockets, the status,
//! its page, the commands' tables and the logs.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::process::Command;

use agent::admin::client::{AgentArgs, StatusArgs, status};
use e2e::agents::{Discover, binary};
use e2e::scene::{PATIENCE, each_haproxy, workers};
use e2e::{Etcd, Result, free_port, wait};
use serde_json::{Value, json};

/// What ends a line, a word, a text, a comment, a command or a template; "evil" is what must get nowhere.
const PIECES: [&str; 20] = [
    "\n",
    "\r\n",
    "\n\tserver evil 127.0.0.1:1",
    "\nlisten evil\n\tbind :1",
    "; disable server web/good",
    "\n2026-01-01T00:00:00Z  INFO evil",
    "${HOME}",
    "%[env(HOME)]",
    "{{ 7 * 7 }}",
    "{% raw %} evil",
    "<script>evil()</script>",
    "\u{1b}[31m evil",
    "\u{9b}2J",
    "\u{2028}",
    "\0",
    "/../../etc/evil x",
    "'\"\\",
    " # evil",
    "check addr 10.9.9.9",
    " ",
];

/// One of very many registrations, by its number alone: a key and a value in which one field is hostile.
fn registration(n: usize, port: u16) -> (String, Vec<u8>) {
    let words: String = [n % 20, n / 20 % 20, n / 400].iter().map(|piece| PIECES[piece % 20]).collect();
    let hostile = if n.is_multiple_of(3) { words.clone() } else { format!("a{words}") };
    let mut value = json!({"host": "127.0.0.1", "port": 1, "service_port": port, "mode": "http", "status": "up"});
    let field = [
        "host",
        "name",
        "mode",
        "status",
        "labels",
        "routes",
        "haproxy_server_options",
        "transport",
        "weight",
        "key",
        "service",
    ][n % 11];
    let mut key = format!("/backends/web/x{n}");
    match field {
        "labels" => value[field] = json!({ hostile.as_str(): hostile }),
        "routes" => value[field] = json!([{"host": hostile, "path": format!("/{hostile}")}]),
        "key" => key.push_str(&hostile),
        "service" => key = format!("/backends/{hostile}/x{n}"),
        _ => value[field] = Value::from(hostile),
    }
    (key, value.to_string().into_bytes())
}

/// The lines of a haproxy.cfg without servers and its checksum.
fn structure(text: &str) -> Vec<&str> {
    text.lines().filter(|line| !line.trim_start().starts_with("server ") && !line.starts_with('#')).collect()
}

#[test]
fn nothing_that_a_registration_says_gets_out_of_its_place() -> Result<()> {
    each_haproxy(async |lab, haproxy| {
        let etcd = Etcd::start();
        let mut client = etcd.operator().await;
        let port = free_port();
        let good = json!({"host": "127.0.0.1", "port": 9, "service_port": port, "mode": "http"}).to_string();
        client.put("/backends/web/good", good.clone(), None).await.unwrap();
        let options = Discover::new("discover", haproxy).args(&["--log-format", "text"]);
        let discover = options.start(lab, &etcd).await?;
        let file = options.dir(lab)?.join("haproxy.cfg");
        let config = || fs::read_to_string(&file).unwrap();
        let (before, pids) = (config(), workers(lab).await?);
        for n in 0..600 {
            let (key, value) = registration(n, port);
            client.put(key, value, None).await.unwrap();
        }
        // The good one that comes after all shows that they have been looked at.
        client.put("/backends/web/later", good.replace(":9,", ":8,"), None).await.unwrap();
        wait::until_true("the last one in haproxy.cfg", PATIENCE, async || config().contains("127.0.0.1:8 ")).await?;

        let after = config();
        assert_eq!(structure(&after), structure(&before), "the same lines but for servers");
        for line in after.lines().filter(|line| line.trim_start().starts_with("server ")) {
            let plain = |c: char| c == ' ' || (c.is_ascii_graphic() && !";#\"'\\${}<>%[]".contains(c));
            assert!(line.trim_start().chars().all(plain), "{line:?}");
            assert!(!line.contains("evil") && !line.contains("10.9.9.9"), "{line:?}");
        }
        let checked = Command::new(&haproxy.path).args(["-c", "-f"]).arg(&file).output().unwrap();
        assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
        assert_eq!(workers(lab).await?, pids, "no reload");
        assert!(discover.metric("discover_quarantined").await? > 200.0);

        // What people see: tables without control characters, events that begin as events do.
        let steers = |text: &str| text.chars().find(|c| c.is_control() && *c != '\n');
        let mut table = Vec::new();
        let agent = AgentArgs { admin: Some(format!("http://{}", discover.address())), ..AgentArgs::default() };
        let args = StatusArgs { agent, ..StatusArgs::default() };
        status(&args, discover.address(), "discover", &mut table).await.unwrap();
        let table = String::from_utf8(table).unwrap();
        assert!(table.contains("quarantined") && steers(&table).is_none(), "{:?}", steers(&table));
        let endpoint = etcd.endpoint().authority();
        for program in ["discover", "register"] {
            let listed = Command::new(binary(program)?).args(["ls", "--etcd-host", &endpoint]).output().unwrap();
            let text = String::from_utf8(listed.stdout).unwrap();
            assert!(
                listed.status.success() && text.contains("web") && steers(&text).is_none(),
                "{program} ls: {text:?}"
            );
        }
        let log = discover.log();
        assert!(log.contains("Registration left out."), "{log}");
        for line in log.lines() {
            let begins = line.starts_with("20") && line.get(10..11) == Some("T") && !line.starts_with("2026-01-01");
            assert!(begins || line.starts_with("    | "), "an event that is none: {line:?}");
            assert!(steers(line).is_none(), "{line:?}");
        }
        Ok(())
    })
}

/// What is shown in the page is text: it has no way to become anything else.
#[test]
fn the_page_puts_in_text_alone() {
    let scripts = [
        include_str!("../../common/agent/src/admin/page.js"),
        include_str!("../../discover/src/status/page.js"),
        include_str!("../../register/src/page.js"),
    ];
    for way in [
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "Function(",
        "setAttribute(\"on",
        "srcdoc",
        "javascript:",
    ] {
        assert!(scripts.iter().all(|script| !script.contains(way)), "{way}");
    }
    let page = include_str!("../../common/agent/src/admin/page.html");
    assert!(!page.contains(" on") && !page.contains("javascript:"), "no handlers beside the script");
}
