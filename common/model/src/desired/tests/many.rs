//! Many containers, again and again: what is remembered is what would be decided.

use super::*;

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
