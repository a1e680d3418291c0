//! haproxy.cfg and what lies beside it: the candidate, the last good file, the mark of a reload under way.

use std::io::{BufWriter, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use agent::files::{FileError, Replace, beside, replace, replace_with};

use super::state::HaproxyState;
use crate::generators::haproxy::file::edge::RuleMap;
use crate::generators::haproxy::file::layout::{Layout, Retired};
use crate::generators::haproxy::file::server::Server;
use crate::haproxy::process::shortage::is_shortage;

/// The files of one HAProxy.
#[derive(Debug, Clone)]
pub struct ConfigFiles {
    live: PathBuf,
    candidate: PathBuf,
}

/// A file as it was at one moment: each change of the file changes this, too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp {
    file: (u64, u64),
    /// How long it is.
    pub bytes: u64,
    changed: (i64, i64, i64, i64),
}

/// What the disk says about what runs.
#[derive(Debug)]
pub struct OnDisk {
    /// The file, where it is one of ours and was not edited.
    pub layout: Option<Layout>,
    /// Whether that is what runs.
    pub state: HaproxyState,
}

impl ConfigFiles {
    /// The files around this haproxy.cfg.
    pub fn new(live: PathBuf) -> Self {
        let candidate = beside(&live, ".candidate");
        Self { live, candidate }
    }

    /// The same with the candidate elsewhere, on the same file system.
    pub fn with_candidate(mut self, candidate: PathBuf) -> Self {
        self.candidate = candidate;
        self
    }

    /// The rules of the edge, a map file that haproxy.cfg names.
    pub fn rules(&self) -> PathBuf {
        beside(&self.live, ".edge.map")
    }

    /// The same as HAProxy knows it: by the file's name in haproxy.cfg.
    pub fn rules_name(&self) -> String {
        self.rules().display().to_string()
    }

    /// The rules as they are on disk.
    pub fn read_rules(&self) -> Result<Option<RuleMap>, FileError> {
        Ok(read(&self.rules())?.map(|text| RuleMap::parse(&text)))
    }

    /// Replaces the rules on disk; gives the number of their bytes.
    ///
    /// # Errors
    /// [`FileError`]; the old ones stay.
    pub fn write_rules(&self, rules: &RuleMap) -> Result<usize, FileError> {
        let text = rules.render();
        replace(&self.rules(), text.as_bytes(), Replace { mode: Some(0o640), ..Replace::default() })?;
        Ok(text.len())
    }

    /// haproxy.cfg itself.
    pub fn live(&self) -> &Path {
        &self.live
    }

    /// A file that is being tried.
    pub fn candidate(&self) -> PathBuf {
        self.candidate.clone()
    }

    /// The last file that HAProxy loaded.
    pub fn last_good(&self) -> PathBuf {
        beside(&self.live, ".last-good")
    }

    /// The servers that linger in HAProxy, a section and a server's line each.
    fn retired(&self) -> PathBuf {
        beside(&self.live, ".retired")
    }

    /// Notes the servers that linger: their parameters cannot be asked of HAProxy.
    ///
    /// # Errors
    /// [`FileError`]; a restart then knows less, and may need a reload.
    pub fn write_retired(&self, retired: &Retired) -> Result<(), FileError> {
        let line = |section: &str, server: &Server| format!("{section} {server}\n");
        let lines = retired.iter().flat_map(|(section, all)| all.values().map(move |s| line(section, s)));
        replace(
            &self.retired(),
            lines.collect::<String>().as_bytes(),
            Replace { mode: Some(0o640), ..Replace::default() },
        )
    }

    /// The servers noted last; some may have gone since.
    pub fn read_retired(&self) -> Retired {
        let mut retired = Retired::new();
        let text = std::fs::read_to_string(self.retired()).unwrap_or_default();
        for (section, server) in text.lines().filter_map(|line| line.split_once(' ')) {
            if let Some(server) = Server::parse(server) {
                retired.entry(section.into()).or_default().insert(server.name.clone(), server);
            }
        }
        retired
    }

    /// Exists from before a reload until its outcome is known: what runs is in doubt as long as it is there.
    fn mark(&self) -> PathBuf {
        beside(&self.live, ".reloading")
    }

    /// Reads what is there.
    ///
    /// # Errors
    /// [`FileError`] when no file can be opened now: this tells nothing about what is there.
    pub fn read(&self) -> Result<OnDisk, FileError> {
        let text = read(&self.live)?;
        let mut layout = text.as_deref().and_then(Layout::parse);
        if let Some(layout) = &mut layout
            && layout.footer.contains(&self.rules_name())
        {
            layout.rules = self.read_rules()?.map(Arc::new);
        }
        let state = match (&layout, text) {
            _ if self.mark().exists() => HaproxyState::Interrupted,
            (Some(_), _) => HaproxyState::Known,
            (None, Some(_)) => HaproxyState::Edited,
            (None, None) => HaproxyState::Strange,
        };
        Ok(OnDisk { layout, state })
    }

    /// About how many servers the live file has.
    pub fn count_servers(&self) -> usize {
        let text = std::fs::read_to_string(&self.live).unwrap_or_default();
        text.lines().filter(|line| line.trim_start().starts_with("server ")).count()
    }

    /// A file that registrants' words are judged with.
    pub fn probe(&self) -> PathBuf {
        beside(&self.candidate, ".probe")
    }

    /// The texts of the live file and of the last good one, as far as they are there.
    pub fn texts(&self) -> Vec<String> {
        [self.live.clone(), self.last_good()].iter().filter_map(|path| std::fs::read_to_string(path).ok()).collect()
    }

    /// Replaces the live file; gives the number of its bytes.
    ///
    /// # Errors
    /// [`FileError`]; the old file stays.
    pub fn write_live(&self, layout: &Layout) -> Result<usize, FileError> {
        write(&self.live, layout)
    }

    /// Which file is live now, without reading it; `None` where there is none, or a reload was begun.
    pub fn stamp(&self) -> Option<Stamp> {
        let live = std::fs::metadata(&self.live).ok().filter(|_| !self.mark().exists())?;
        let changed = (live.mtime(), live.mtime_nsec(), live.ctime(), live.ctime_nsec());
        Some(Stamp { file: (live.dev(), live.ino()), bytes: live.len(), changed })
    }

    /// Whether their directory is there: without it nothing can be read, and what runs goes on.
    pub fn can_be_there(&self) -> bool {
        self.live.parent().is_some_and(std::path::Path::is_dir)
    }

    /// Writes the candidate.
    pub fn write_candidate(&self, layout: &Layout) -> Result<PathBuf, FileError> {
        let path = self.candidate();
        write(&path, layout)?;
        Ok(path)
    }

    /// Makes the candidate live and keeps what was live as the last good file; marks the reload as begun.
    ///
    /// # Errors
    /// [`FileError`] of the first step that failed; the live file is then the old one, and the last good one whole.
    pub fn promote(&self) -> Result<(), FileError> {
        let private = Replace { mode: Some(0o640), ..Replace::default() };
        let failed = |operation, path: &Path| {
            let path = path.to_owned();
            move |source| FileError::Io { operation, path, source }
        };
        if self.live.exists() {
            let good = std::fs::read(&self.live).map_err(failed("reading", &self.live))?;
            replace(&self.last_good(), &good, private)?;
        }
        replace(&self.mark(), b"A reload was begun; its outcome is not known yet.\n", private)?;
        let renamed = std::fs::rename(self.candidate(), &self.live).map_err(failed("renaming over", &self.live));
        if renamed.is_err() {
            self.settle(); // nothing was begun
        }
        renamed
    }

    /// The reload succeeded.
    pub fn settle(&self) {
        let _ = std::fs::remove_file(self.mark()); // at worst, one needless reload at the next start
    }

    /// The reload failed and the old worker goes on: its file is live again.
    ///
    /// # Errors
    /// [`std::io::Error`]: the mark stays, and the next turn reloads.
    pub fn roll_back(&self) -> std::io::Result<()> {
        if self.last_good().exists() {
            std::fs::copy(self.last_good(), self.candidate())?;
            std::fs::rename(self.candidate(), &self.live)?;
            self.settle();
        }
        Ok(())
    }
}

/// Reads a file that may not be there, or be none of ours.
fn read(path: &Path) -> Result<Option<String>, FileError> {
    match std::fs::read_to_string(path) {
        Err(source) if is_shortage(&source) => {
            Err(FileError::Io { operation: "reading", path: path.to_owned(), source })
        }
        text => Ok(text.ok()),
    }
}

/// Replaces a file by a layout's text, which need not be in one piece for that.
fn write(path: &Path, layout: &Layout) -> Result<usize, FileError> {
    let pieces = layout.pieces();
    replace_with(path, Replace { mode: Some(0o640), ..Replace::default() }, |file| {
        let mut file = BufWriter::with_capacity(64 * 1024, file);
        pieces.iter().try_for_each(|piece| file.write_all(piece.as_bytes()))?;
        file.flush()
    })?;
    Ok(pieces.iter().map(|piece| piece.len()).sum())
}
