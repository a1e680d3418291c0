use agent::history::Query;
use model::Weight;
use serde_json::json;

use super::*;

fn backend(id: &str, port: u16) -> Backend {
    Backend::new(id.parse().unwrap(), "10.0.0.1".parse().unwrap(), port.try_into().unwrap())
}

fn desired(pools: &[(&str, &[Backend])]) -> Desired {
    let pool = |all: &[Backend]| Arc::new(all.iter().cloned().map(Arc::new).collect::<Pool>());
    let services = pools.iter().map(|(name, all)| (name.parse().unwrap(), pool(all))).collect();
    Desired { services, ..Desired::default() }
}

/// What a turn noted: `what backend reason`, the newest last.
fn turn(
    chronicle: &mut Chronicle,
    desired: &Desired,
    ok: bool,
    haproxy: &HaproxyStatus,
    left_out: &[Value],
) -> Vec<String> {
    let before = chronicle.history.count();
    let since = Some(Instant::now());
    chronicle.turned(&TurnEnd { desired, observations: &[], ok, haproxy: Some(haproxy), left_out, since });
    let most = usize::try_from(chronicle.history.count() - before).unwrap();
    let noted = chronicle.history.read(&Query { most: Some(most), ..Query::default() });
    let text = |change: &Value| {
        let words = ["what", "service", "backend", "reason", "why"]
            .map(|key| change[key].as_str().unwrap_or_default().to_owned());
        words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
    };
    noted.iter().rev().map(text).collect()
}

#[test]
fn each_turn_notes_what_it_changed_and_a_failed_one_nothing_of_pools() {
    let (mut chronicle, haproxy) = (Chronicle::default(), HaproxyStatus::default());
    let (a, b) = (backend("a", 1), backend("b", 2));
    let first = desired(&[("web", std::slice::from_ref(&a))]);
    assert!(turn(&mut chronicle, &first, false, &haproxy, &[]).is_empty(), "nothing is routed yet");
    assert_eq!(turn(&mut chronicle, &first, true, &haproxy, &[]), ["started 1 services, 1 backends"]);
    assert!(turn(&mut chronicle, &first, true, &haproxy, &[]).is_empty());
    let both = desired(&[("web", &[a.clone(), b.clone()])]);
    assert!(turn(&mut chronicle, &both, false, &haproxy, &[]).is_empty());
    assert_eq!(turn(&mut chronicle, &both, true, &haproxy, &[]), ["registered web b"]);
    let draining = Backend { status: Status::Draining, ..a.clone() };
    let moved = Backend { weight: Weight::try_from(5).ok(), ..backend("b", 3) };
    let noted = turn(&mut chronicle, &desired(&[("web", &[draining, moved.clone()])]), true, &haproxy, &[]);
    assert_eq!(noted, ["draining web a registration", "changed web b address 10.0.0.1:2 → 10.0.0.1:3, weight 1 → 5"]);
    assert_eq!(turn(&mut chronicle, &desired(&[("web", &[moved])]), true, &haproxy, &[]), ["gone web a"]);
    assert_eq!(turn(&mut chronicle, &desired(&[]), true, &haproxy, &[]), ["gone web b"]);
}

#[test]
fn reloads_services_without_backends_and_what_is_left_out_are_noted_once() {
    let (mut chronicle, mut haproxy, nothing) = (Chronicle::default(), HaproxyStatus::default(), desired(&[]));
    turn(&mut chronicle, &nothing, true, &haproxy, &[]);
    haproxy.reloaded(ReloadRecord::new(&BTreeSet::new(), Some("refused".into())));
    haproxy.out_of_service.insert("web".parse().unwrap());
    let bad = [json!({"key": "/backends/x/y", "reason": "no port"})];
    let noted = turn(&mut chronicle, &nothing, true, &haproxy, &bad);
    assert_eq!(noted, ["left_out /backends/x/y no port", "out_of_service web", "reload_failed refused"]);
    assert!(turn(&mut chronicle, &nothing, true, &haproxy, &bad).is_empty());
    haproxy.out_of_service.clear();
    assert_eq!(turn(&mut chronicle, &nothing, true, &haproxy, &[]), ["taken_in /backends/x/y", "in_service web"]);
}

#[test]
fn a_reload_that_is_refused_again_in_the_same_words_is_noted_once() {
    let (mut chronicle, mut haproxy, nothing) = (Chronicle::default(), HaproxyStatus::default(), desired(&[]));
    turn(&mut chronicle, &nothing, true, &haproxy, &[]);
    let mut reload = |at: u64, error: Option<&str>| {
        let record = ReloadRecord::new(&BTreeSet::new(), error.map(str::to_owned));
        haproxy.reloaded(ReloadRecord { at_unix_ms: u64::MAX - 10 + at, ..record });
        turn(&mut chronicle, &nothing, true, &haproxy, &[])
    };
    assert_eq!(reload(1, Some("(17) no")), ["reload_failed (17) no"]);
    assert!(reload(2, Some("(18) no")).is_empty());
    assert_eq!(reload(3, Some("other")), ["reload_failed other"]);
    assert_eq!(reload(4, None), ["reload"]);
    assert_eq!(reload(5, Some("other")), ["reload_failed other"]);
}

#[test]
fn what_waits_for_a_reload_is_routed_when_that_is_done() {
    let (mut chronicle, mut haproxy) = (Chronicle::default(), HaproxyStatus::default());
    let since = Instant::now();
    let mut end = |pools: &Desired, haproxy: &HaproxyStatus, since| {
        chronicle.turned(&TurnEnd {
            desired: pools,
            observations: &[],
            ok: true,
            haproxy: Some(haproxy),
            left_out: &[],
            since,
        })
    };
    assert_eq!(end(&desired(&[]), &haproxy, None), None);
    let web = desired(&[("web", &[backend("a", 1)])]);
    haproxy.waiting = Some(vec!["section_added".into()]);
    assert_eq!(end(&web, &haproxy, Some(since)), None);
    haproxy.waiting = None;
    assert_eq!(end(&web, &haproxy, None), Some(since));
    assert_eq!(end(&web, &haproxy, None), None);
    assert_eq!(end(&desired(&[]), &haproxy, Some(since)), Some(since));
}

#[test]
fn a_registry_that_comes_back_whole_is_a_bounded_number_of_changes() {
    let (mut chronicle, haproxy) = (Chronicle::default(), HaproxyStatus::default());
    turn(&mut chronicle, &desired(&[]), true, &haproxy, &[]);
    let many: Vec<Backend> = (0..2_000).map(|n| backend(&format!("b{n}"), 1 + n)).collect();
    let noted = turn(&mut chronicle, &desired(&[("web", &many)]), true, &haproxy, &[]);
    assert_eq!(
        (noted.len(), noted.last().unwrap().as_str()),
        (MOST_OF_A_TURN + 1, "more 1500 further changes of this turn")
    );
}

#[test]
fn only_what_haproxy_itself_finds_is_noted_of_it() {
    let mut chronicle = Chronicle::default();
    let view = View::of(None);
    let services = |status| desired(&[("web", &[Backend { status, ..backend("a", 1) }])]).services;
    assert!(!chronicle.looked(&services(Status::Up), &view), "the first look is no news");
    assert!(!chronicle.looked(&services(Status::Down), &view), "its registration's doing");
    assert!(!chronicle.looked(&services(Status::Down), &view));
}
