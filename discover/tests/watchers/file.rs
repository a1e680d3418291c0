//! `method: file`.

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use discover::watchers::About;
use discover::watchers::file::{File, FileSource};
use discover::watchers::poll::{Pace, Polled};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use testing::watch_contract::{Breakage, Order, Rig, keeps_the_contract};
use tokio::time::Instant;

use super::*;

/// How the source's file changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    Renamed,
    InPlace,
    ConfigMap,
    Directory,
}

struct FileRig {
    dir: tempfile::TempDir,
    style: Style,
    named: Named,
    broken: Option<Breakage>,
}

impl FileRig {
    fn new(style: Style) -> Self {
        let rig = Self { dir: tempfile::tempdir().unwrap(), style, named: Named::default(), broken: None };
        if style == Style::Directory {
            fs::create_dir(rig.watched()).unwrap();
        }
        let mut rig = rig;
        rig.write();
        rig
    }

    fn watched(&self) -> PathBuf {
        self.dir.path().join(if self.style == Style::Directory { "backends" } else { "backends.json" })
    }

    /// Where the files are now: aside while the source is broken.
    fn place(&self) -> PathBuf {
        if self.broken.is_some() { self.dir.path().join("aside") } else { self.watched() }
    }

    fn write(&mut self) {
        let all: Vec<&String> = self.named.at.values().collect();
        let text = json!(all).to_string();
        let place = self.place();
        match self.style {
            Style::InPlace => fs::write(place, text).unwrap(),
            Style::Renamed => renamed(&place, &text),
            Style::ConfigMap => {
                // Made aside where it is broken; the link itself is what breaks.
                let version = self.dir.path().join(format!("..v{}", self.named.count * 100 + all.len() as u32));
                fs::create_dir_all(&version).unwrap();
                renamed(&version.join("backends.json"), &text);
                let _ = fs::remove_file(self.dir.path().join("..new"));
                symlink(version.file_name().unwrap(), self.dir.path().join("..new")).unwrap();
                fs::rename(self.dir.path().join("..new"), self.dir.path().join("..data")).unwrap();
                if fs::symlink_metadata(&place).is_err() {
                    symlink("..data/backends.json", &place).unwrap();
                }
            }
            Style::Directory => {
                for ((service, name), address) in &self.named.at {
                    let file = place.join(format!("{service}-{name}.json"));
                    let text = json!([address]).to_string();
                    if fs::read_to_string(&file).unwrap_or_default() != text {
                        renamed(&file, &text);
                    }
                }
                let kept = |path: &Path| {
                    let stem = path.file_stem().unwrap().to_str().unwrap().to_owned();
                    self.named.at.keys().any(|(service, name)| stem == format!("{service}-{name}"))
                };
                for entry in fs::read_dir(&place).unwrap().map(|e| e.unwrap().path()).filter(|p| !kept(p)) {
                    fs::remove_file(entry).unwrap();
                }
            }
        }
    }
}

fn renamed(path: &Path, text: &str) {
    let temporary = path.with_file_name(".temporary");
    fs::write(&temporary, text).unwrap();
    fs::rename(temporary, path).unwrap();
}

fn about() -> About {
    About { service: "web".parse().unwrap(), port: None, source: "web".into() }
}

/// Looks by its period only each minute: what is seen sooner was signalled.
fn by_signals(path: PathBuf) -> Polled<FileSource> {
    File::new(about(), path, Pace::every(Some(60.0), 60)).polled()
}

impl Rig for FileRig {
    type Watcher = Polled<FileSource>;

    fn watcher(&self) -> Self::Watcher {
        by_signals(self.watched())
    }

    async fn put(&mut self, backends: &[(&str, &str)]) {
        self.named.put(backends, |n| format!("10.0.{}.{}:80", n / 250, n % 250 + 1));
        self.write();
    }

    async fn remove(&mut self, service: &str, name: &str) {
        self.named.remove(service, name);
        self.write();
    }

    async fn break_off(&mut self, how: Breakage) {
        fs::rename(self.watched(), self.dir.path().join("aside")).unwrap();
        if how == Breakage::Hang {
            // A pipe that nobody writes to: whoever opens it waits.
            mkfifo(&self.watched(), Mode::S_IRWXU).unwrap();
        }
        self.broken = Some(how);
    }

    async fn mend(&mut self) {
        if self.broken.take() == Some(Breakage::Hang) {
            fs::remove_file(self.watched()).unwrap();
        }
        fs::rename(self.dir.path().join("aside"), self.watched()).unwrap();
    }

    fn history(&self) -> &History {
        &self.named.history
    }

    fn order(&self) -> Order {
        if self.style == Style::Directory { Order::EachBackend } else { Order::Total }
    }

    fn quiet(&self) -> Duration {
        Duration::from_secs(1)
    }
}

#[tokio::test]
async fn a_file_that_is_replaced_by_renaming_keeps_the_contract() {
    keeps_the_contract(&mut FileRig::new(Style::Renamed)).await;
}

#[tokio::test]
async fn a_file_that_is_written_in_place_keeps_the_contract() {
    keeps_the_contract(&mut FileRig::new(Style::InPlace)).await;
}

#[tokio::test]
async fn a_config_map_keeps_the_contract() {
    keeps_the_contract(&mut FileRig::new(Style::ConfigMap)).await;
}

#[tokio::test]
async fn a_directory_keeps_the_contract() {
    keeps_the_contract(&mut FileRig::new(Style::Directory)).await;
}

#[tokio::test]
async fn file_forms_are_read_from_a_file_and_from_a_directory() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::write(at("a.json"), r#"[{"host": "10.0.0.1", "port": 80, "name": "n", "weight": 7, "labels": {"az": "x"}}]"#)
        .unwrap();
    let mut one = Running::of(json!({"method": "file", "path": at("a.json")}));
    let snapshot = one.until_web(&["10.0.0.1:80"]).await;
    let backend = &snapshot.services["web"].backends()[0];
    assert_eq!(
        (backend.id.as_str(), backend.weight.unwrap().get(), backend.labels["az"].as_str()),
        ("n_10.0.0.1:80", 7, "x")
    );
    let mut all = Running::of(json!({"method": "file", "path": dir.path()}));
    all.until_web(&["10.0.0.1:80"]).await;
    fs::write(at("b.yaml"), "- targets: ['10.0.0.2:80', 'nonsense:x']\n  labels: {az: y}\n").unwrap();
    fs::write(at("c.yml"), "web: ['10.0.0.3:80']\n").unwrap();
    fs::write(at("d.txt"), "['10.0.0.4:80']").unwrap();
    let snapshot = all.until_web(&["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"]).await;
    assert_eq!(left_out(&snapshot), ["web: b.yaml[0].targets[1]: \"nonsense:x\" is not host:port"]);
    one.end().await;
    all.end().await;
}

#[tokio::test]
async fn a_bad_file_of_a_directory_keeps_what_it_said_and_harms_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    for (name, address) in [("a.json", "10.0.0.1:80"), ("b.json", "10.0.0.2:80")] {
        fs::write(at(name), json!([address]).to_string()).unwrap();
    }
    fs::create_dir(at("not-a-file.json")).unwrap();
    let mut watching = Running::of(json!({"method": "file", "path": dir.path()}));
    let snapshot = watching.until_web(&["10.0.0.1:80", "10.0.0.2:80"]).await;
    assert!(left_out(&snapshot)[0].contains("not-a-file.json: not a regular file"), "{:?}", left_out(&snapshot));
    for (bad, why) in [("[\"10.0.0.9:80\",", "line"), ("", "is empty"), ("7", "a number")] {
        fs::write(at("a.json"), bad).unwrap();
        let snapshot = watching.until("a fault", |s| left_out(s).iter().any(|l| l.contains(why))).await;
        assert_eq!(web(&snapshot), ["10.0.0.1:80", "10.0.0.2:80"], "{bad:?}");
    }
    fs::write(at("b.json"), json!(["10.0.0.3:80"]).to_string()).unwrap();
    watching.until_web(&["10.0.0.1:80", "10.0.0.3:80"]).await;
    fs::remove_file(at("a.json")).unwrap();
    watching.until_web(&["10.0.0.3:80"]).await;
    watching.end().await;
}

#[tokio::test]
async fn a_half_written_file_is_not_read_before_its_writer_has_closed_it() {
    let dir = tempfile::tempdir().unwrap();
    let (path, other) = (dir.path().join("a.yaml"), dir.path().join("b.yaml"));
    fs::write(&path, "- 10.0.0.1:80\n").unwrap();
    fs::write(&other, "[]").unwrap();
    let mut watching = Running::of(json!({"method": "file", "path": dir.path(), "check_interval": 0.02}));
    watching.until_web(&["10.0.0.1:80"]).await;
    let mut writer = fs::File::create(&path).unwrap();
    // Each of these is a whole YAML list, and each is wrong. Looks come by the period, and for the other file.
    for n in 2..6 {
        writeln!(writer, "- 10.0.0.{n}:80").unwrap();
        writer.flush().unwrap();
        fs::write(&other, format!("[10.0.1.{n}:80]")).unwrap();
        watching.until_web(&["10.0.0.1:80", &format!("10.0.1.{n}:80")]).await;
    }
    drop(writer);
    watching.until_web(&["10.0.0.2:80", "10.0.0.3:80", "10.0.0.4:80", "10.0.0.5:80", "10.0.1.5:80"]).await;
    watching.end().await;
}

#[tokio::test]
async fn a_file_that_goes_is_stale_and_an_empty_list_is_an_answer() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("web.json");
    let mut watching = Running::of(json!({"method": "file", "path": path}));
    watching.until_seen("pending with a reason", |seen| seen.error().is_some_and(|e| e.contains("web.json"))).await;
    renamed(&path, r#"["10.0.0.1:80"]"#);
    watching.until_web(&["10.0.0.1:80"]).await;
    fs::remove_file(&path).unwrap();
    let stale = watching.until_seen("stale", |seen| seen.standing() == "stale").await;
    assert_eq!(web(stale.snapshot().unwrap()), ["10.0.0.1:80"]);
    renamed(&path, "[]");
    let empty = watching.until("empty", |s| web(s).is_empty()).await;
    assert!(empty.services.contains_key("web"), "an answer, not silence");
    watching.end().await;
}

/// Some file systems signal nothing: what inotify does not tell, the period finds.
#[tokio::test]
async fn without_signals_the_period_finds_changes() {
    let dir = tempfile::tempdir().unwrap();
    let real = dir.path().join("deep/web.json");
    fs::create_dir(dir.path().join("deep")).unwrap();
    fs::write(&real, r#"["10.0.0.1:80"]"#).unwrap();
    let mut watching = Running::of(json!({"method": "file", "path": real, "check_interval": 0.1}));
    watching.until_web(&["10.0.0.1:80"]).await;
    // A plain directory on the way is no signal.
    fs::create_dir(dir.path().join("other")).unwrap();
    fs::write(dir.path().join("other/web.json"), r#"["10.0.0.2:80"]"#).unwrap();
    fs::rename(dir.path().join("deep"), dir.path().join("old")).unwrap();
    fs::rename(dir.path().join("other"), dir.path().join("deep")).unwrap();
    let began = Instant::now();
    watching.until_web(&["10.0.0.2:80"]).await;
    assert!(began.elapsed() < Duration::from_secs(5));
    watching.end().await;
}
