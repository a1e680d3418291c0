use std::fs;

use tempfile::TempDir;

use super::*;

fn numbered(history: &History, numbers: impl IntoIterator<Item = usize>) {
    numbers
        .into_iter()
        .for_each(|n| history.note(Change::at("registered", n as u64).with("service", format!("s{}", n % 2))));
}

fn times(changes: &[Value]) -> Vec<u64> {
    changes.iter().filter_map(|change| change["at_unix_ms"].as_u64()).collect()
}

/// What a history that keeps this file has after `notes`, and after a restart.
async fn kept(dir: &TempDir, notes: impl IntoIterator<Item = usize>) -> (Vec<u64>, Vec<u64>) {
    let mut seen = Vec::new();
    let mut notes = Some(notes);
    for _ in 0..2 {
        let (history, cancel) = (History::default(), CancellationToken::new());
        notes.take().into_iter().for_each(|notes| numbered(&history, notes));
        cancel.cancel();
        history.clone().keep(dir.path().join("history.jsonl"), cancel).await.unwrap();
        seen.push(times(&history.read(&Query::default())));
    }
    (seen.remove(0), seen.remove(0))
}

#[test]
fn the_newest_come_first_and_a_question_leaves_others_out() {
    let history = History::default();
    numbered(&history, 1..=6);
    assert_eq!(times(&history.read(&Query::default())), [6, 5, 4, 3, 2, 1]);
    assert_eq!(times(&history.read(&Query { most: Some(2), ..Query::default() })), [6, 5]);
    assert_eq!(times(&history.read(&Query { since_unix_ms: 5, ..Query::default() })), [6, 5]);
    let of_one = Query { service: Some("s1".into()), most: Some(2), ..Query::default() };
    assert_eq!(times(&history.read(&of_one)), [5, 3]);
    assert_eq!((history.count(), history.extent()), (6, (6, Some(1))));
}

#[test]
fn memory_is_bounded_in_lines_and_in_their_length() {
    let history = History::default();
    numbered(&history, 0..MOST + 5);
    assert_eq!(history.extent(), (MOST, Some(5)));
    history.note(Change::at("gone", 1).with("why", "ü".repeat(100_000)).with("reason", "").with("name", Value::Null));
    let newest = history.read(&Query { most: Some(1), ..Query::default() }).remove(0);
    assert_eq!(newest["why"].as_str().map(|why| why.chars().count()), Some(LONGEST_TEXT + 1));
    history.note(Change::at("gone", 1).with("why", "two\n lines\t"));
    assert_eq!(history.read(&Query { most: Some(1), ..Query::default() })[0]["why"], "two lines");
    assert_eq!(newest.as_object().unwrap().keys().collect::<Vec<_>>(), ["at_unix_ms", "what", "why"]);
}

#[tokio::test]
async fn a_restart_goes_on_and_the_files_hold_no_more_than_twice_the_most() {
    let dir = TempDir::new().unwrap();
    assert_eq!(kept(&dir, [1, 2]).await, (vec![2, 1], vec![2, 1]));
    assert_eq!(kept(&dir, [3]).await.1, [3, 2, 1]);
    let (_, after) = kept(&dir, 10..10 + MOST).await;
    assert_eq!((after.len(), after[0], after[MOST - 1]), (MOST, 9 + MOST as u64, 10));
    let (_, after) = kept(&dir, [99_999]).await;
    assert_eq!((after.len(), after[0]), (MOST, 99_999));
    let lines = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap().lines().count();
    assert_eq!((lines("history.jsonl"), lines("history.jsonl.1")), (1, MOST));
}

#[tokio::test]
async fn a_line_that_a_crash_cut_off_is_dropped_and_the_next_is_whole() {
    for cut in [1, 5, 20] {
        let dir = TempDir::new().unwrap();
        kept(&dir, [1, 2]).await;
        let path = dir.path().join("history.jsonl");
        let text = fs::read(&path).unwrap();
        fs::write(&path, &text[..text.len() - cut]).unwrap();
        assert_eq!(kept(&dir, [7]).await.1, [7, 1], "{cut} bytes cut off");
    }
}

#[tokio::test]
async fn a_file_of_anything_else_begins_anew() {
    for rubbish in
        [&b"not json\n"[..], b"{}\n", b"{\"at_unix_ms\":1,\"what\":\"x\"}\n\0\0\0\n", b"\xff\xfe\n", b"[1]\n\n"]
    {
        for name in ["history.jsonl", "history.jsonl.1"] {
            let dir = TempDir::new().unwrap();
            fs::write(dir.path().join(name), rubbish).unwrap();
            assert_eq!(kept(&dir, [3]).await, (vec![3], vec![3]), "{rubbish:?} in {name}");
        }
    }
}

#[tokio::test]
async fn without_its_directory_it_is_in_memory_and_none_is_made() {
    let dir = TempDir::new().unwrap();
    let (history, cancel) = (History::default(), CancellationToken::new());
    let missing = dir.path().join("no/history.jsonl");
    let keeping = tokio::spawn(history.clone().keep(missing.clone(), cancel.clone()));
    numbered(&history, [1]);
    cancel.cancel();
    keeping.await.unwrap().unwrap();
    assert!(!missing.parent().unwrap().exists() && history.extent().0 == 1);
}

#[test]
fn what_cannot_be_written_is_tried_again() {
    let dir = TempDir::new().unwrap();
    let (history, path) = (History::default(), dir.path().join("history.jsonl"));
    fs::create_dir(&path).unwrap(); // which cannot be opened for writing
    let mut file = HistoryFile::new(path.clone());
    numbered(&history, [1, 2]);
    let (text, lines) = history.unwritten();
    file.append(&text, lines).unwrap_err();
    history.give_back(lines);
    fs::remove_dir(&path).unwrap();
    numbered(&history, [3]);
    let (again, lines) = history.unwritten();
    assert!(lines == 3 && again.starts_with(&text));
    file.append(&again, lines).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), again);
}

#[tokio::test]
async fn a_source_is_noted_when_it_fails_and_when_it_is_current_again() {
    let (out, inlet) = crate::watch::channel::<u8>();
    let history = History::default();
    let following = tokio::spawn(history.clone().follow("etcd".into(), inlet, ["away", "back"]));
    let refused = std::io::Error::other("refused");
    out.mark_stale(&refused); // nothing is known yet, so nothing is lost
    out.publish(Arc::new(1));
    for noted in 1..=3 {
        out.mark_stale(&refused);
        while history.count() < 2 * noted - 1 {
            tokio::task::yield_now().await;
        }
        out.mark_stale(&refused);
        out.mark_synced();
        while history.count() < 2 * noted {
            tokio::task::yield_now().await;
        }
    }
    drop(out);
    following.await.unwrap();
    let noted = history.read(&Query { most: Some(2), ..Query::default() });
    let texts = |n: usize| ["what", "name", "why"].map(|key| noted[n][key].as_str().unwrap_or("").to_owned());
    assert_eq!(
        (texts(1), texts(0)),
        (["away", "etcd", "refused"].map(str::to_owned), ["back", "etcd", ""].map(str::to_owned))
    );
}
