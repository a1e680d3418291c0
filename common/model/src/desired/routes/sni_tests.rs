//! Names under which TLS is passed through, and the protocol behind the edge: who can ask for them, and in whose words.

use super::tests::{assert_refused, decisions};
use crate::Mode;

#[test]
fn who_speaks_http2_says_so_and_has_mode_http() {
    let options = |text: &str| {
        let decision = decisions(&[50051], text).remove(0);
        let backend = decision.candidate().unwrap().backend.clone();
        (backend.haproxy_server_options.clone(), backend.mode, decision.to_string())
    };
    let h2 = Some("proto h2".into());
    let (words, mode, explained) = options("register.50051.proto=h2");
    assert_eq!((words, mode), (h2.clone(), Some(Mode::Http)));
    assert!(explained.contains("protocol: HTTP/2, label register.50051.proto"), "{explained}");
    assert_eq!(options("register.proto=H2\nregister.vhost=a.example").0, h2);
    let scheme = "traefik.http.services.s.loadbalancer.server.scheme=h2c";
    let traefik = format!("traefik.http.routers.r.rule=Host(`a.example`)\n{scheme}");
    assert_eq!(options(&traefik).0, h2);
    for without in [
        format!("{traefik}\nregister.proto=h1"),
        format!("{scheme}\nregister.vhost=a.example"),
        "register.vhost=a.example".to_owned(),
    ] {
        assert_eq!(options(&without).0, None, "{without}");
    }
    for tcp in ["register.mode=tcp", "register.sni=a.example"] {
        let (words, mode, explained) = options(&format!("register.proto=h2\n{tcp}"));
        assert_eq!((words, mode), (None, Some(Mode::Tcp)));
        assert!(explained.contains("label register.proto is not used: HTTP/2 is for mode http"), "{explained}");
    }
    assert!(decisions(&[80], "register.proto=spdy")[0].to_string().contains("h1 or h2"));
}

/// `PORT NAME` for each name, and the warnings.
fn names(ports: &[u16], text: &str) -> (Vec<String>, Vec<String>) {
    let decisions = decisions(ports, text);
    let mut names = Vec::new();
    for decision in &decisions {
        let port = decision.port.map_or(0, |(port, _)| port.get());
        let backend = &decision.candidate().unwrap_or_else(|| panic!("its fault is no reason: {decision}")).backend;
        assert_eq!(backend.mode == Some(Mode::Tcp), !backend.sni.is_empty());
        names.extend(backend.sni.iter().map(|name| format!("{port} {name}")));
    }
    (names, decisions.into_iter().flat_map(|d| d.warnings).collect())
}

#[test]
fn our_own_label_names_what_tls_is_passed_through_by() {
    let two = "register.5432.sni=DB.example., *.db.example\nregister.80.vhost=a.example";
    assert_eq!(names(&[80, 5432], two), (vec!["5432 *.db.example".into(), "5432 db.example".into()], vec![]));
    let (found, warnings) = names(&[8443], "register.sni=a.example, a b, 10.0.0.1");
    assert_eq!(found, ["8443 a.example"]);
    assert!(warnings[0].contains("host \"a b\" is not") && warnings[1].contains("is an address"), "{warnings:?}");
    assert_refused(&[81, 82], "register.sni=a.example", "name it (register.<port>.sni)");
    let text = decisions(&[443], "register.443.sni=a.example\nregister.443.check=https")[0].to_string();
    assert!(text.contains("\n    mode: tcp, as TLS is passed through to it\n"), "{text}");
    assert!(text.contains("\n    TLS passed through: a.example, by label register.443.sni\n"), "{text}");
}

#[test]
fn one_port_speaks_either_http_or_tls_of_its_own() {
    for said in ["register.80.vhost=b.example", "register.80.mode=http"] {
        let decision = &decisions(&[80], &format!("register.80.sni=a.example\n{said}"))[0];
        let backend = &decision.candidate().unwrap().backend;
        assert!(backend.mode == Some(Mode::Http) && backend.sni.is_empty(), "{decision}");
        assert_eq!(decision.warnings, ["route left out: TLS of a.example is left out: the mode is http"]);
        assert!(!decision.to_string().contains("TLS passed through"), "{decision}");
    }
    let both = "register.80.sni=a.example\nregister.80.vhost=b.example\nregister.80.mode=tcp";
    assert_eq!(names(&[80], both).0, ["80 a.example"]);
}

const ROUTER: &str = "traefik.tcp.routers.db.rule=HostSNI(`a.example`, `b.example`) || HostSNI(`c.example`)
    traefik.tcp.routers.db.entrypoints=postgres
    traefik.tcp.routers.db.tls.passthrough=true";

#[test]
fn traefiks_tcp_routers_pass_tls_through() {
    let all = ["a", "b", "c"].map(|name| format!("5432 {name}.example")).to_vec();
    assert_eq!(names(&[5432], ROUTER), (all.clone(), vec![]));
    let service = "traefik.tcp.routers.db.service=pg\ntraefik.tcp.services.pg.loadbalancer.server.port=5432
        traefik.tcp.services.pg.loadbalancer.terminationdelay=100
        traefik.http.routers.web.rule=Host(`a.example`)\ntraefik.http.services.web.loadbalancer.server.port=80";
    assert_eq!(names(&[80, 5432], &format!("{ROUTER}\n{service}")), (all, vec![]));
    assert_eq!(names(&[5432], &format!("{ROUTER}\ntraefik.enable=false")).0, [""; 0]);
    let (found, warnings) = names(&[5432], &format!("{ROUTER}\nregister.sni=mine.example"));
    assert_eq!(found, ["5432 mine.example"]);
    assert!(warnings.iter().all(|w| w.contains("register's own labels count")) && !warnings.is_empty(), "{warnings:?}");
}

#[test]
fn what_of_traefiks_tcp_would_be_something_else_here_is_refused() {
    let rule = "traefik.tcp.routers.a.rule=HostSNI(`a.example`)";
    let through = "traefik.tcp.routers.a.tls.passthrough=true";
    for (text, words) in [
        (rule.to_owned(), "only TLS that is passed through can be imported"),
        (format!("{rule}\ntraefik.tcp.routers.a.tls=true"), "only TLS that is passed through can be imported"),
        (format!("{rule}\ntraefik.tcp.routers.a.tls.passthrough=maybe"), "tls.passthrough cannot be imported"),
        (through.to_owned(), "a router without a rule"),
        (format!("{through}\ntraefik.tcp.routers.a.rule=HostSNI(`*`)"), "the wildcard \"*\""),
        (format!("{through}\ntraefik.tcp.routers.a.rule=Host(`a.example`)"), "Host(…) cannot be imported, HostSNI can"),
        (
            format!("{through}\ntraefik.tcp.routers.a.rule=HostSNI(`a.example`) && ClientIP(`10.0.0.0/8`)"),
            "ClientIP(…)",
        ),
        (format!("{through}\ntraefik.tcp.routers.a.rule=HostSNI(`10.0.0.1`)"), "is an address"),
        (format!("{rule}\n{through}\ntraefik.tcp.routers.a.middlewares=allow"), "middlewares cannot"),
        (
            format!("{rule}\n{through}\ntraefik.tcp.services.a.loadbalancer.proxyprotocol.version=2"),
            "cannot be imported",
        ),
        (format!("{rule}\n{through}\ntraefik.tcp.services.a.loadbalancer.server.port=81"), "port 81 is not registered"),
        (format!("{rule}\n{through}\ntraefik.tcp.routers.a.service=b"), "service \"b\" is not this container's"),
    ] {
        assert_refused(&[80], &text, words);
        assert_eq!(names(&[80], &text).0, [""; 0], "{text}");
    }
    let (found, warnings) = names(&[80], &format!("{rule}\n{through}\ntraefik.tcp.routers.a.priority=7"));
    assert_eq!(found, ["80 a.example"]);
    assert!(warnings[0].contains("traefik.tcp.routers.a.priority: is not imported"), "{warnings:?}");
}
