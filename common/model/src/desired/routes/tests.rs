//! What each vocabulary becomes, and what is refused.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::rule::{self, Kind};
use crate::desired::{Binding, Container, ContainerMap, ContainerPort, Decision, Network, Settings, State, decide};
use crate::{Mode, Port, Transport};

/// A running container with these ports published, whose labels and (with `$` in front) variables are the lines of `text`.
pub(super) fn container(ports: &[u16], text: &str) -> Container {
    let line = |line: &str| {
        let (key, value) = line.trim().split_once('=').unwrap();
        (key.to_owned(), value.to_owned())
    };
    let lines = || text.lines().map(str::trim).filter(|line| !line.is_empty());
    let port = |number: &u16| {
        let port = Port::new(*number).unwrap();
        let published = vec![Binding { ip: Some(Ipv4Addr::UNSPECIFIED.into()), port }];
        ContainerPort { port, transport: Transport::Tcp, published }
    };
    let variables = lines().filter_map(|l| l.strip_prefix('$')).map(|l| l.split_once('=').unwrap_or((l, "")));
    let variables = variables.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let network = Network { ipv4: Some(Ipv4Addr::new(172, 17, 0, 2)), ipv6: None };
    Container {
        id: "b".repeat(64).parse().unwrap(),
        name: "app".into(),
        image: "app".into(),
        labels: lines().filter(|l| !l.starts_with('$')).map(line).collect(),
        env: variables.collect(),
        state: State::Running,
        health: None,
        network_mode: "bridge".into(),
        networks: [("bridge".to_owned(), network)].into(),
        ports: ports.iter().map(port).collect(),
        stop_signal: 15,
        stop_timeout: Duration::from_secs(10),
        started_at: "2026-01-01T00:00:00Z".into(),
        pid: Some(1),
    }
}

pub(super) fn decisions(ports: &[u16], text: &str) -> Vec<Decision> {
    let container = container(ports, text);
    let all: ContainerMap = [(container.id.clone(), Arc::new(container))].into();
    decide(&all, &Settings { host_ip: Some([10, 0, 0, 5].into()), ..Settings::default() })
}

/// `PORT ROUTE` for each route, and the warnings.
pub(super) fn routes(ports: &[u16], text: &str) -> (Vec<String>, Vec<String>) {
    let decisions = decisions(ports, text);
    let mut routes = Vec::new();
    for decision in &decisions {
        let port = decision.port.map_or(0, |(port, _)| port.get());
        let candidate = decision.candidate().unwrap_or_else(|| panic!("a route's fault is no reason: {decision}"));
        routes.extend(candidate.backend.routes.iter().map(|route| format!("{port} {route}")));
        assert_eq!(candidate.backend.mode == Some(Mode::Http), !candidate.backend.routes.is_empty());
    }
    (routes, decisions.into_iter().flat_map(|d| d.warnings).collect())
}

#[track_caller]
fn assert_routes(ports: &[u16], text: &str, expected: &[&str]) {
    let (routes, warnings) = routes(ports, text);
    assert_eq!(routes, expected, "{warnings:?}");
    assert_eq!(warnings, [""; 0]);
}

/// No route, but a backend all the same, and a warning with these words.
#[track_caller]
pub(super) fn assert_refused(ports: &[u16], text: &str, words: &str) {
    let (routes, warnings) = routes(ports, text);
    assert_eq!(routes, [""; 0]);
    assert!(warnings.iter().any(|warning| warning.contains(words)), "{warnings:?}");
}

#[test]
fn our_own_labels_make_routes() {
    assert_routes(&[80], "register.vhost=A.example., *.b.example", &["80 *.b.example/", "80 a.example/"]);
    let two = "register.80.vhost=a.example\nregister.9000.vhost=b.example\nregister.9000.path=/x\nregister.priority=3";
    assert_routes(&[80, 9000], two, &["80 a.example/ (priority 3)", "9000 b.example/x (priority 3)"]);
    assert_routes(&[80, 9000], "register.vhost=a.example", &["80 a.example/"]);
    let all =
        "register.80.vhost=a.example\nregister.80.path=/v1/\nregister.80.strip-prefix=/v1\nregister.80.priority=-5
        register.80.sticky=true\nregister.80.redirect-https=yes";
    assert_routes(&[80], all, &["80 a.example/v1 (prefix stripped, priority -5, sticky, redirected to https)"]);
    assert_routes(&[80], "register.vhost=a.example\nregister.strip-prefix=true", &["80 a.example/"]);
}

#[test]
fn a_route_that_cannot_be_is_left_out_alone_with_its_reason() {
    let (found, warnings) = routes(&[80], "register.80.vhost=a.example, a b,~^www\\.,c.example:80,d.example");
    assert_eq!(found, ["80 a.example/", "80 d.example/"]);
    assert_eq!(warnings.len(), 3, "{warnings:?}");
    assert!(warnings[0].starts_with("route left out: label register.80.vhost: host \"a b\" is not"), "{warnings:?}");
    for (bad, words) in [
        ("register.80.path=x", "path \"x\" is not"),
        ("register.80.path=/../etc", "path \"/../etc\" is not"),
        ("register.80.priority=high", "register.80.priority=\"high\" is not a whole number"),
        ("register.80.sticky=source", "register.80.sticky=\"source\" is not true, false or cookie"),
        ("register.80.strip-prefix=/other", "its path is /, and the label register.strip-prefix says /other"),
        ("register.80.strip-prefix=other", "register.80.strip-prefix=\"other\" is not"),
        ("register.80.redirect-https=maybe", "register.80.redirect-https=\"maybe\" is not"),
    ] {
        assert_refused(&[80], &format!("register.80.vhost=a.example\n{bad}"), words);
    }
    assert_refused(&[81, 82], "register.vhost=a.example", "name it (register.<port>.vhost)");
    let tcp = &decisions(&[80], "register.80.vhost=a.example\nregister.80.mode=tcp")[0];
    assert!(tcp.candidate().unwrap().backend.routes.is_empty());
    assert_eq!(tcp.warnings, ["route left out: a.example/ is left out: the mode tcp was asked for"]);
}

#[test]
fn explain_shows_the_routes_and_why_others_are_none() {
    let text = decisions(&[80], "register.80.vhost=a.example,b b\nregister.80.path=/x")[0].to_string();
    assert!(text.contains("\n    mode: http, as it has routes\n"), "{text}");
    assert!(text.contains("\n    route: a.example/x, by label register.80.vhost\n"), "{text}");
    assert!(text.contains("\n    warning: route left out: label register.80.vhost: host \"b b\" is not"), "{text}");
}

#[test]
fn nginx_proxys_variables_make_routes() {
    assert_routes(&[80, 90], "$VIRTUAL_HOST=a.example,*.b.example", &["80 *.b.example/", "80 a.example/"]);
    assert_routes(&[80, 90], "$VIRTUAL_HOST=a.example\n$VIRTUAL_PORT=90", &["90 a.example/"]);
    assert_routes(&[3000], "VIRTUAL_HOST=a.example\n$VIRTUAL_PROTO=http", &["3000 a.example/"]);
    let path = "$VIRTUAL_HOST=a.example\n$VIRTUAL_PATH=/api/";
    assert_routes(&[80], path, &["80 a.example/api"]);
    assert_routes(&[80], &format!("{path}\n$VIRTUAL_DEST=/"), &["80 a.example/api (prefix stripped)"]);
    for (text, words) in [
        ("$VIRTUAL_HOST=a.example\n$VIRTUAL_PORT=91", "VIRTUAL_HOST: port 91 is not registered"),
        ("$VIRTUAL_HOST=a.example\n$VIRTUAL_PORT=x", "VIRTUAL_HOST: VIRTUAL_PORT is not a port"),
        ("$VIRTUAL_HOST=~^www\\.", "is a regular expression"),
        ("$VIRTUAL_HOST=a.example:8080", "without a port"),
        ("$VIRTUAL_HOST=www.example.*", "is not a host name"),
        ("$VIRTUAL_HOST=a.example\n$VIRTUAL_PATH=~ ^/x", "VIRTUAL_PATH: path"),
        ("$VIRTUAL_HOST=a.example\n$VIRTUAL_PATH=/x\n$VIRTUAL_DEST=/y", "can be stripped, but not replaced"),
        ("$VIRTUAL_HOST=a.example\n$VIRTUAL_PROTO=https", "the edge speaks http to backends"),
        ("$VIRTUAL_HOST_MULTIPORTS={}", "VIRTUAL_HOST_MULTIPORTS: is not imported"),
    ] {
        assert_refused(&[80, 90], text, words);
    }
}

#[test]
fn traefiks_labels_make_routes() {
    let router = "traefik.http.routers.web.rule=Host(`a.example`)";
    assert_routes(&[8080], &format!("traefik.enable=true\n{router}"), &["8080 a.example/"]);
    assert_routes(&[80, 81], router, &["80 a.example/"]);
    let full = "traefik.enable=true
        traefik.docker.network=front
        traefik.http.routers.web.rule=Host(`a.example`, `b.example`) && PathPrefix(`/api`)
        traefik.http.routers.web.entrypoints=websecure
        traefik.http.routers.web.tls=true
        traefik.http.routers.web.tls.certresolver=le
        traefik.http.routers.web.priority=7
        traefik.http.routers.web.service=Api
        traefik.http.routers.web.middlewares=strip@docker, gzip
        traefik.http.middlewares.strip.stripprefix.prefixes=/other, /api
        traefik.http.middlewares.gzip.compress=true
        traefik.http.services.api.loadbalancer.server.port=9000
        traefik.http.services.api.loadbalancer.sticky.cookie=true
        traefik.http.services.api.loadbalancer.sticky.cookie.name=sid
        traefik.http.services.other.loadbalancer.server.port=80";
    let expected = ["a", "b"].map(|host| format!("9000 {host}.example/api (prefix stripped, priority 7, sticky)"));
    assert_routes(&[80, 9000], full, &expected.each_ref().map(String::as_str));
    let pair = "traefik.http.routers.a.rule=Host(`a.example`)
        traefik.http.routers.a.entrypoints=web
        traefik.http.routers.a.middlewares=https
        traefik.http.middlewares.https.redirectscheme.scheme=https
        traefik.http.middlewares.https.redirectscheme.permanent=true
        traefik.http.routers.b.rule=Host(`a.example`)
        traefik.http.routers.b.entrypoints=websecure
        traefik.http.routers.b.tls=true";
    assert_routes(&[80], pair, &["80 a.example/ (redirected to https)"]);
    assert_routes(&[80], &format!("traefik.enable=false\n{router}"), &[]);
}

#[test]
fn what_of_traefiks_has_no_route_is_refused_never_guessed() {
    let rule = "traefik.http.routers.a.rule=Host(`a.example`)";
    let with = |rest: &str| format!("{rule}\n{}", rest.replace("R.", "traefik.http.routers.a.").replace("; ", "\n"));
    for (text, words) in [
        ("traefik.http.routers.a.rule=PathPrefix(`/x`)".to_owned(), "no Host"),
        ("traefik.http.routers.a.rule=Host(`a.example`) && Path(`/x`)".to_owned(), "Path(…) cannot be imported"),
        ("traefik.http.routers.a.rule=HostRegexp(`.*`)".to_owned(), "HostRegexp(…) cannot be imported"),
        ("traefik.http.routers.a.rule=!Host(`a.example`)".to_owned(), "! cannot be imported"),
        ("traefik.http.routers.a.rule=Host(`*.a.example`)".to_owned(), "the wildcard"),
        ("traefik.http.routers.a.rule=Host(`a.example`".to_owned(), "\")\" is missing"),
        ("traefik.http.routers.a.tls=true".to_owned(), "a router without a rule"),
        ("traefik.udp.routers.a.entrypoints=x".to_owned(), "traefik.udp.routers.a.entrypoints: is not imported"),
        (with("R.service=api@internal"), "\"api@internal\" is not this container's"),
        (with("R.service=other"), "service \"other\" is not this container's"),
        (with("R.middlewares=auth@file"), "\"auth@file\" is not this container's"),
        (with("R.middlewares=auth"), "middleware \"auth\" is not this container's"),
        (with("R.middlewares=m; traefik.http.middlewares.m.basicauth.users=a:b"), "basicauth.users cannot be imported"),
        (with("R.middlewares=m; traefik.http.middlewares.m.redirectscheme.scheme=http"), "cannot be imported"),
        (with("R.middlewares=m; traefik.http.middlewares.m.stripprefix.prefixes=/x"), "stripping /x from a.example/"),
        (with("R.priority=high"), "priority cannot be imported"),
        (with("traefik.http.services.s.loadbalancer.server.port=81"), "port 81 is not registered"),
        (with("traefik.http.services.s.loadbalancer.server.port=x"), "is not a port"),
        (with("traefik.http.services.s.loadbalancer.server.scheme=https"), "cannot be imported"),
        (
            with("traefik.http.services.s.weighted.services=x; traefik.http.services.t.weighted.services=y"),
            "several services",
        ),
    ] {
        assert_refused(&[80], &text, words);
    }
    let (found, warnings) =
        routes(&[80], "traefik.http.routers.a.rule=Host(`a.example`) || HostRegexp(`x`)\ntraefik.http.routers.a.foo=1");
    assert_eq!(found, ["80 a.example/"]);
    assert_eq!(warnings.len(), 2, "{warnings:?}");
}

#[test]
fn caddys_labels_make_routes_where_they_are_plain() {
    let caddy = "caddy=a.example, https://b.example\ncaddy.reverse_proxy={{upstreams}}\ncaddy.tls=internal";
    assert_routes(&[80], caddy, &["80 a.example/", "80 b.example/"]);
    let two = "caddy_0=a.example\ncaddy_0.reverse_proxy={{upstreams http 81}}\ncaddy_1=b.example\ncaddy_1.reverse_proxy={{ upstreams }}";
    assert_routes(&[80, 81], two, &["80 b.example/", "81 a.example/"]);
    for (text, words) in [
        ("caddy=a.example", "no reverse_proxy"),
        ("caddy=a.example/x\ncaddy.reverse_proxy={{upstreams}}", "is not a host name"),
        ("caddy=a.example\ncaddy.reverse_proxy=/a* {{upstreams}}", "a path before it that ends in /*"),
        ("caddy=a.example\ncaddy.reverse_proxy={{upstreams 80 81}}", "reverse_proxy is invalid"),
        ("caddy=a.example\ncaddy.reverse_proxy={{upstreams https 80}}", "https"),
        ("caddy=a.example\ncaddy.reverse_proxy={{upstreams 82}}", "its port is not registered"),
        (
            "caddy=a.example\ncaddy.reverse_proxy={{upstreams}}\ncaddy.basic_auth=x",
            "label caddy.basic_auth cannot be imported",
        ),
    ] {
        assert_refused(&[80, 81], text, words);
    }
    assert_routes(&[80], "caddyfile=x\ncaddy.x=y", &[]);
    let paths = "caddy=a.example\ncaddy.reverse_proxy=/a/* {{upstreams}}\ncaddy_1=b.example\ncaddy_1.reverse_proxy=* {{upstreams 81}}";
    assert_routes(&[80, 81], paths, &["80 a.example/a", "81 b.example/"]);
    // Without a port Caddy dials 80, whatever else there is.
    assert_refused(&[5000], "caddy=a.example\ncaddy.reverse_proxy={{upstreams}}", "its port is not registered");
}

#[test]
fn caddys_h2c_is_http_2_to_the_container() {
    for (upstreams, h2) in [("h2c 80", true), ("h2c", true), ("http 80", false), ("80", false)] {
        let text = format!("caddy=a.example\ncaddy.reverse_proxy={{{{upstreams {upstreams}}}}}");
        let decisions = decisions(&[80], &text);
        let explained: String = decisions.iter().map(ToString::to_string).collect();
        assert_eq!(decisions[0].candidate().unwrap().backend.haproxy_server_options.is_some(), h2, "{explained}");
    }
}

#[test]
fn for_each_port_the_first_vocabulary_counts_and_the_others_are_named() {
    let traefik = "traefik.http.routers.a.rule=Host(`t.example`)\n$VIRTUAL_HOST=v.example";
    let (found, warnings) = routes(&[80], traefik);
    assert_eq!(found, ["80 t.example/"]);
    assert_eq!(warnings, ["route left out: VIRTUAL_HOST is not used: Traefik's labels count"]);
    let (found, warnings) = routes(&[80], &format!("{traefik}\nregister.vhost=r.example"));
    assert_eq!((found, warnings.len()), (vec!["80 r.example/".to_owned()], 2));
    let (found, _) = routes(&[80, 81], &format!("{traefik}\nregister.81.vhost=r.example\ntraefik.enable=false"));
    assert_eq!(found, ["80 v.example/", "81 r.example/"]);
}

fn alternatives(rule: &str) -> Vec<String> {
    let text = |host: Option<String>, path: Option<String>| {
        format!("{}{}", host.unwrap_or_default(), path.unwrap_or_default())
    };
    let term = |term: rule::Term| text(term.host.map(|h| h.to_string()), term.path.map(|p| p.to_string()));
    rule::parse(rule, Kind::Requests)
        .unwrap()
        .into_iter()
        .map(|t| t.map_or_else(|why| format!("({why})"), term))
        .collect()
}

#[test]
fn a_rule_is_a_list_of_hosts_and_paths() {
    for (rule, expected) in [
        ("Host(`a.x`)", "a.x"),
        (" host ( \"a.x\" ) ", "a.x"),
        ("Host(`a.x`) || Host(`b.x`) && PathPrefix(`/p`)", "a.x b.x/p"),
        ("(Host(`a.x`) || Host(`b.x`)) && PathPrefix(`/p`)", "a.x/p b.x/p"),
        ("PathPrefix(`/p`,`/q`)&&Host(`a.x`,`b.x`)", "a.x/p b.x/p a.x/q b.x/q"),
        ("Host(`a.x`) && (PathPrefix(`/p`) && PathPrefix(`/p/q`))", "a.x/p/q"),
        ("Host(`a.x`) && Host(`A.x.`)", "a.x"),
        ("Host(`a.x`) && Host(`b.x`)", "(no request has both hosts, a.x and b.x)"),
        ("Host(`a.x`) && PathPrefix(`/p`) && PathPrefix(`/q`)", "(no request has both paths, /p and /q)"),
        ("Host(`a.x`) || Method(`GET`)", "a.x (Method(…) cannot be imported, Host and PathPrefix can)"),
        ("Host(`a.x`) && !PathPrefix(`/p`)", "(! cannot be imported)"),
    ] {
        assert_eq!(alternatives(rule).join(" "), expected, "{rule}");
    }
    let deep = format!("{}Host(`a`){}", "(".repeat(20), ")".repeat(20));
    let wide = vec!["Host(`a`)"; 65].join("||");
    let product = ["Host(`a`,`b`,`c`,`d`)"; 4].join("&&");
    let long = format!("Host(`{}`)", "a".repeat(5000));
    for bad in [
        "",
        "Host",
        "Host()",
        "Host(a)",
        "Host('a')",
        "Host(`a`",
        "Host(`a)",
        "Host(`a`) Host(`b`)",
        "Host(`a`) &&",
        "|| Host(`a`)",
        "(Host(`a`)",
        "Host(`a`))",
        "Host(\"a\\\"b\")",
        "Host(`a`) & Host(`b`)",
        "é(`a`)",
        &deep,
        &wide,
        &product,
        &long,
    ] {
        assert!(rule::parse(bad, Kind::Requests).is_err(), "{bad}");
    }
}

/// A rule's tree, to compare the parser with.
#[derive(Debug, Clone)]
enum Tree {
    Host(u8),
    Path(u8),
    And(Box<Tree>, Box<Tree>),
    Or(Box<Tree>, Box<Tree>),
}

const PATHS: [&str; 3] = ["/p", "/p/q", "/r"];

impl Tree {
    fn text(&self) -> String {
        match self {
            Self::Host(n) => format!("Host(`h{n}.x`)"),
            Self::Path(n) => format!("PathPrefix(`{}`)", PATHS[usize::from(*n)]),
            Self::And(a, b) => format!("({}) && ({})", a.text(), b.text()),
            Self::Or(a, b) => format!("{} || {}", a.text(), b.text()),
        }
    }
    fn fits(&self, host: u8, path: &str) -> bool {
        match self {
            Self::Host(n) => *n == host,
            Self::Path(n) => PATHS[usize::from(*n)].parse::<crate::PathPrefix>().unwrap().covers(path),
            Self::And(a, b) => a.fits(host, path) && b.fits(host, path),
            Self::Or(a, b) => a.fits(host, path) || b.fits(host, path),
        }
    }
}

fn any_tree() -> impl Strategy<Value = Tree> {
    let leaf = prop_oneof![(0u8..3).prop_map(Tree::Host), (0u8..3).prop_map(Tree::Path)];
    leaf.prop_recursive(3, 12, 2, |inner| {
        let pair = (inner.clone(), inner);
        prop_oneof![
            pair.clone().prop_map(|(a, b)| Tree::And(Box::new(a), Box::new(b))),
            pair.prop_map(|(a, b)| Tree::Or(Box::new(a), Box::new(b))),
        ]
    })
}

proptest! {
    #[test]
    fn a_rules_alternatives_cover_what_the_rule_does(tree in any_tree()) {
        let Ok(terms) = rule::parse(&tree.text(), Kind::Requests) else { return Ok(()) };
        for host in 0u8..3 {
            for path in ["/", "/p", "/p/q/s", "/r"] {
                let name = format!("h{host}.x");
                let covers = |t: &rule::Term| {
                    t.host.as_ref().is_none_or(|h| h.covers(&name)) && t.path.as_ref().is_none_or(|p| p.covers(path))
                };
                prop_assert_eq!(terms.iter().flatten().any(covers), tree.fits(host, path), "{} {}", name, path);
            }
        }
    }

    #[test]
    fn no_text_panics_the_rule_parser(text in "\\PC{0,40}|[Host(`a.x)&|! PrefixPath\"/]{0,60}") {
        let _ = rule::parse(&text, Kind::Requests);
        let _ = rule::parse(&text, Kind::Connections);
    }
}

#[test]
fn a_port_that_nobody_registers_has_no_routes() {
    assert!(super::Asked::default().at(Port::new(80).unwrap()).routes.is_empty());
}
