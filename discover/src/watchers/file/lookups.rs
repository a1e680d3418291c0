//! In which directories a path is looked up: where a change of a name changes what the path leads to.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

/// As many links as Linux itself follows (`path_resolution(7)`).
const MOST_LINKS: usize = 40;

/// Names by the directory in which they matter; `None`: every name does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lookups(pub BTreeMap<PathBuf, Option<BTreeSet<OsString>>>);

impl Lookups {
    /// Of a file: its own directory, and each one with a link on the way. Of a directory: itself too, and the ways of its
    /// files. Blocks.
    pub fn of(path: &Path) -> Self {
        let mut all = Self::default();
        let real = all.follow(path);
        if let Ok(entries) = std::fs::read_dir(&real) {
            all.0.insert(real, None);
            let links = entries.filter_map(Result::ok).filter(|e| e.file_type().is_ok_and(|t| t.is_symlink()));
            for link in links {
                all.follow(&link.path());
            }
        }
        all
    }

    /// Notes each lookup that may change; gives where the path leads.
    fn follow(&mut self, path: &Path) -> PathBuf {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let mut rest: VecDeque<OsString> = parts(&path);
        let mut at = PathBuf::from("/");
        let mut links = 0;
        while let Some(name) = rest.pop_front() {
            if name == ".." {
                at.pop();
                continue;
            }
            let next = at.join(&name);
            let link = std::fs::read_link(&next).ok().filter(|_| links < MOST_LINKS);
            // A plain directory on the way is not watched: its parents may be as busy as /tmp, and it is never swapped.
            if (link.is_some() || rest.is_empty() || !next.exists())
                && let Some(names) = self.0.entry(at.clone()).or_insert_with(|| Some(BTreeSet::new()))
            {
                names.insert(name);
            }
            match link {
                None => at = next,
                Some(to) => {
                    links += 1;
                    if to.is_absolute() {
                        at = PathBuf::from("/");
                    }
                    for part in parts(&to).into_iter().rev() {
                        rest.push_front(part);
                    }
                }
            }
        }
        at
    }
}

fn parts(path: &Path) -> VecDeque<OsString> {
    let part = |c: Component<'_>| match c {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    };
    path.components().filter_map(part).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn every_link_on_the_way_is_covered_and_plain_parents_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("plain/..1")).unwrap();
        fs::write(root.join("plain/..1/f.json"), "[]").unwrap();
        symlink("..1", root.join("plain/..data")).unwrap();
        symlink("..data/f.json", root.join("plain/f.json")).unwrap();
        let names = |names: &[&str]| Some(names.iter().map(OsString::from).collect::<BTreeSet<_>>());
        let of_file = Lookups::of(&root.join("plain/f.json"));
        let want = [(root.join("plain"), names(&["..data", "f.json"])), (root.join("plain/..1"), names(&["f.json"]))];
        assert_eq!(of_file.0, want.clone().into());
        let of_dir = Lookups::of(&root.join("plain"));
        let want = [(root.clone(), names(&["plain"])), (root.join("plain"), None), want[1].clone()];
        assert_eq!(of_dir.0, want.into());
        let missing = Lookups::of(&root.join("no/such/f.json"));
        assert!(missing.0.contains_key(&root), "the first that is missing may come: {missing:?}");
        symlink("b", root.join("a")).unwrap();
        symlink("a", root.join("b")).unwrap();
        assert_eq!(Lookups::of(&root.join("a")).0, [(root.clone(), names(&["a", "b"]))].into(), "a circle ends");
    }
}
