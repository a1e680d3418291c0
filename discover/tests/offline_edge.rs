//! `discover render` and `discover check` with an edge.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

fn discover(dir: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_discover"));
    let set = std::env::vars_os().map(|(name, _)| name);
    for name in set.filter(|name| name.to_string_lossy().starts_with("DISCOVER_")) {
        command.env_remove(name);
    }
    command.args(args).current_dir(dir).env("TMPDIR", dir).output().unwrap()
}

const BACKENDS: &str = r#"[
    {"web": [{"id": "w", "host": "10.0.0.1", "port": 80, "routes": [{"host": "a.example", "path": "/x", "sticky": true}]}]},
    {"web": [{"id": "w", "host": "10.0.0.1", "port": 80, "routes": [{"host": "a.example", "path": "/x", "sticky": true}]}],
     "zed": [{"id": "z", "host": "10.0.0.2", "port": 80, "routes": [{"host": "a.example", "path": "/x"}]}],
     "db": [{"id": "d", "host": "10.0.0.3", "port": 5432, "mode": "tcp", "sni": ["db.example"]}]}
]"#;

const SYNAPSE: &str = r#"{
    "services": {"web": {"discovery": {"method": "base"}, "haproxy": {"port": 3000, "server_options": "check"},
        "default_servers": [{"name": "w", "host": "10.0.0.1", "port": 80}]}},
    "haproxy": {"global": ["maxconn 99"], "defaults": ["timeout connect 1s", "timeout client 1s", "timeout server 1s"],
        "config_file_path": "/nowhere/haproxy.cfg", "do_writes": true, "do_reloads": false, "do_socket": false, "bind_address": "127.0.0.1"},
    "edge": {"listen": "127.0.0.1:8080", "rules": [{"host": "fixed.example", "service": "web"}]}
}"#;

#[test]
fn render_shows_the_edge_and_check_has_haproxy_try_it() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::write(at("backends.json"), BACKENDS).unwrap();
    fs::write(at("synapse.json"), SYNAPSE).unwrap();
    fs::write(at("bad.pem"), "rubbish").unwrap();
    let edge = ["--edge", "127.0.0.1:8080", "--edge-sni", "8443", "--spare-sections", "1"];

    let shown = discover(dir.path(), &[&["render", "--backends", "backends.json"][..], &edge].concat());
    let (text, told) = (String::from_utf8(shown.stdout).unwrap(), String::from_utf8(shown.stderr).unwrap());
    assert!(shown.status.success(), "{told}");
    for part in [
        "\nfrontend edge\n\tbind 127.0.0.1:8080\n",
        "\nfrontend edge:sni\n\tbind 127.0.0.1:8443\n",
        "\n# haproxy.cfg.edge.map:\n# Written by discover",
        "\n# a.example/x/ edge:1|s|web\n",
        "\n# sni=db.example/ edge:sni:1|-|db\n",
        "\tserver d 10.0.0.3:5432 ",
    ] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    assert!(told.contains("edge: a.example/x (zed): it is service web's"), "{told}");

    for (n, program) in support::programs().into_iter().enumerate() {
        // It shows what it was asked to try.
        let (seen, wrapper) = (at(&format!("seen-{n}")), at(&format!("haproxy-{n}")));
        let script = "#!/bin/sh\nfor last; do :; done\n[ -f \"$last\" ] && cat \"$last\" > SEEN\nexec PROGRAM \"$@\"\n";
        let program = fs::canonicalize(program).unwrap().display().to_string();
        fs::write(&wrapper, script.replace("SEEN", &seen.display().to_string()).replace("PROGRAM", &program)).unwrap();
        fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).unwrap();
        let wrapper = wrapper.display().to_string();
        let of_flags = [&["check", "--haproxy-bin", &wrapper, "--edge-certs", "bad.pem"][..], &edge].concat();
        let of_config = vec!["check", "--haproxy-bin", &wrapper, "--config", "synapse.json"];
        for (args, warning) in [(of_flags, Some("warning: certificate bad.pem: ")), (of_config, None)] {
            let checked = discover(dir.path(), &args);
            let said =
                format!("{}{}", String::from_utf8_lossy(&checked.stdout), String::from_utf8_lossy(&checked.stderr));
            assert!(checked.status.success() && said.contains("takes the file"), "{args:?}: {said}");
            assert!(warning.is_none_or(|warning| said.contains(warning)), "{said}");
            let tried = fs::read_to_string(&seen).unwrap();
            assert!(tried.contains("frontend edge\n\tbind 127.0.0.1:8080\n"), "{tried}");
            fs::remove_file(&seen).unwrap();
        }
    }
    let left = fs::read_dir(dir.path()).unwrap().flatten().filter(|e| e.path().is_dir()).count();
    assert_eq!(left, 0, "nothing is left behind");
    let of_config = discover(dir.path(), &["render", "--config", "synapse.json", "--backends", "backends.json"]);
    let text = String::from_utf8(of_config.stdout).unwrap();
    assert!(text.contains("\n# fixed.example/ edge:1|-|web\n") && text.contains("\nfrontend edge\n"), "{text}");
}
