use proptest::prelude::*;

use super::*;

/// A HAProxy that does not take some suspects, and says so in one way for each.
struct Script {
    /// Whose fault has a line.
    by_line: BTreeSet<usize>,
    /// Whose has none: an alert without one, a time-out, a crash.
    silent: BTreeMap<usize, &'static str>,
    operators_fault: bool,
    tries: usize,
}

impl Script {
    fn new(by_line: &[usize], silent: &[(usize, &'static str)]) -> Self {
        let (by_line, silent) = (by_line.iter().copied().collect(), silent.iter().copied().collect());
        Self { by_line, silent, operators_fault: false, tries: 0 }
    }
}

impl Judge for Script {
    async fn with(&mut self, suspects: &BTreeSet<usize>) -> Option<Verdict> {
        self.tries += 1;
        if self.operators_fault {
            return Some(Verdict::Bad { why: "unknown keyword in global".into(), named: BTreeMap::new() });
        }
        // A hang or a crash comes before all words.
        if let Some((_, why)) = self.silent.iter().find(|(suspect, _)| suspects.contains(suspect)) {
            return Some(Verdict::Bad { why: (*why).into(), named: BTreeMap::new() });
        }
        let named = suspects.intersection(&self.by_line).take(20);
        let named: BTreeMap<usize, String> = named.map(|suspect| (*suspect, format!("line of {suspect}"))).collect();
        match named.is_empty() {
            true => Some(Verdict::Good),
            false => Some(Verdict::Bad { why: "errors".into(), named }),
        }
    }
}

async fn found(script: &mut Script, count: usize, tries: usize) -> (Vec<(usize, String)>, usize, usize) {
    let finding = find(count, tries, script).await.unwrap();
    (finding.guilty.into_iter().collect(), finding.good.len(), finding.undecided.len())
}

#[tokio::test]
async fn one_guilty_suspect_among_many_is_found_whatever_the_form_of_the_failure() {
    for why in ["check-proto h2: no line", "takes longer than 5s", "ends with signal 11"] {
        let mut script = Script::new(&[], &[(700, why)]);
        assert_eq!(found(&mut script, 1000, 32).await, (vec![(700, why.to_owned())], 999, 0));
        assert!(script.tries <= 22, "{} tries", script.tries);
    }
    let mut script = Script::new(&[700], &[]);
    assert_eq!(found(&mut script, 1000, 32).await, (vec![(700, "line of 700".to_owned())], 999, 0));
    assert_eq!(script.tries, 3);
    let mut script = Script::new(&[], &[(0, "alone")]);
    assert_eq!(found(&mut script, 1, 32).await.0, [(0, "alone".to_owned())]);
}

#[tokio::test]
async fn many_all_or_none_of_them_may_be_guilty() {
    let mut script = Script::new(&(0..100).collect::<Vec<_>>(), &[(150, "hangs")]);
    let (guilty, good, undecided) = found(&mut script, 200, 64).await;
    assert_eq!((guilty.len(), good, undecided), (101, 99, 0));
    let mut script = Script::new(&[], &(0..8).map(|n| (n, "crash")).collect::<Vec<_>>());
    let (guilty, good, _) = found(&mut script, 8, 32).await;
    assert_eq!((guilty.len(), good), (8, 0));
    let mut script = Script::new(&[], &[]);
    assert_eq!((found(&mut script, 2000, 32).await, script.tries), ((vec![], 2000, 0), 2));
}

#[tokio::test]
async fn what_fails_without_any_suspect_is_the_operators_fault() {
    let mut script = Script { operators_fault: true, ..Script::new(&[1], &[]) };
    let fault = NoFinding::NotTheirs("unknown keyword in global".into());
    assert_eq!((find(5, 32, &mut script).await, script.tries), (Err(fault), 1));
}

#[tokio::test]
async fn at_the_bound_what_is_not_found_out_is_said_to_be_so() {
    let mut script = Script::new(&[], &(0..500).map(|n| (n, "hangs")).collect::<Vec<_>>());
    let (guilty, good, undecided) = found(&mut script, 500, 32).await;
    assert_eq!((script.tries, good), (32, 0));
    assert_eq!(guilty.len() + undecided, 500);
    assert!(!guilty.is_empty());
}

proptest! {
    #[test]
    fn exactly_the_guilty_are_found(
        count in 1usize..60, by_line in prop::collection::btree_set(0usize..60, 0..20), silent in prop::collection::btree_set(0usize..60, 0..10),
    ) {
        let within = |of: &BTreeSet<usize>| of.iter().copied().filter(|n| *n < count).collect::<Vec<_>>();
        let (by_line, silent) = (within(&by_line), within(&silent));
        let mut script = Script::new(&by_line, &silent.iter().map(|n| (*n, "silent")).collect::<Vec<_>>());
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let finding = runtime.block_on(find(count, 1000, &mut script)).unwrap();
        let guilty: BTreeSet<usize> = by_line.into_iter().chain(silent).collect();
        prop_assert_eq!(finding.guilty.into_keys().collect::<BTreeSet<_>>(), guilty.clone());
        prop_assert_eq!(finding.good, (0..count).filter(|n| !guilty.contains(n)).collect::<BTreeSet<_>>());
        prop_assert!(finding.undecided.is_empty());
    }
}

#[test]
fn haproxys_words_are_read() {
    let said = "[NOTICE]   (9) : haproxy version is 3.0.11\n\
                [ALERT]    (9) : config : parsing [/d/c:7] : 'server web/b' : unknown keyword 'init-state'.\n\
                [ALERT]    (9) : config : Fatal errors found in configuration.\n";
    let words = "'server web/b' : unknown keyword 'init-state'.".to_owned();
    assert_eq!(complaints(Path::new("/d/c"), said), [(7, words.clone())]);
    assert_eq!(complaints(Path::new("/d/other"), said), []);
    assert_eq!(gist(said), format!("parsing [/d/c:7] : {words}"));
    assert_eq!(gist("haproxy -c ends with signal 11"), "haproxy -c ends with signal 11");
    assert!(gist(&"é".repeat(1000)).ends_with(" …"));
}

#[test]
fn after_a_quick_try_a_slow_one_is_not_waited_for() {
    let mut patience = Patience::new(Duration::from_secs(5));
    assert_eq!(patience.next(), Duration::from_secs(5));
    patience.took(Duration::from_millis(300));
    assert_eq!(patience.next(), Duration::from_secs(3));
    patience.took(Duration::from_millis(10));
    assert_eq!(patience.next(), Duration::from_secs(1));
    patience.took(Duration::from_secs(60));
    assert_eq!(patience.next(), Duration::from_secs(1));
}
