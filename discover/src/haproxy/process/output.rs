//! What HAProxy says, as events of our log: with `source` = `haproxy`, at its own level.
//!
//! It says it to a file, see [`launch`](super::launch); this reads along. The many lines that a worker ends with, one for each proxy, become one.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;
use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

/// Between two looks.
const EVERY: Duration = Duration::from_millis(500);
/// Lines of one look that are passed on. The others are counted: thousands of servers may go down at once.
const MOST: usize = 50;
/// Read at one look, in bytes.
const CHUNK: u64 = 256 << 10;
/// A longer file is emptied once it is read, in bytes: HAProxy appends, and nobody else takes anything away.
const FULL: u64 = 4 << 20;

/// How much it matters, from HAProxy's own word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    /// ALERT, EMERG.
    Error,
    /// WARNING.
    Warn,
    /// NOTICE, DIAG, and what has no word.
    Info,
    /// What discover has just asked for, and what is the same at each start.
    Debug,
}

/// A line of HAProxy's, for the log.
#[derive(Debug, PartialEq, Eq)]
struct Said {
    level: Level,
    pid: Option<i32>,
    text: String,
}

/// What the lines come to.
#[derive(Debug, Default)]
struct Digest {
    /// Lines without a level count, too.
    all: bool,
    /// Proxies that a worker has stopped, and whether one of them since the last [`rest`](Self::rest).
    stopped: BTreeMap<Option<i32>, (usize, bool)>,
    /// Said of a start: once is enough, for each further start would say it again.
    of_starts: BTreeSet<String>,
    passed: usize,
    left_out: usize,
}

impl Digest {
    /// Takes in a line; gives what is to be said of it now.
    fn line(&mut self, line: &str) -> Option<Said> {
        let said = match parse(line) {
            Some(Said { pid, text, .. }) if text.starts_with("Proxy ") && text.contains(" stopped (") => {
                let (count, fresh) = self.stopped.entry(pid).or_default();
                (*count, *fresh) = (*count + 1, true);
                return None;
            }
            Some(said) if said.is_of_a_start() && !self.is_new(&said.text) => return None,
            Some(said) => said,
            None if self.all && !line.trim().is_empty() => {
                Said { level: Level::Info, pid: None, text: line.trim().to_owned() }
            }
            None => return None,
        };
        if self.passed == MOST {
            self.left_out += 1;
            return None;
        }
        self.passed += 1;
        Some(said)
    }

    fn is_new(&mut self, text: &str) -> bool {
        self.of_starts.len() < MOST && self.of_starts.insert(text.to_owned())
    }

    /// What is left to be said at the end of a look.
    fn rest(&mut self) -> Vec<Said> {
        self.passed = 0;
        let left_out = std::mem::take(&mut self.left_out);
        let more = (left_out > 0).then(|| Said {
            level: Level::Warn,
            pid: None,
            text: format!("{left_out} more lines of HAProxy's at the same time, which are only in its own log"),
        });
        let ended = self.stopped.extract_if(.., |_, (_, fresh)| !std::mem::take(fresh));
        let ended = ended.map(|(pid, (proxies, _))| Said {
            level: Level::Info,
            pid,
            text: format!(
                "A worker that was replaced, or told to stop, takes no more clients: {proxies} proxies stopped"
            ),
        });
        more.into_iter().chain(ended).collect()
    }
}

/// A line such as `[WARNING]  (29055) : text`; before 2.4 a date stands before the bracket.
fn parse(line: &str) -> Option<Said> {
    let (word, rest) = line.strip_prefix('[')?.split_once(']')?;
    let level = match word {
        "ALERT" | "EMERG" => Level::Error,
        "WARNING" => Level::Warn,
        "NOTICE" | "DIAG" | "INFO" | "DEBUG" => Level::Info,
        _ => return None,
    };
    let (before, text) = rest.split_once(" : ")?;
    let pid = before.split_once('(').and_then(|(_, pid)| pid.trim_end().trim_end_matches(')').parse().ok());
    let text = text.trim();
    let level = if is_answer(text) { Level::Debug } else { level };
    Some(Said { level, pid, text: text.to_owned() })
}

/// Whether it only repeats what was asked of it over the runtime API, or who it is.
fn is_answer(text: &str) -> bool {
    let begins = ["CLI : ", "haproxy version is ", "path to executable is "].iter().any(|word| text.starts_with(word));
    let of_maintenance = text.starts_with("Server ")
        && ["(leaving forced maintenance)", "is going DOWN for maintenance"].iter().any(|words| text.contains(words));
    let of_a_reload = text.starts_with("Former worker (") && text.contains(") exited with code 0 ");
    begins || of_maintenance || of_a_reload || text == "Server deleted."
}

impl Said {
    /// Such as `[haproxy.main()] …` and `config : …`.
    fn is_of_a_start(&self) -> bool {
        self.text.starts_with('[') || self.text.starts_with("config : ")
    }

    fn say(self) {
        let Self { level, pid, text } = self;
        match level {
            Level::Error => error!(source = "haproxy", pid, "{text}"),
            Level::Warn => warn!(source = "haproxy", pid, "{text}"),
            Level::Info => info!(source = "haproxy", pid, "{text}"),
            Level::Debug => debug!(source = "haproxy", pid, "{text}"),
        }
    }
}

/// What HAProxy says as it loads its configs, where its file is not read along.
#[derive(Debug, Default)]
pub struct Words(Digest);

impl Words {
    /// Passes on what is wrong, in HAProxy's eyes, with a config that it has loaded.
    pub fn hear(&mut self, said: &str) {
        self.objections(said).into_iter().for_each(Said::say);
    }

    fn objections(&mut self, said: &str) -> Vec<Said> {
        let lines = said.lines().filter_map(|line| self.0.line(line));
        let mut objections: Vec<_> = lines.filter(Said::is_of_a_start).collect();
        objections.retain(|said| matches!(said.level, Level::Error | Level::Warn));
        self.0.stopped.clear();
        objections.extend(self.0.rest());
        objections
    }
}

/// HAProxy's file, read up to a place.
#[derive(Debug)]
pub struct HaproxyOutput {
    path: PathBuf,
    at: u64,
    /// The beginning of a line.
    cut: Vec<u8>,
    digest: Digest,
}

impl HaproxyOutput {
    /// From the file's present end; does no other I/O. Lines that are not of HAProxy's own form are passed over: they may be its log of requests.
    pub fn new(path: PathBuf) -> Self {
        let at = std::fs::metadata(&path).map_or(0, |file| file.len());
        Self { path, at, cut: Vec::new(), digest: Digest::default() }
    }

    /// The same, with every line.
    #[must_use]
    pub fn whole(mut self) -> Self {
        self.digest.all = true;
        self
    }

    /// Passes on what comes, until `cancel`.
    pub async fn follow(mut self, cancel: CancellationToken) -> Result<(), Infallible> {
        while cancel.run_until_cancelled(sleep(EVERY)).await.is_some() {
            self.look();
        }
        self.look(); // its last words
        self.digest.rest().into_iter().for_each(Said::say);
        Ok(())
    }

    /// Passes on what has come. A file that is not there has nothing in it.
    pub fn look(&mut self) {
        let fresh = self.read().unwrap_or_default();
        self.cut.extend(fresh);
        let end = self.cut.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let lines: Vec<u8> = self.cut.drain(..end).collect();
        for line in String::from_utf8_lossy(&lines).lines() {
            if let Some(said) = self.digest.line(line) {
                said.say();
            }
        }
        self.digest.rest().into_iter().for_each(Said::say);
    }

    fn read(&mut self) -> io::Result<Vec<u8>> {
        let length = std::fs::metadata(&self.path)?.len();
        if length < self.at {
            (self.at, self.cut) = (0, Vec::new()); // somebody emptied or replaced it
        }
        if length == self.at {
            if length > FULL {
                OpenOptions::new().write(true).open(&self.path)?.set_len(0)?;
                self.at = 0;
            }
            return Ok(Vec::new());
        }
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(self.at))?;
        let mut bytes = Vec::new();
        self.at += file.take(CHUNK).read_to_end(&mut bytes)? as u64;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn said(level: Level, pid: i32, text: &str) -> Said {
        Said { level, pid: Some(pid), text: text.to_owned() }
    }

    #[test]
    fn lines_of_every_version_are_read_and_others_are_none_of_haproxys_own() {
        for (line, wanted) in [
            ("[NOTICE]   (29043) : Loading success.", said(Level::Info, 29043, "Loading success.")),
            (
                "[ALERT]    (1) : config : parsing [h.cfg:5] : no",
                said(Level::Error, 1, "config : parsing [h.cfg:5] : no"),
            ),
            ("[WARNING] 332/080314 (12042) : Exiting", said(Level::Warn, 12042, "Exiting")),
            ("[DIAG]     (7) : x", said(Level::Info, 7, "x")),
            (
                "[WARNING]  (7) : Former worker (8) exited with code 0 (Exit)",
                said(Level::Debug, 7, "Former worker (8) exited with code 0 (Exit)"),
            ),
            (
                "[WARNING]  (7) : Former worker (8) exited with code 139 (Segmentation fault)",
                said(Level::Warn, 7, "Former worker (8) exited with code 139 (Segmentation fault)"),
            ),
            ("[NOTICE]   (7) : Server deleted.", said(Level::Debug, 7, "Server deleted.")),
            (
                "[WARNING]  (7) : Server web/two is going DOWN for maintenance. 1 active",
                said(Level::Debug, 7, "Server web/two is going DOWN for maintenance. 1 active"),
            ),
            (
                "[WARNING]  (7) : Server web/a is DOWN, reason: Layer4 connection problem",
                said(Level::Warn, 7, "Server web/a is DOWN, reason: Layer4 connection problem"),
            ),
        ] {
            assert_eq!(parse(line), Some(wanted), "{line}");
        }
        for line in ["", "127.0.0.1:1 [29/Nov/2026] web web/a 0/0", "[x] y : z", "[ALERT]", "[ALERT] (1)", "   | more"]
        {
            assert_eq!(parse(line), None, "{line}");
        }
    }

    #[test]
    fn the_proxies_that_a_worker_stops_become_one_line_once_no_more_come() {
        let mut digest = Digest::default();
        let stop = |digest: &mut Digest, pid: i32, n: usize| {
            for n in 0..n {
                let line = format!("[WARNING]  ({pid}) : Proxy p{n} stopped (cumulated conns: FE: 0, BE: 0).");
                assert_eq!(digest.line(&line), None);
            }
        };
        stop(&mut digest, 5, 900);
        assert_eq!(digest.rest(), []);
        stop(&mut digest, 5, 100);
        stop(&mut digest, 6, 1);
        assert_eq!(digest.rest(), []);
        let told: Vec<_> = digest.rest().into_iter().map(|said| (said.pid, said.text)).collect();
        assert!(told[0].1.contains("1000 proxies") && told[1].1.contains("1 proxies"), "{told:?}");
        assert_eq!(told.iter().map(|(pid, _)| *pid).collect::<Vec<_>>(), [Some(5), Some(6)]);
        assert_eq!(digest.rest(), []);
    }

    #[test]
    fn what_each_start_says_again_is_said_once_and_what_happens_each_time() {
        let mut digest = Digest::default();
        let mut said = |text: &str| digest.line(&format!("[WARNING]  (1) : {text}")).is_some();
        let (limit, down) = ("[haproxy.main()] Cannot raise FD limit to 9.", "Server web/a is DOWN, reason: timeout");
        assert_eq!([limit, down, limit, down].map(&mut said), [true, true, false, true]);
        assert!(said("[haproxy.main()] Cannot raise FD limit to 8."));
    }

    #[test]
    fn of_a_reload_only_objections_are_passed_on_and_each_once() {
        let mut words = Words::default();
        let stops = "[WARNING]  (1) : Proxy one stopped (cumulated conns: FE: 0, BE: 0).\n".repeat(100);
        let said = format!("[NOTICE]   (1) : Reloading HAProxy\n{stops}[WARNING]  (1) : config : missing timeouts");
        assert_eq!(words.objections(&said), [self::said(Level::Warn, 1, "config : missing timeouts")]);
        assert_eq!(words.objections(&said), []);
    }

    #[test]
    fn of_a_flood_the_first_lines_are_passed_on_and_the_rest_is_counted() {
        let mut digest = Digest::default();
        let passed = (0..1_000).filter_map(|n| digest.line(&format!("[WARNING]  (1) : Server a/s{n} is DOWN"))).count();
        assert_eq!(passed, MOST);
        assert!(digest.rest()[0].text.starts_with("950 more lines"));
        assert!(digest.line("[WARNING]  (1) : Server a/b is UP").is_some());
        assert_eq!(digest.rest(), []);
    }

    #[test]
    fn a_file_is_read_from_where_it_ended_line_by_line_and_emptied_when_it_is_long() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("haproxy.log");
        std::fs::write(&path, "[ALERT] (1) : old\n").unwrap();
        let mut output = HaproxyOutput::new(path.clone());
        let mut append = OpenOptions::new().append(true).open(&path).unwrap();
        let read = |output: &mut HaproxyOutput| String::from_utf8(output.read().unwrap()).unwrap();
        assert_eq!(read(&mut output), "");
        append.write_all(b"[ALERT] (1) : new\n[ALE").unwrap();
        assert_eq!(read(&mut output), "[ALERT] (1) : new\n[ALE");
        append.write_all(&vec![b'x'; usize::try_from(FULL).unwrap()]).unwrap();
        while !read(&mut output).is_empty() {}
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 0);
        append.write_all(b"after\n").unwrap();
        assert_eq!(read(&mut output), "after\n", "who appends goes on at the new end");
        std::fs::write(&path, "n\n").unwrap();
        assert_eq!(read(&mut output), "n\n", "another one has shortened it");
        std::fs::remove_file(&path).unwrap();
        output.look();
    }
}
