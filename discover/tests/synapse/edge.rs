use super::*;
use discover::addresses::Network;
use discover::edge::settings::{ConfigRule, Ownership};
use discover::edge::{EdgeSettings, decide};

fn with_edge(edge: Value) -> Result<LoadedConfig, ConfigError> {
    let mut config = config_of(json!({}), json!({}));
    config["edge"] = edge;
    load(&config)
}

#[test]
fn the_edge_is_read_from_its_section() {
    let defaults = with_edge(json!({})).unwrap().config.edge.unwrap();
    assert_eq!(*defaults, EdgeSettings::default());
    assert_eq!((defaults.listen.port.get(), defaults.https_port.get()), (80, 443));
    let edge = with_edge(json!({
        "listen": "127.0.0.1:8080", "https_port": 8443, "sni_port": 9443, "suffixes": "local", "ownership": "host", "spare_sections": 3,
        "hosts": {"shop.example": ["shop", "shop-*"], "*.own.example": "own"},
        "rules": [
            {"host": "Fixed.example", "service": "fixed"},
            {"host": "fixed.example", "service": "db", "sni": true},
            {"host": "*.example", "path": "/api/", "service": "api", "strip_prefix": true, "sticky": true, "redirect_https": true, "priority": 7},
        ],
        "trusted_proxies": ["10.0.0.0/8", "::1"], "access_log": "stdout", "cookie_key": "secret", "certificates": "/etc/certs",
    }));
    let edge = edge.unwrap().config.edge.unwrap();
    assert_eq!((edge.listen.ip, edge.listen.port.get()), ("127.0.0.1".parse().ok(), 8080));
    assert_eq!(edge.certificates.given, [std::path::Path::new("/etc/certs")]);
    assert_eq!(edge.sni_port.map(|port| port.get()), Some(9443));
    assert_eq!((edge.https_port.get(), edge.spare_sections, edge.ownership), (8443, 3, Some(Ownership::Host)));
    assert_eq!(edge.suffixes.iter().map(|s| s.as_str()).collect::<Vec<_>>(), ["local"]);
    assert_eq!(edge.trusted, ["10.0.0.0/8", "::1/128"].map(|n| n.parse::<Network>().unwrap()));
    assert_eq!(
        (edge.access_log.clone().unwrap().to_string(), edge.cookie_key.to_string()),
        ("stdout".into(), "secret".into())
    );
    let allow = |host: &str, service: &str| edge.owners.allow(&host.parse().unwrap(), &service.parse().unwrap());
    assert!(allow("shop.example", "shop-2") && !allow("shop.example", "own") && allow("a.own.example", "own"));
    let shown: Vec<String> =
        edge.rules.iter().map(|ConfigRule { service, way, route }| format!("{service}: {way:?} {route}")).collect();
    assert_eq!(
        shown,
        [
            "fixed: Http fixed.example/",
            "db: Sni fixed.example/",
            "api: Http *.example/api (prefix stripped, priority 7, sticky, redirected to https)",
        ]
    );
    let claims: Vec<_> = discover::edge::claims::of_config(&edge).collect();
    assert_eq!(decide(&claims, &edge, |_| None).rules.len(), 3);
}

#[test]
fn what_is_wrong_with_the_edge_is_told_with_its_key() {
    let wrong = json!({
        "listen": "here", "suffixes": ["a b"], "hosts": {"bad host": "x", "a.example": "b;c"}, "ownership": "mine",
        "rules": [{"host": "a.example"}, {"host": "a", "service": "b", "path": "x"}, {"host": "a", "service": "b"}, {"host": "a", "service": "c"}, {"hots": "a"}, {"host": "a", "service": "b", "sni": true, "path": "/x"}],
        "trusted_proxies": ["10.0.0.0/99"], "access_log": "some where", "cookie_key": "a b", "prot": 80, "sni_port": 80,
    });
    let errors: Vec<String> =
        with_edge(wrong).unwrap_err().0.iter().map(|n| format!("{}: {}", n.path, n.text)).collect();
    for path in [
        "edge.listen",
        "edge.suffixes[0]",
        "edge.hosts.bad host",
        "edge.hosts.a.example[0]",
        "edge.ownership",
        "edge.rules[0].service",
        "edge.rules[1].path",
        "edge.rules[3].path",
        "edge.rules[4].hots",
        "edge.rules[5].path: means nothing with sni",
        "edge.sni_port: is the port of plain HTTP",
        "edge.trusted_proxies[0]",
        "edge.access_log",
        "edge.cookie_key",
        "edge.prot",
    ] {
        assert!(errors.iter().any(|e| e.starts_with(path)), "{path} is not among {errors:#?}");
    }
    let alone = load(&json!({"services": {}, "edge": {}})).unwrap_err().to_string();
    assert!(alone.contains("edge: needs the section haproxy"), "{alone}");
}
