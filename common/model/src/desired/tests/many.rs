//! Many containers, again and again: what is remembered is what would be decided.

use proptest::prelude::*;

use super::*;

/// One of eight containers, which share services, ids, addresses and networks; `None`: it goes.
fn any_change() -> impl Strategy<Value = (u32, Option<Container>)> {
    let started = 0..4u32;
    let network = prop_oneof![4 => Just(None), 1 => (0..8u32).prop_map(|of| Some((of, true))), 1 => (0..8u32).prop_map(|of| Some((of, false)))];
    let state = prop_oneof![8 => Just(State::Running), 1 => Just(State::Paused), 1 => Just(State::Restarting)];
    let fields = (started, network, state, 1..4u32, any::<bool>(), any::<bool>());
    (0..8u32, prop::option::weighted(0.8, fields)).prop_map(|(number, fields)| {
        let made = fields.map(|(started, network, state, port, named, labelled)| {
            let mut made = container(0x10 + number, "web").ports(&[&format!("80=0.0.0.0:{port}")]);
            (made.started_at, made.state) = (format!("2026-01-01T00:00:{started:02}Z"), state);
            if let Some((of, by_name)) = network {
                let id = container(0x10 + of, "web").id;
                let owner = if by_name { format!("c{}", 0x10 + of) } else { id.as_str().to_owned() };
                made.network_mode = format!("container:{owner}");
            }
            if named {
                made = made.label("register.id=same")
            }
            if labelled { made.label("register.port=80") } else { made }
        });
        (number, made)
    })
}

proptest! {
    #[test]
    fn a_look_at_what_changed_comes_to_what_a_look_at_all_comes_to(life in prop::collection::vec(prop::collection::vec(any_change(), 1..3), 1..20)) {
        let own_ids = Arc::from([container(0x10, "web").id.short().to_owned()]);
        let settings = Settings { networks: NetworkChoice { name: None, own_ids }, ..settings() };
        let (mut decider, mut containers) = (Decider::new(settings.clone()), ContainerMap::new());
        for changes in life {
            let before: BTreeMap<_, Vec<_>> = containers.keys().map(|id| (id.clone(), decider.of(id).to_vec())).collect();
            for (number, change) in changes {
                let id = container(0x10 + number, "web").id;
                match change {
                    Some(change) => drop(containers.insert(id, Arc::new(change))),
                    None => drop(containers.remove(&id)),
                }
            }
            let dirty = decider.decide(&containers);
            prop_assert_eq!(remembered(&mut decider, &containers), decide(&containers, &settings));
            for (id, was) in before.iter().filter(|(id, _)| !dirty.contains(*id)) {
                prop_assert_eq!(decider.of(id), &was[..]);
            }
            prop_assert!(containers.keys().all(|id| before.contains_key(id) || dirty.contains(id)));
        }
    }
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
    let dirty = decider.decide(&changed);
    println!("one of 501 decided in {:?}", began.elapsed());
    assert_eq!(dirty.len(), 1);
    assert_eq!(remembered(&mut decider, &changed), decide(&changed, &settings()));
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
        assert_eq!(remembered(&mut decider, &containers), decide(&containers, &settings()), "{ports:?}");
    }
}
