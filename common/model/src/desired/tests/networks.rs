//! Networks that containers share: whose a port is, and which network the reader is on.

use super::*;

/// A container that publishes 8989 and 9696 beside its own 8000, and those that joined its network.
fn group(guests: &[(&str, &[&str], &str)]) -> Vec<Container> {
    let owner = container(0xabc, "vpn").ports(&["8000=0.0.0.0:8000", "8989=0.0.0.0:8989", "9696=0.0.0.0:9696"]);
    let guest = |(number, (image, ports, label)): (u32, &(&str, &[&str], &str))| {
        let mut guest = container(0xd00 + number, image).ports(ports);
        guest.network_mode = format!("container:{}", owner.id.as_str());
        guest.networks.clear();
        if label.is_empty() { guest } else { guest.label(label) }
    };
    let guests: Vec<Container> = (0..).zip(guests).map(guest).collect();
    std::iter::once(owner.clone()).chain(guests).collect()
}

#[test]
fn a_port_of_a_shared_network_is_the_ones_that_says_so_and_nobodys_by_guess() {
    let owners = ["vpn-8000/abc 10.0.0.5:8000", "vpn-8989/abc 10.0.0.5:8989", "vpn-9696/abc 10.0.0.5:9696"];
    let without = |port: u16| {
        owners.map(|line| if line.contains(&port.to_string()) { format!("{port} of_another") } else { line.to_owned() })
    };
    for (case, guests, guests_lines, owners_lines) in [
        ("neither EXPOSE nor a label", ("sonarr", &[][..], ""), vec!["no_port_of_its_own"], owners.map(str::to_owned)),
        ("its EXPOSE", ("sonarr", &["8989"][..], ""), vec!["sonarr/d00 10.0.0.5:8989"], without(8989)),
        (
            "a label that lists",
            ("sonarr", &[][..], "register.port=8989"),
            vec!["sonarr/d00 10.0.0.5:8989"],
            without(8989),
        ),
        (
            "a label of one port",
            ("sonarr", &[][..], "SERVICE_8989_NAME=tv"),
            vec!["tv/d00 10.0.0.5:8989"],
            without(8989),
        ),
        (
            "another proxy's label",
            ("sonarr", &[][..], "traefik.http.services.s.loadbalancer.server.port=8989"),
            vec!["sonarr/d00 10.0.0.5:8989"],
            without(8989),
        ),
        (
            "a label of no port",
            ("sonarr", &[][..], "register.service=tv"),
            vec!["no_port_of_its_own"],
            owners.map(str::to_owned),
        ),
        ("an unpublished port", ("sonarr", &["90"][..], ""), vec!["90 not_published"], owners.map(str::to_owned)),
    ] {
        let lines = all(&group(&[guests]), &settings());
        assert_eq!(
            (&lines[..3], &lines[3..]),
            (&owners_lines[..], &guests_lines.iter().map(|l| (*l).to_owned()).collect::<Vec<_>>()[..]),
            "{case}"
        );
    }
    let two = group(&[("sonarr", &["8989"], ""), ("prowlarr", &["8989", "9696"], "")]);
    assert_eq!(
        all(&two, &settings()),
        [
            "vpn-8000/abc 10.0.0.5:8000",
            "8989 of_another",
            "9696 of_another",
            "8989 contested",
            "8989 contested",
            "prowlarr-9696/d01 10.0.0.5:9696"
        ],
        "no name depends on what else runs"
    );
    let labelled = group(&[("sonarr", &["8989"], "register.port=8989"), ("prowlarr", &["8989", "9696"], "")]);
    assert_eq!(
        all(&labelled, &settings())[3..],
        ["sonarr/d00 10.0.0.5:8989", "8989 of_another", "prowlarr-9696/d01 10.0.0.5:9696"]
    );
    let mut owner_says = group(&[("sonarr", &["8989"], "")]);
    owner_says[0] = owner_says[0].clone().label("register.8989.service=tv");
    assert_eq!(
        all(&owner_says, &settings())[1..],
        ["tv/abc 10.0.0.5:8989", "vpn-9696/abc 10.0.0.5:9696", "8989 of_another"]
    );
    let alone = group(&[("sonarr", &[], "")]);
    let explained = decide(&map(alone), &settings())[3].to_string();
    assert!(
        explained.contains("network of container c2748")
            && explained.contains("warning")
            && explained.contains("register.port"),
        "{explained}"
    );
}

#[test]
fn a_decider_sees_who_joins_and_who_leaves() {
    let both = group(&[("sonarr", &["8989"], "")]);
    let mut decider = Decider::new(settings());
    let mut lines = |all: &ContainerMap| remembered(&mut decider, all).iter().map(line).collect::<Vec<_>>();
    let whole = map(both.clone());
    let mut less = whole.clone();
    less.remove(&both[1].id);
    assert_eq!(lines(&less)[1], "vpn-8989/abc 10.0.0.5:8989");
    assert_eq!(lines(&whole)[1], "8989 of_another");
    assert_eq!(lines(&whole)[1], "8989 of_another");
    assert_eq!(lines(&less)[1], "vpn-8989/abc 10.0.0.5:8989");
}

#[test]
fn a_network_that_the_reader_is_on_comes_first() {
    let mut reader = container(1, "proxy").label("register.ignore=yes");
    reader.networks = networks(&[("zeta", "10.2.0.9", "")]);
    let mut web = container(0xabc, "web").ports(&["80"]);
    web.networks = networks(&[("alpha", "10.1.0.2", ""), ("zeta", "10.2.0.2", "")]);
    let own_ids = Arc::from([reader.id.short().to_owned()]);
    let inside = Settings { internal: true, networks: NetworkChoice { name: None, own_ids }, ..settings() };
    let second = |containers: &[Container], settings: &Settings| {
        let decisions = decide(&map(containers.iter().cloned()), settings);
        (line(&decisions[1]), decisions[1].warnings.join(" "))
    };
    let both = [reader.clone(), web.clone()];
    assert_eq!(second(&both, &inside), ("web/abc 10.2.0.2:80".into(), String::new()));
    let outside = Settings { networks: NetworkChoice::default(), ..inside.clone() };
    assert_eq!(second(&both, &outside).0, "web/abc 10.1.0.2:80");
    let labelled = [reader.clone(), web.clone().label("register.network=alpha")];
    assert_eq!(second(&labelled, &inside).0, "web/abc 10.1.0.2:80", "a label comes before");
    let mut apart = web.clone();
    apart.networks = networks(&[("alpha", "10.1.0.2", "")]);
    let (found, warning) = second(&[reader.clone(), apart], &inside);
    assert!(
        found == "web/abc 10.1.0.2:80" && warning.contains("no network that this program is on (zeta)"),
        "{warning}"
    );
    let on_host = Container { network_mode: "host".into(), networks: networks(&[("host", "", "")]), ..reader.clone() };
    assert_eq!(second(&[on_host, web.clone()], &inside).0, "web/abc 10.1.0.2:80");

    let mut decider = Decider::new(inside);
    let containers = |reader: &Container| map([reader.clone(), web.clone()]);
    let mut address = |containers: &ContainerMap| line(&remembered(&mut decider, containers)[1]);
    let known = containers(&reader);
    assert_eq!(address(&known), "web/abc 10.2.0.2:80");
    let mut moved = known.clone();
    moved.insert(reader.id.clone(), Arc::new(Container { networks: networks(&[("alpha", "10.1.0.9", "")]), ..reader }));
    assert_eq!(address(&moved), "web/abc 10.1.0.2:80", "the reader joined another network");
}

#[test]
fn without_a_network_the_reason_is_that_and_not_the_publishing() {
    for (label, settings) in
        [("a=b", settings()), ("register.port=80", settings()), ("a=b", Settings { internal: true, ..settings() })]
    {
        let mut alone = container(0xabc, "web").ports(&["80"]).label(label);
        alone.network_mode = "none".to_owned();
        alone.networks.clear();
        let [decision] = &decide(&map([alone]), &settings)[..] else { panic!() };
        let said = decision.to_string();
        assert!(said.contains("its network is none") && said.contains("another network"), "{said}");
    }
}
