use std::collections::BTreeSet;

use super::super::ledger::UNDECIDED_FOR;
use super::*;

fn server(name: &str, own: &str) -> Server {
    let line = format!("server {name} 127.0.0.1:1 check inter 2s {own}");
    Server { line: None, ..Server::of_line(name.into(), ([127, 0, 0, 1], 1).into(), line.trim_end().into()) }
        .with_own(own)
}

fn section(name: &str, servers: Vec<Server>) -> Arc<Section> {
    let skeleton = format!("listen {name}\n\tbind 127.0.0.1:{}\n\tmode http\n", name.len()).into();
    Arc::new(Section { name: name.into(), skeleton, servers, inherited: "".into(), text: Default::default() })
}

fn layout(sections: Vec<Arc<Section>>) -> Layout {
    Layout { header: "global\n\tmaxconn 9\n".into(), sections, ..Layout::default() }
}

fn names(layout: &Layout) -> Vec<String> {
    let lines = |s: &Arc<Section>| s.servers.iter().map(|v| format!("{}/{}", s.name, v.name)).collect::<Vec<_>>();
    layout.sections.iter().flat_map(lines).collect()
}

/// Judges all that is due: what has one of `bad` in its words is refused.
fn judge(proofs: &mut Proofs, bad: &[&str], now: Instant) -> Vec<Blamed> {
    let Some(batch) = proofs.batch(now) else { return Vec::new() };
    let mut finding = Finding::default();
    for n in 0..batch.trial.suspects() {
        let Some(Suspect::Words(words)) = batch.trial.suspect(n) else { panic!("not words") };
        match bad.iter().any(|bad| words.text.contains(bad)) {
            true => _ = finding.guilty.insert(n, "unknown keyword".into()),
            false => _ = finding.good.insert(n),
        }
    }
    proofs.judged(&batch.trial, finding, now)
}

fn admitted(proofs: &mut Proofs, wanted: &Layout, applied: &Layout, now: Instant) -> Layout {
    let mut layout = wanted.clone();
    proofs.admit(&mut layout, applied, now);
    layout
}

#[tokio::test(start_paused = true)]
async fn words_go_live_when_they_are_proved_and_what_is_refused_stays_out_alone() {
    let (mut proofs, now, nothing) = (Proofs::default(), Instant::now(), Layout::default());
    let wanted = layout(vec![
        section("web", vec![server("a", ""), server("b", "odd 1"), server("w", "weight 7")]),
        section("api", vec![server("c", "maxconn 9"), server("d", "odd 1")]),
    ]);
    assert_eq!(names(&admitted(&mut proofs, &wanted, &nothing, now)), ["web/a", "web/w"], "a weight needs no proof");
    assert_eq!(proofs.waiting(), 3);
    let blamed = judge(&mut proofs, &["odd"], now);
    let one = Blamed { example: "web/b".into(), servers: 2, words: "odd 1".into(), why: "unknown keyword".into() };
    assert_eq!(blamed, [one], "one line for all servers with the same words");
    assert_eq!(names(&admitted(&mut proofs, &wanted, &nothing, now)), ["web/a", "web/w", "api/c"]);
    let reasons: Vec<_> = proofs.reasons().map(|(server, _)| server).collect();
    assert_eq!((reasons, proofs.waiting()), (vec!["web/b".to_owned(), "api/d".to_owned()], 0));
    assert!(proofs.batch(now).is_none(), "nothing is tried again at once");
    // Other words are tried at once, whatever was refused before.
    let mended = layout(vec![section("web", vec![server("a", ""), server("b", "maxconn 9")])]);
    assert_eq!(names(&admitted(&mut proofs, &mended, &nothing, now)), ["web/a", "web/b"], "proved elsewhere");
    let other = layout(vec![section("web", vec![server("b", "maxconn 8")])]);
    assert_eq!(names(&admitted(&mut proofs, &other, &nothing, now)), [""; 0]);
    judge(&mut proofs, &[], now);
    assert_eq!(names(&admitted(&mut proofs, &other, &nothing, now)), ["web/b"]);
}

#[tokio::test(start_paused = true)]
async fn a_restart_takes_nothing_out_and_a_server_keeps_its_form_until_newer_words_are_judged() {
    let (mut proofs, now) = (Proofs::default(), Instant::now());
    let old = layout(vec![section("web", vec![server("a", "maxconn 9"), server("b", "")])]);
    // What is read back from a file does not say whose the words are.
    let applied = Layout::parse(&old.render()).unwrap();
    assert_eq!(admitted(&mut proofs, &old, &applied, now), old);
    assert!(proofs.batch(now).is_none(), "what runs is proved");
    let newer = layout(vec![section("web", vec![server("a", "odd 1"), server("b", ""), server("c", "odd 1")])]);
    let waiting = admitted(&mut proofs, &newer, &applied, now);
    assert_eq!(waiting.sections[0].servers, old.sections[0].servers);
    let mut drained = newer.clone();
    Arc::make_mut(&mut drained.sections[0]).servers[0].weight = 0;
    let waiting = admitted(&mut proofs, &drained, &applied, now);
    assert_eq!(waiting.sections[0].servers[0].to_string(), "server a 127.0.0.1:1 check inter 2s maxconn 9 weight 0");
    judge(&mut proofs, &[], now);
    assert_eq!(admitted(&mut proofs, &newer, &applied, now), newer);
}

#[tokio::test(start_paused = true)]
async fn words_that_could_not_be_judged_take_no_running_server_out() {
    let (mut proofs, now) = (Proofs::default(), Instant::now());
    let applied = layout(vec![section("web", vec![server("a", "maxconn 9")])]);
    let newer = layout(vec![section("web", vec![server("a", "maxconn 8"), server("b", "maxconn 7")])]);
    admitted(&mut proofs, &newer, &applied, now);
    let batch = proofs.batch(now).unwrap();
    let undecided = (0..batch.trial.suspects()).collect();
    assert_eq!(proofs.judged(&batch.trial, Finding { undecided, ..Finding::default() }, now), []);
    assert_eq!(admitted(&mut proofs, &newer, &applied, now), applied);
    assert_eq!(proofs.reasons().count(), 2, "it is shown");
    assert!(proofs.batch(now).is_none());
    tokio::time::advance(UNDECIDED_FOR[0]).await;
    assert!(!proofs.batch(Instant::now()).unwrap().is_new, "it is tried again, and no reload waits for that");
}

#[tokio::test(start_paused = true)]
async fn refused_words_are_tried_again_after_growing_pauses_and_at_once_by_another_version_or_header() {
    let (mut proofs, nothing) = (Proofs::default(), Layout::default());
    let wanted = layout(vec![section("web", vec![server("b", "odd 1")])]);
    for pause in [60, 120, 240] {
        admitted(&mut proofs, &wanted, &nothing, Instant::now());
        judge(&mut proofs, &["odd"], Instant::now());
        tokio::time::advance(Duration::from_secs(pause - 1)).await;
        assert!(proofs.batch(Instant::now()).is_none(), "{pause}");
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(proofs.batch(Instant::now()).is_some(), "{pause}");
    }
    judge(&mut proofs, &["odd"], Instant::now());
    let other = Layout { header: "global\n\tmaxconn 8\n".into(), ..wanted.clone() };
    admitted(&mut proofs, &other, &nothing, Instant::now());
    assert!(proofs.batch(Instant::now()).is_some());
    judge(&mut proofs, &["odd"], Instant::now());
    for (version, again) in [("2.6.12", false), ("2.6.12", false), ("3.0.11", true)] {
        proofs.suit(Some(&Version::parse(&format!("HAProxy version {version}")).unwrap()));
        admitted(&mut proofs, &other, &nothing, Instant::now());
        assert_eq!(proofs.batch(Instant::now()).is_some(), again, "{version}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_section_keeps_the_form_in_which_it_runs_and_a_new_one_is_left_out() {
    let (mut proofs, now) = (Proofs::default(), Instant::now());
    let old = layout(vec![section("web", vec![server("a", "")])]);
    let mut changed = (*section("web", vec![server("a", ""), server("b", "")])).clone();
    changed.skeleton = "listen web\n\tbind 127.0.0.1:99\n".into();
    let wanted = layout(vec![section("stats", vec![server("s", "")]), Arc::new(changed)]);
    let applied = old.clone();
    assert_eq!(admitted(&mut proofs, &wanted, &applied, now), wanted);
    let trial = Trial::of_all(&wanted, &old, Vec::new());
    assert_eq!(trial.suspects(), 2);
    assert_eq!(trial.with(&BTreeSet::new()).sections[0].skeleton, old.sections[0].skeleton, "not without it");
    let guilty = (0..2).map(|n| (n, "same name".to_owned())).collect();
    assert_eq!(proofs.judged(&trial, Finding { guilty, ..Finding::default() }, now).len(), 2);
    for applied in [&applied, &Layout::default()] {
        let left = admitted(&mut proofs, &wanted, applied, now);
        assert_eq!(names(&left), ["web/a", "web/b"]);
        assert_eq!(left.sections[0].skeleton, old.sections[0].skeleton);
    }
    let mended = layout(vec![section("stats-page", vec![server("s", "")])]);
    assert_eq!(admitted(&mut proofs, &mended, &applied, now), mended);
}

#[tokio::test(start_paused = true)]
async fn an_innocent_services_words_are_judged_in_the_first_batch_however_many_another_has() {
    let (mut proofs, now) = (Proofs::default(), Instant::now());
    let flood = (0..2000).map(|n| server(&format!("s{n}"), &format!("odd {n}"))).collect();
    let wanted = layout(vec![section("flood", flood), section("web", vec![server("a", "maxconn 9")])]);
    admitted(&mut proofs, &wanted, &Layout::default(), now);
    let batch = proofs.batch(now).unwrap();
    assert_eq!(batch.trial.suspects(), BATCH);
    let is_innocent = |n: usize| matches!(batch.trial.suspect(n), Some(Suspect::Words(w)) if &*w.text == "maxconn 9");
    assert!((0..2).any(is_innocent));
    // All the same words of 2,000 servers are one suspect.
    let mut proofs = Proofs::default();
    let flood = (0..2000).map(|n| server(&format!("s{n}"), "odd")).collect();
    admitted(&mut proofs, &layout(vec![section("flood", flood)]), &Layout::default(), now);
    assert_eq!(proofs.batch(now).unwrap().trial.suspects(), 1);
}

#[test]
fn a_try_says_whose_line_haproxy_names() {
    let wanted = layout(vec![section("web", vec![server("a", ""), server("b", "odd 1")])]);
    let words = Words::of(kind(&wanted.sections[0]), &wanted.sections[0].servers[1]).unwrap();
    let trial = Trial::of_words(wanted, vec![words], |_| false);
    let (none, all) = (BTreeSet::new(), BTreeSet::from([0]));
    let (without, with) = (trial.with(&none), trial.with(&all));
    assert!(!without.render().contains("odd") && with.render().contains("odd 1"));
    assert_eq!(without.render().lines().count(), with.render().lines().count());
    let line = with.render().lines().position(|line| line.contains("odd")).unwrap() + 1;
    let said = format!("[ALERT] (9) : config : parsing [/d/f:{line}] : unknown keyword 'odd'.");
    let file = std::path::Path::new("/d/f");
    assert_eq!(trial.named(&with, &all, file, &said).into_keys().collect::<Vec<_>>(), [0]);
    assert!(trial.named(&without, &none, file, &said).is_empty(), "without the words it is nobody's");
}
