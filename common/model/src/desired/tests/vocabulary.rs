//! What labels and variables say: ours, Registrator's and those of proxies.

use super::*;
use crate::{Mode, Port};

#[test]
fn names_come_from_where_the_agent_was_told_to_look() {
    let web = || container(0xabc, "acme/web").ports(&["80=0.0.0.0:1"]);
    let from = |text: &str| Settings { service_from: text.parse().unwrap(), ..settings() };
    let project = "com.docker.compose.project=site";
    let compose = web().label("com.docker.compose.service=front").label("app=shop").label(project);
    for (setting, expected) in [
        ("image", "web"),
        ("compose", "front"),
        ("compose-project", "site-front"),
        ("swarm", "web"),
        ("label:app", "shop"),
        ("template:{{ labels.app }}-{{ base_name }}", "shop-web"),
        ("template:{{ labels['com.docker.compose.service'] }}", "front"),
    ] {
        assert_eq!(one(compose.clone(), &from(setting)), [format!("{expected}/abc 10.0.0.5:1")], "{setting}");
    }
    assert_eq!(one(web(), &from("template:{{ labels.app }}")), ["80 bad_name"]);
    assert_eq!(one(web(), &from("compose-project")), ["web/abc 10.0.0.5:1"]);
    for image in ["72daf87a5d7f", "sha256:72daf87a5d7f", &"72daf87a5d7f0123".repeat(4)] {
        let decision = &decide(&map([container(0xabc, image).ports(&["80=0.0.0.0:1"])]), &settings())[0];
        assert!(decision.to_string().contains("the label register.service names the service"), "{decision}");
        let named = container(0xabc, image).ports(&["80=0.0.0.0:1"]).label("register.service=web");
        assert_eq!(one(named, &settings()), ["web/abc 10.0.0.5:1"]);
    }
    assert_eq!(one(compose.clone().label("register.service=own"), &from("compose")), ["own/abc 10.0.0.5:1"]);
    let two = compose.ports(&["80=0.0.0.0:1", "81=0.0.0.0:2"]);
    assert_eq!(
        one(two, &from("template:{{ name }}_{{ port }}")),
        ["c2748_80/abc 10.0.0.5:1", "c2748_81/abc 10.0.0.5:2"],
        "a template that names the port needs no suffix"
    );
    let explicit = Settings { explicit: true, ..settings() };
    assert_eq!(one(web(), &explicit), ["80 not_explicit"]);
    assert_eq!(one(web().env("SERVICE_NAME=x"), &explicit), ["x/abc 10.0.0.5:1"]);
}

#[test]
fn the_hosts_zone_labels_registrations_unless_an_attribute_does() {
    let web = || container(0xabc, "acme/web").ports(&["80=0.0.0.0:1"]);
    let labels = |container: Container, zone: Option<&str>| {
        let settings = Settings { node: Some("h1".into()), zone: zone.map(Into::into), ..settings() };
        let decisions = decide(&map([container]), &settings);
        serde_json::to_string(&decisions[0].candidate().unwrap().backend.labels).unwrap()
    };
    assert_eq!(labels(web(), None), "{}");
    assert_eq!(labels(web(), Some("a")), r#"{"node":"h1","zone":"a"}"#);
    assert_eq!(labels(web().env("SERVICE_ZONE=b"), Some("a")), r#"{"node":"h1","zone":"b"}"#);
}

#[test]
fn registrators_vocabulary_with_its_precedence() {
    let dns = || container(0xabc, "dns").ports(&["53=0.0.0.0:1", "53/udp=0.0.0.0:2"]);
    let names =
        |c: Container| one(c, &settings()).iter().map(|l| l.split('/').next().unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!(names(dns().env("SERVICE_NAME=env").label("SERVICE_NAME=label")), ["label", "label"]);
    assert_eq!(names(dns().env("SERVICE_53_NAME=port").label("SERVICE_NAME=plain")), ["port", "port"]);
    assert_eq!(names(dns().env("SERVICE_53_udp_NAME=u").label("SERVICE_53_NAME=port")), ["port", "u"]);
    assert_eq!(names(dns().label("register.53.udp.service=u").env("SERVICE_53_NAME=t")), ["t", "u"]);
    assert_eq!(names(dns().env("SERVICE_50-60_NAME=range").env("SERVICE_NAME=plain")), ["range", "range"]);
    assert_eq!(names(dns().label("register.service=own").label("SERVICE_NAME=theirs")), ["own", "own"]);
    for (value, theirs, ours) in
        [("true", true, true), ("x", true, true), ("false", true, false), ("0", true, false), ("", false, false)]
    {
        let lines = one(dns().env(&format!("SERVICE_IGNORE={value}")), &settings());
        assert_eq!(lines[0] == "53 ignored", theirs, "{value:?}: Registrator takes any value for yes");
        let lines = one(dns().label(&format!("register.ignore={value}")), &settings());
        assert_eq!(lines[0] == "53 ignored", ours, "{value:?}");
    }
    for (id, tcp, udp) in [
        ("SERVICE_ID=a", "dns/a 10.0.0.5:1", "dns/a:udp 10.0.0.5:2"),
        ("SERVICE_53_ID=a", "dns/a 10.0.0.5:1", "dns/a:udp 10.0.0.5:2"),
        ("SERVICE_53_UDP_ID=a", "dns/abc 10.0.0.5:1", "dns/a 10.0.0.5:2"),
    ] {
        assert_eq!(one(dns().env(id), &settings()), [tcp, udp], "{id}");
    }
    let udp = container(0xabc, "dns").ports(&["53/udp=0.0.0.0:2"]).env("SERVICE_ID=a");
    assert_eq!(one(udp, &settings()), ["dns/a 10.0.0.5:2"]);
    let web = || container(0xabc, "web").ports(&[PUBLISHED]);
    let full = only(
        web()
            .env("SERVICE_REGION=eu")
            .env("SERVICE_80_RACK=r1")
            .env(r"SERVICE_TAGS=a, b\,c,,")
            .env("SERVICE_ID=my-id")
            .env("SERVICE_CHECK_HTTP=/health?x=1")
            .env("SERVICE_80_CHECK_INTERVAL=15s")
            .env("SERVICE_CHECK_TIMEOUT=1s"),
    );
    assert_eq!(serde_json::to_string(&full.backend.labels).unwrap(), r#"{"rack":"r1","region":"eu","tags":"a,b\\,c"}"#);
    assert_eq!((full.backend.id.as_str(), full.backend.mode), ("my-id", Some(Mode::Http)));
    let check = &full.checks[0];
    assert_eq!((check.interval, check.timeout), (Duration::from_secs(15), Duration::from_secs(1)));
    assert!(matches!(&check.kind, CheckKind::Http(http) if http.path == "/health?x=1" && http.tls.is_none()));
    let consul = decide(&map([web().env("SERVICE_CHECK_TTL=5s")]), &settings());
    assert!(consul[0].warnings[0].contains("SERVICE_CHECK_TTL"), "{:?}", consul[0].warnings);
}

#[test]
fn our_own_vocabulary() {
    let web = || container(0xabc, "web").ports(&[PUBLISHED]);
    let full = only(
        web()
            .label("register.80.service-port=8000")
            .label("register.weight=50")
            .label("register.80.check=https,tcp")
            .label("register.80.check.path=/ready")
            .label("register.80.check.status=2xx,404")
            .label("register.check.header.x-probe=1")
            .label("register.rise=3")
            .label("register.fall=4")
            .label("register.vhost=a.example, *.b.example")
            .label("register.path=/api")
            .label("register.strip-prefix=true")
            .label("register.sticky=cookie")
            .label("register.replaces=web-blue")
            .label("register.drain=30s")
            .label("register.warmup=1m"),
    );
    let backend = &full.backend;
    assert_eq!((backend.service_port, backend.weight.map(|w| w.get())), (Port::new(8000), Some(50)));
    assert_eq!(
        backend.routes.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["*.b.example/api (prefix stripped, sticky)", "a.example/api (prefix stripped, sticky)"]
    );
    assert_eq!(
        full.checks.iter().map(|c| (c.kind.as_str(), c.rise, c.fall)).collect::<Vec<_>>(),
        [("https", 3, 4), ("tcp", 3, 4)]
    );
    let CheckKind::Http(http) = &full.checks[0].kind else { panic!() };
    assert_eq!(http.headers, [("x-probe".to_owned(), Secret("1".to_owned()))]);
    assert!(http.status.contains(404) && http.status.contains(204) && !http.status.contains(302));
    assert_eq!((full.drain, full.warmup), (Drain::For(Duration::from_secs(30)), Some(Duration::from_secs(60))));
    assert_eq!(full.replaces.as_deref(), Some("web-blue"));
    assert_eq!(full.dial, Some("172.17.0.2:80".parse().unwrap()));
    assert_eq!(backend.name.as_deref(), Some("c2748"));
    assert_eq!(only(web()).backend.service_port, Port::new(80));
    assert_eq!(only(web()).backend.mode, None);

    let exec = only(web().label(r#"register.check.command=["pg_isready","-q"]"#));
    assert_eq!(exec.checks[0].kind, CheckKind::Exec { command: vec!["pg_isready".into(), "-q".into()] });
    let secret = only(web().label("register.check=redis").label("register.check.password=hunter2"));
    assert!(!format!("{secret:?}{}", serde_json::to_string(&secret).unwrap()).contains("hunter2"));
    let secret = only(web().label("register.check=http").label("register.check.header=Authorization: Bearer hunter2"));
    assert!(!format!("{secret:?}{}", serde_json::to_string(&secret).unwrap()).contains("hunter2"));
}

#[test]
fn a_mistyped_label_is_named_with_what_was_meant() {
    let web = container(0xabc, "web").ports(&[PUBLISHED]).label("register.80.wieght=5").label("register.80.port=1");
    let decision = &decide(&map([web]), &settings())[0];
    assert!(decision.candidate().is_some());
    assert_eq!(
        decision.warnings,
        [
            r#"label register.80.port is not known (did you mean "port"?)"#,
            r#"label register.80.wieght is not known (did you mean "weight"?)"#
        ]
    );
}

#[test]
fn with_internal_what_other_proxies_dial_is_registered() {
    let internal = Settings { internal: true, ..settings() };
    let bare = container(0xabc, "app").env("VIRTUAL_HOST=a.example").env("VIRTUAL_PORT=3000");
    assert_eq!(one(bare, &internal), ["app/abc 172.17.0.2:3000"]);
    // nginx-proxy's rule: VIRTUAL_PORT, else the only port that is exposed, else 80.
    for (ports, routed) in
        [(&[][..], 80), (&["81"], 81), (&["81", "53/udp"], 81), (&["81", "82"], 80), (&["81", "80"], 80)]
    {
        let app = container(0xabc, "app").env("VIRTUAL_HOST=a.example").ports(ports);
        let decisions = decide(&map([app]), &internal);
        let candidates = decisions.iter().filter_map(|decision| decision.candidate());
        let found: Vec<u16> =
            candidates.filter(|c| !c.backend.routes.is_empty()).map(|c| c.backend.port.get()).collect();
        assert_eq!(found, [routed], "{ports:?}");
    }
    let traefik = container(0xabc, "app").label("traefik.http.services.a.loadbalancer.server.port=3001");
    assert_eq!(one(traefik, &internal), ["app/abc 172.17.0.2:3001"]);
    let mut caddy =
        container(0xabc, "app").label("caddy.reverse_proxy={{upstreams 3002}}").label("caddy_ingress_network=b");
    caddy.networks = networks(&[("a", "10.1.0.2", ""), ("b", "10.2.0.2", "")]);
    assert_eq!(one(caddy.clone(), &internal), ["app/abc 10.2.0.2:3002"]);
    caddy.labels.insert("caddy_ingress_network".into(), "c".into());
    assert_eq!(one(caddy, &internal), ["app/abc 10.1.0.2:3002"], "a network that it is not on is named, no more");
}
