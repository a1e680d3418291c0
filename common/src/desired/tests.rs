//! The tables of naming, addressing and vocabulary, and what rubbish must not do.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::model::{Mode, Port, Status, Transport};

/// A running container on the default bridge, built up word by word.
fn container(number: u32, image: &str) -> Container {
    Container {
        id: format!("{:0<64}", format!("{number:x}")).parse().unwrap(),
        name: format!("c{number}"),
        image: image.to_owned(),
        labels: BTreeMap::new(),
        env: BTreeMap::new(),
        state: State::Running,
        health: None,
        network_mode: "bridge".to_owned(),
        networks: networks(&[("bridge", "172.17.0.2", "")]),
        ports: Vec::new(),
        stop_signal: 15,
        stop_timeout: Duration::from_secs(10),
        started_at: format!("2026-01-01T00:00:{number:02}Z"),
        pid: Some(1),
    }
}

fn networks(of: &[(&str, &str, &str)]) -> BTreeMap<String, Network> {
    let network = |v4: &str, v6: &str| Network { ipv4: v4.parse().ok(), ipv6: v6.parse().ok() };
    of.iter().map(|(name, v4, v6)| ((*name).to_owned(), network(v4, v6))).collect()
}

/// `80`, `80/udp`, `80=0.0.0.0:8080`, `80=0.0.0.0:8080,:::8080`.
fn port(text: &str) -> ContainerPort {
    let (inside, outside) = text.split_once('=').unwrap_or((text, ""));
    let (number, transport) = inside.split_once('/').unwrap_or((inside, "tcp"));
    let binding = |text: &str| {
        let (ip, port) = text.rsplit_once(':').unwrap();
        Binding { ip: ip.parse().ok(), port: port.parse().unwrap() }
    };
    ContainerPort {
        port: number.parse().unwrap(),
        transport: transport.parse().unwrap(),
        published: outside.split(',').filter(|t| !t.is_empty()).map(binding).collect(),
    }
}

impl Container {
    fn ports(mut self, ports: &[&str]) -> Self {
        self.ports = ports.iter().map(|text| port(text)).collect();
        self
    }
    fn label(mut self, text: &str) -> Self {
        let (key, value) = text.split_once('=').unwrap();
        self.labels.insert(key.to_owned(), value.to_owned());
        self
    }
    fn env(mut self, text: &str) -> Self {
        let (key, value) = text.split_once('=').unwrap();
        self.env.insert(key.to_owned(), value.to_owned());
        self
    }
}

fn settings() -> Settings {
    Settings { host_ip: Some("10.0.0.5".parse().unwrap()), ..Settings::default() }
}

fn map(containers: impl IntoIterator<Item = Container>) -> ContainerMap {
    containers.into_iter().map(|c| (c.id.clone(), Arc::new(c))).collect()
}

fn all(containers: &[Container], settings: &Settings) -> Vec<String> {
    decide(&map(containers.iter().cloned()), settings).iter().map(line).collect()
}

/// `service/id host:port`, the id without its zeros; or why not.
fn line(decision: &Decision) -> String {
    match &decision.outcome {
        Outcome::Register(c) => {
            let id = c.backend.id.as_str().replacen("000000000", "", 1);
            format!("{}/{id} {}", c.service, c.backend.address())
        }
        Outcome::Skip(skip) => match decision.port {
            Some((port, _)) => format!("{port} {}", skip.as_str()),
            None => skip.as_str().to_owned(),
        },
    }
}

fn one(container: Container, settings: &Settings) -> Vec<String> {
    all(&[container], settings)
}

fn only(container: Container) -> Candidate {
    let decisions = decide(&map([container]), &settings());
    assert_eq!(decisions.len(), 1, "{decisions:?}");
    decisions[0].candidate().unwrap_or_else(|| panic!("{}", decisions[0])).clone()
}

const PUBLISHED: &str = "80=0.0.0.0:49153,:::49153";

#[test]
fn names_and_ids_follow_the_number_of_eligible_ports() {
    let web = || container(0xabc, "acme/web:1.2");
    for (ports, expected) in [
        (&[PUBLISHED][..], vec!["web/abc 10.0.0.5:49153"]),
        (&[PUBLISHED, "443"], vec!["web/abc 10.0.0.5:49153", "443 not_published"]),
        (&["80=0.0.0.0:1", "443=0.0.0.0:2"], vec!["web-80/abc 10.0.0.5:1", "web-443/abc 10.0.0.5:2"]),
        (&["53=0.0.0.0:53", "53/udp=0.0.0.0:53"], vec!["web/abc 10.0.0.5:53", "web/abc:udp 10.0.0.5:53"]),
        (&["80=127.0.0.1:1", "443=0.0.0.0:2"], vec!["80 loopback_only", "web/abc 10.0.0.5:2"]),
        (&[], vec!["no_port"]),
    ] {
        assert_eq!(one(web().ports(ports), &settings()), expected, "{ports:?}");
    }
    let named = web().ports(&["80=0.0.0.0:1", "443=0.0.0.0:2"]);
    assert_eq!(
        one(named.clone().label("register.80.service=front").env("SERVICE_443_NAME=tls"), &settings()),
        ["front/abc 10.0.0.5:1", "tls/abc 10.0.0.5:2"]
    );
    assert_eq!(
        one(named.clone().label("register.80.service=x").label("register.443.service=x"), &settings()),
        ["x/abc:80 10.0.0.5:1", "x/abc:443 10.0.0.5:2"],
        "several ports in one service need the port in the id"
    );
    assert_eq!(
        one(named.clone().label("register.service=x"), &settings()),
        ["x-80/abc 10.0.0.5:1", "x-443/abc 10.0.0.5:2"]
    );
    assert_eq!(
        one(named.label("register.443.ignore=yes"), &settings()),
        ["web/abc 10.0.0.5:1", "443 ignored"],
        "an ignored port does not count"
    );
}

#[test]
fn a_faulty_label_leaves_out_its_registration_and_changes_no_other_name() {
    let two = container(0xabc, "web").ports(&["80=0.0.0.0:1", "443=0.0.0.0:2"]);
    for label in [
        "register.80.weight=heavy",
        "register.80.mode=udp",
        "register.80.service-port=0",
        "register.80.check=ping",
        "register.80.check.interval=never",
        "register.80.check.path=health",
        "register.80.address=0.0.0.0",
        "register.80.health=maybe",
        "register.80.drain=sometimes",
        "register.80.id=a/b",
        "SERVICE_80_CHECK_HTTP=health",
    ] {
        let decisions = one(two.clone().label(label), &settings());
        let check = if label.contains(".check.interval") {
            // Without a check an interval has nothing to say.
            one(two.clone().label(label).label("register.80.check=tcp"), &settings())
        } else {
            decisions
        };
        assert_eq!(check, ["80 bad_label", "web-443/abc 10.0.0.5:2"], "{label}");
    }
    let decision = &decide(&map([two.label("register.80.weight=heavy")]), &settings())[0];
    assert!(
        decision.to_string().contains(r#"register.80.weight="heavy" is not a whole number from 0 to 256"#),
        "{decision}"
    );
}

#[test]
fn addresses_follow_the_rules_in_their_order() {
    let web = |ports: &[&str]| container(0xabc, "web").ports(ports);
    let v6 = || Settings { host_ip: Some("2001:db8::5".parse().unwrap()), ..Settings::default() };
    let loopback = || Settings { allow_loopback: true, ..settings() };
    let internal = || Settings { internal: true, ..settings() };
    for (case, container, settings, expected) in [
        ("label first", web(&[PUBLISHED]).label("register.address=192.0.2.9"), settings(), "web/abc 192.0.2.9:49153"),
        ("its port", web(&["80"]).label("register.80.address=lb.example:81"), settings(), "web/abc lb.example:81"),
        (
            "v6 label",
            web(&["80"]).label("register.80.address=[2001:db8::1]:81"),
            settings(),
            "web/abc [2001:db8::1]:81",
        ),
        ("specific", web(&["80=192.0.2.7:8080"]), settings(), "web/abc 192.0.2.7:8080"),
        ("empty ip", web(&["80=:8080"]), settings(), "web/abc 10.0.0.5:8080"),
        ("v6 host", web(&["80=0.0.0.0:1,:::2"]), v6(), "web/abc [2001:db8::5]:2"),
        ("v4 host", web(&["80=:::2,0.0.0.0:1"]), settings(), "web/abc 10.0.0.5:1"),
        ("only v6 wildcard", web(&["80=:::2"]), settings(), "web/abc 10.0.0.5:2"),
        ("loopback", web(&["80=127.0.0.1:1"]), settings(), "80 loopback_only"),
        ("allowed", web(&["80=127.0.0.1:1"]), loopback(), "web/abc 127.0.0.1:1"),
        ("loopback beside", web(&["80=127.0.0.1:1,192.0.2.7:2"]), loopback(), "web/abc 192.0.2.7:2"),
        ("mapped loopback", web(&["80=::ffff:127.0.0.1:1"]), settings(), "80 loopback_only"),
        ("no HOST_IP", web(&[PUBLISHED]), Settings::default(), "80 host_ip_missing"),
        ("no HOST_IP needed", web(&["80=192.0.2.7:8080"]), Settings::default(), "web/abc 192.0.2.7:8080"),
        (
            "HOST_IP unspecified",
            web(&[PUBLISHED]),
            Settings { host_ip: Some("::".parse().unwrap()), ..Settings::default() },
            "80 host_ip_missing",
        ),
        (
            "HOST_IP loopback",
            web(&[PUBLISHED]),
            Settings { host_ip: Some("127.0.0.1".parse().unwrap()), ..Settings::default() },
            "80 loopback_only",
        ),
        ("exposed", web(&["80"]), settings(), "80 not_published"),
        ("internal", web(&["80"]), internal(), "web/abc 172.17.0.2:80"),
        ("internal beats published", web(&[PUBLISHED]), internal(), "web/abc 172.17.0.2:80"),
        ("asked for", web(&[]).label("register.port=9000"), settings(), "web/abc 172.17.0.2:9000"),
        ("asked for, published", web(&[PUBLISHED]).label("register.port=80"), settings(), "web/abc 10.0.0.5:49153"),
        ("network label", web(&["80"]).label("register.network=bridge"), settings(), "web/abc 172.17.0.2:80"),
        ("wrong network", web(&["80"]).label("register.network=x"), settings(), "80 bad_label"),
        ("localhost label", web(&["80"]).label("register.address=localhost"), settings(), "80 loopback_only"),
    ] {
        assert_eq!(one(container, &settings), [expected], "{case}");
    }
}

#[test]
fn one_of_several_networks_is_chosen_by_label_setting_or_name_never_by_chance() {
    let mut web = container(0xabc, "web").ports(&["80"]);
    web.networks = networks(&[("zeta", "10.2.0.2", "2001:db8:2::2"), ("alpha", "10.1.0.2", ""), ("beta", "", "")]);
    let internal = Settings { internal: true, ..settings() };
    let v6 = Settings { family: Family::Ipv6, network: Some("zeta".into()), ..internal.clone() };
    assert_eq!(one(web.clone(), &internal), ["web/abc 10.1.0.2:80"]);
    assert_eq!(one(web.clone(), &v6), ["web/abc [2001:db8:2::2]:80"]);
    assert_eq!(one(web.clone().label("register.80.network=zeta"), &internal), ["web/abc 10.2.0.2:80"]);
    assert_eq!(one(web.label("register.network=beta"), &internal), ["80 no_address"]);
}

#[test]
fn the_host_network_and_a_borrowed_one() {
    let mut host = container(0xabc, "web").ports(&["80"]);
    host.network_mode = "host".into();
    host.networks = networks(&[("host", "", "")]);
    assert_eq!(one(host.clone(), &settings()), ["web/abc 10.0.0.5:80"]);
    host.ports.clear();
    assert_eq!(one(host.clone(), &settings()), ["no_port"]);
    assert_eq!(one(host.label("register.port=8080"), &settings()), ["web/abc 10.0.0.5:8080"]);

    let owner = container(0xabc, "pause").ports(&["80=0.0.0.0:1"]);
    let mut guest = container(0xdef, "web");
    guest.network_mode = format!("container:{}", owner.id.as_str());
    guest.networks.clear();
    let both = [owner.clone(), guest.clone()];
    assert_eq!(all(&both, &settings()), ["pause/abc 10.0.0.5:1", "web/def 10.0.0.5:1"]);
    assert_eq!(
        all(&[owner.clone(), guest.clone().ports(&["90"])], &settings())[1],
        "90 not_published",
        "its own EXPOSE counts, with the owner's bindings"
    );
    assert_eq!(one(guest.clone(), &settings()), ["network_owner_missing"]);
    let internal = Settings { internal: true, ..settings() };
    assert_eq!(all(&both, &internal)[1], "web/def 172.17.0.2:80");
    let stopped = Container { state: State::Exited, ..owner };
    assert_eq!(all(&[stopped, guest], &settings()), ["stopped", "network_owner_missing"]);
}

#[test]
fn states_health_and_filters_keep_a_container_out() {
    let web = || container(0xabc, "web").ports(&[PUBLISHED]);
    assert_eq!(one(Container { state: State::Paused, ..web() }, &settings()), ["paused"]);
    assert_eq!(one(Container { state: State::Restarting, ..web() }, &settings()), ["stopped"]);
    for (health, policy, expected) in [
        (Health::Starting, HealthPolicy::Hide, "80 health_starting"),
        (Health::Unhealthy, HealthPolicy::Hide, "80 unhealthy"),
        (Health::Healthy, HealthPolicy::Hide, "web/abc 10.0.0.5:49153"),
        (Health::Unhealthy, HealthPolicy::Down, "web/abc 10.0.0.5:49153"),
        (Health::Unhealthy, HealthPolicy::Ignore, "web/abc 10.0.0.5:49153"),
    ] {
        let settings = Settings { health: policy, ..settings() };
        assert_eq!(one(Container { health: Some(health), ..web() }, &settings), [expected]);
    }
    let sick = Container { health: Some(Health::Unhealthy), ..web() }.label("register.health=down");
    assert_eq!(only(sick).backend.status, Status::Down);
    for (filter, admitted) in [
        ("label=team=a", true),
        ("label=team=b", false),
        ("label=team", true),
        ("name=c*", true),
        ("name=d*", false),
        ("network=bridge", true),
        ("network=other", false),
    ] {
        let settings = Settings { filters: vec![filter.parse().unwrap()], ..settings() };
        let expected = if admitted { "web/abc 10.0.0.5:49153" } else { "filtered" };
        assert_eq!(one(web().label("team=a"), &settings), [expected], "{filter}");
    }
    let either = Settings { filters: vec!["name=x".parse().unwrap(), "name=c*".parse().unwrap()], ..settings() };
    assert_eq!(one(web(), &either), ["web/abc 10.0.0.5:49153"]);
}

#[test]
fn names_come_from_where_the_agent_was_told_to_look() {
    let web = || container(0xabc, "acme/web").ports(&["80=0.0.0.0:1"]);
    let from = |text: &str| Settings { service_from: text.parse().unwrap(), ..settings() };
    let compose = web().label("com.docker.compose.service=front").label("app=shop");
    for (setting, expected) in [
        ("image", "web"),
        ("compose", "front"),
        ("swarm", "web"),
        ("label:app", "shop"),
        ("template:{{ labels.app }}-{{ base_name }}", "shop-web"),
        ("template:{{ labels['com.docker.compose.service'] }}", "front"),
    ] {
        assert_eq!(one(compose.clone(), &from(setting)), [format!("{expected}/abc 10.0.0.5:1")], "{setting}");
    }
    assert_eq!(one(web(), &from("template:{{ labels.app }}")), ["80 bad_name"]);
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
    for (value, ignored) in [("true", true), ("x", true), ("false", false), ("0", false), ("no", false), ("", false)] {
        let lines = one(dns().env(&format!("SERVICE_IGNORE={value}")), &settings());
        assert_eq!(lines[0] == "53 ignored", ignored, "{value:?}");
    }
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
    let traefik = container(0xabc, "app").label("traefik.http.services.a.loadbalancer.server.port=3001");
    assert_eq!(one(traefik, &internal), ["app/abc 172.17.0.2:3001"]);
    let mut caddy =
        container(0xabc, "app").label("caddy.reverse_proxy={{upstreams 3002}}").label("caddy_ingress_network=b");
    caddy.networks = networks(&[("a", "10.1.0.2", ""), ("b", "10.2.0.2", "")]);
    assert_eq!(one(caddy.clone(), &internal), ["app/abc 10.2.0.2:3002"]);
    caddy.labels.insert("caddy_ingress_network".into(), "c".into());
    assert_eq!(one(caddy, &internal), ["app/abc 10.1.0.2:3002"], "a network that it is not on is named, no more");
}

#[test]
fn of_two_claims_the_earlier_container_keeps_its_own() {
    let first = container(2, "web").ports(&["80=0.0.0.0:1"]).label("SERVICE_ID=same");
    let mut second = container(1, "web").ports(&["80=0.0.0.0:2"]).label("SERVICE_ID=same");
    second.started_at = "2027".into();
    assert_eq!(all(&[second.clone(), first.clone()], &settings()), ["web/same 10.0.0.5:1", "80 same_id"]);
    let address = second.clone().ports(&["80=0.0.0.0:1"]).label("SERVICE_ID=other");
    assert_eq!(all(&[address, first], &settings())[1], "80 same_address");
}

#[test]
fn explain_says_which_rule_gave_what_and_prints_no_control_characters() {
    let mut web = container(0xabc, "acme/web:1").ports(&[PUBLISHED]);
    web.name = "a\u{1b}[2Jb".into();
    let decisions = decide(&map([web]), &settings());
    assert_eq!(
        decisions[0].to_string(),
        "abc000000000 a\\u{1b}[2Jb 80/tcp: web/abc000000000 at 10.0.0.5:49153 (up)\n    \
         service: image acme/web:1 → web\n    \
         id: container id → abc000000000\n    \
         address: published binding 0.0.0.0:49153 → HOST_IP 10.0.0.5"
    );
}

#[test]
fn five_hundred_containers_are_decided_in_a_moment() {
    let web = |n: u32| {
        container(0x1000 + n, "acme/web:1")
            .ports(&[PUBLISHED, "443"])
            .label("register.80.check=http")
            .env("SERVICE_TAGS=a")
    };
    let containers = map((1..=500).map(|n| {
        let own_port = format!("80=0.0.0.0:{}", 10_000 + n);
        web(n).ports(&[&own_port])
    }));
    let began = std::time::Instant::now();
    let decisions = decide(&containers, &settings());
    println!("500 containers decided in {:?}", began.elapsed());
    assert_eq!(decisions.iter().filter(|d| d.candidate().is_some()).count(), 500);
    let mut decider = Decider::new(settings());
    decider.decide(&containers);
    let mut changed = containers.clone();
    let new = Arc::new(web(501).ports(&["80=0.0.0.0:9"]));
    changed.insert(new.id.clone(), new);
    let began = std::time::Instant::now();
    let decisions = decider.decide(&changed);
    println!("one of 501 decided in {:?}", began.elapsed());
    assert!(decisions.iter().map(|d| &**d).eq(&decide(&changed, &settings())));
}

#[test]
fn a_remembered_decision_follows_what_others_change() {
    let mut decider = Decider::new(settings());
    let owner = container(0xabc, "pause").ports(&["80=0.0.0.0:1"]);
    let mut guest = container(0xdef, "web");
    guest.network_mode = format!("container:{}", owner.id.as_str());
    let same = container(0xfff, "pause").ports(&["80=0.0.0.0:1"]);
    let mut containers = map([owner.clone(), guest, same]);
    for ports in [Some("80=0.0.0.0:1"), Some("80=0.0.0.0:2"), None, Some("80=0.0.0.0:1")] {
        match ports {
            Some(ports) => containers.insert(owner.id.clone(), Arc::new(owner.clone().ports(&[ports]))),
            None => containers.remove(&owner.id),
        };
        let remembered: Vec<Decision> = decider.decide(&containers).iter().map(|d| (**d).clone()).collect();
        assert_eq!(remembered, decide(&containers, &settings()), "{ports:?}");
    }
}

fn any_key() -> impl Strategy<Value = String> {
    let own = proptest::sample::select(LABEL_KEYS);
    prop_oneof![
        own.clone().prop_map(|key| format!("register.{key}")),
        (0..70_000_u32, own).prop_map(|(port, key)| format!("register.{port}.{key}")),
        "register\\.\\PC{0,12}",
        "SERVICE_(80_)?(udp_)?(NAME|ID|TAGS|IGNORE|CHECK_HTTP|CHECK_CMD|X|\\PC{0,6})",
        "VIRTUAL_(HOST|PORT|PATH|DEST|PROTO)",
        "traefik\\.http\\.routers\\.[ab]\\.(rule|service|priority|middlewares|\\PC{0,6})",
        "traefik\\.http\\.services\\.[ab]\\.loadbalancer\\.(server\\.port|sticky\\.cookie|\\PC{0,6})",
        "traefik\\.(enable|tcp\\.x|http\\.middlewares\\.[ab]\\.(stripprefix\\.prefixes|redirectscheme\\.scheme))",
        "caddy(_1)?(\\.reverse_proxy|\\.\\PC{0,4})?",
        "\\PC{0,10}",
    ]
}

fn any_value() -> impl Strategy<Value = String> {
    prop_oneof![
        "\\PC{0,30}",
        "[0-9]{1,6}",
        "(true|false|http|tcp|exec|/a|10s|-1|\n|\u{0})",
        "(Host|PathPrefix)\\(`[a-c./]{1,9}`\\)( (&&|\\|\\|) (Host|PathPrefix|X)\\(`/?[a-c.;&']{1,9}`\\)){0,4}",
        "(~|\\*\\.)?[a-c.,:]{1,20}|/[a-c/.%;&']{0,9}|\\{\\{upstreams (80|x)\\}\\}",
        Just("é".repeat(100_000)),
        Just("a,b,".repeat(10_000)),
        Just("x".repeat(1000))
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn rubbish_harms_nobody_else_and_decisions_are_reproducible(
        labels in proptest::collection::btree_map(any_key(), any_value(), 0..12),
        env in proptest::collection::btree_map(any_key(), any_value(), 0..12),
        name in "\\PC{0,20}",
        image in "\\PC{0,20}|[a-z:/@]{0,20}",
        internal: bool,
    ) {
        let settings = Settings { internal, ..settings() };
        let good = container(1, "good").ports(&[PUBLISHED]);
        let bad = Container { labels, env, name, image, ..container(2, "bad").ports(&["80=0.0.0.0:2", "53/udp=0.0.0.0:3"]) };
        let alone = decide(&map([good.clone()]), &settings);
        let together = decide(&map([good, bad]), &settings);
        prop_assert_eq!(&alone[..], &together[..alone.len()]);
        for decision in &together {
            let text = decision.to_string();
            prop_assert!(!text.chars().any(|c| c.is_control() && c != '\n'));
            prop_assert!(text.len() < 300_000);
            if let Some(c) = decision.candidate() {
                let usable = |ip: IpAddr| !ip.is_unspecified() && !ip.is_loopback();
                prop_assert!(c.backend.host.ip().is_none_or(usable), "{:?}", c.backend);
                prop_assert_eq!(c.backend.transport == Transport::Udp, decision.port.unwrap().1 == Transport::Udp);
                let value = crate::model::encode(&c.backend, crate::model::ValueFormat::Json);
                let read = crate::model::decode(&c.backend.id, value.as_bytes());
                let written = crate::model::Backend { left_out: None, ..c.backend.clone() };
                prop_assert_eq!(read, Ok(crate::model::Decoded::Backend(Box::new(written))));
                let safe = |b: u8| b.is_ascii_alphanumeric() || b"-._~!*+,:=@%/".contains(&b);
                let mut texts = c.backend.routes.iter().flat_map(|route| [route.host.as_str(), route.path.as_str()]);
                prop_assert!(texts.all(|text| text.bytes().all(safe)), "{:?}", c.backend.routes);
                let meant = c.backend.mode == Some(Mode::Http);
                prop_assert!(c.backend.routes.is_empty() || meant, "{:?}", c.backend);
            }
        }
    }
}
