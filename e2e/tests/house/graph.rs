//! A crate's files and what each takes from which, read from its text: `use` lines, and paths that begin with `crate` or `super`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// A module by its path within the crate; empty: the crate's root.
pub type Module = Vec<String>;

/// Which file takes something from which.
pub struct Graph {
    pub arrows: BTreeMap<Module, BTreeSet<Module>>,
}

/// What a `use` names, and whether it is shown to others.
struct Use {
    shown: bool,
    path: Vec<String>,
}

/// All files below `directory` that are no tests.
pub fn sources(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).expect("a source directory").flatten() {
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        match path.is_dir() {
            true if name != "tests" && name != "bin" => found.extend(sources(&path)),
            false if name.ends_with(".rs") && !name.ends_with("tests.rs") && name != "main.rs" => found.push(path),
            _ => {}
        }
    }
    found
}

/// A file's code without its comments and its tests.
pub fn code(file: &Path) -> String {
    let text = fs::read_to_string(file).expect("a source file");
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    text.lines().filter(|line| !line.trim_start().starts_with("//")).map(|line| format!("{line}\n")).collect()
}

impl Graph {
    /// Of the crate in `directory`.
    pub fn of(directory: &Path) -> Self {
        let root = directory.join("src");
        let named = |file: &PathBuf| (module_of(&root, file), uses(&code(file)));
        let files: BTreeMap<Module, Vec<Use>> = sources(&root).iter().map(named).collect();
        let mut shown = BTreeMap::new();
        for (module, uses) in &files {
            for named in uses.iter().filter(|named| named.shown) {
                if let (Some(from), Some(name)) = (resolve(&files, &shown, module, &named.path), named.path.last()) {
                    shown.insert((module.clone(), name.clone()), from);
                }
            }
        }
        let mut arrows = BTreeMap::new();
        for (module, uses) in &files {
            let taken = uses.iter().filter_map(|named| {
                let from = resolve(&files, &shown, module, &named.path)?;
                // A folder's own file and the files in the folder are one room.
                let one_room = from.starts_with(module) || module.starts_with(&from);
                (files.contains_key(&from) && !one_room).then_some(from)
            });
            arrows.insert(module.clone(), taken.collect());
        }
        Self { arrows }
    }

    /// The files that lead back to themselves, together with those on the way.
    pub fn circles(&self) -> Vec<BTreeSet<Module>> {
        let reach: BTreeMap<&Module, BTreeSet<&Module>> = self.arrows.keys().map(|m| (m, self.reach(m))).collect();
        let mut circles: Vec<BTreeSet<Module>> = Vec::new();
        for (module, reached) in &reach {
            let back = |other: &&&Module| reach.get(**other).is_some_and(|far| far.contains(module));
            let circle: BTreeSet<Module> = reached.iter().filter(back).map(|m| (*m).clone()).collect();
            if reached.contains(module) && !circles.contains(&circle) {
                circles.push(circle);
            }
        }
        circles
    }

    fn reach(&self, from: &Module) -> BTreeSet<&Module> {
        let mut reached = BTreeSet::new();
        let mut next: Vec<&Module> = self.arrows.get(from).into_iter().flatten().collect();
        while let Some(module) = next.pop() {
            if reached.insert(module) {
                next.extend(self.arrows.get(module).into_iter().flatten());
            }
        }
        reached
    }
}

fn module_of(root: &Path, file: &Path) -> Module {
    let path = file.strip_prefix(root).expect("a file of the crate").with_extension("");
    let mut module: Module = path.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    module.pop_if(|last| matches!(last.as_str(), "mod" | "lib"));
    module
}

/// The module in which what a path names is defined, as far as file names tell; `None` for another crate's.
fn resolve(
    files: &BTreeMap<Module, Vec<Use>>,
    shown: &BTreeMap<(Module, String), Module>,
    module: &Module,
    path: &[String],
) -> Option<Module> {
    let (mut at, mut rest) = match path.first().map(String::as_str)? {
        "crate" => (Module::new(), path.get(1..)?),
        "self" => (module.clone(), path.get(1..)?),
        "super" => (module.clone(), path),
        child if files.contains_key(&[module.as_slice(), &[child.to_owned()]].concat()) => (module.clone(), path),
        _ => return None,
    };
    while let [first, others @ ..] = rest {
        let child = [at.as_slice(), std::slice::from_ref(first)].concat();
        if first == "super" {
            at.pop();
        } else if files.contains_key(&child) {
            at = child;
        } else {
            return Some(shown.get(&(at.clone(), first.clone())).cloned().unwrap_or(at));
        }
        rest = others;
    }
    Some(at)
}

fn uses(code: &str) -> Vec<Use> {
    let mut found = Vec::new();
    let mut rest = String::new();
    let mut text = code;
    while let Some((before, after)) = text.split_once("use ") {
        let line = before.rsplit('\n').next().unwrap_or_default().trim();
        let begins = line.is_empty() || line.starts_with("pub");
        let Some((tree, next)) = after.split_once(';').filter(|_| begins) else {
            rest.push_str(before);
            rest.push_str("use ");
            text = after;
            continue;
        };
        rest.push_str(before);
        for path in tree_paths("", tree) {
            let path = path.split(" as ").next().unwrap_or_default();
            found.push(Use { shown: line.starts_with("pub"), path: words(path) });
        }
        text = next;
    }
    rest.push_str(text);
    let named = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    for path in rest.split(|c| !named(c)).filter(|word| word.starts_with("crate::") || word.starts_with("super::")) {
        found.push(Use { shown: false, path: words(path) });
    }
    found
}

fn words(path: &str) -> Vec<String> {
    path.split("::").map(str::trim).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// `a::{b, c::{d, e}}` as `a::b`, `a::c::d`, `a::c::e`.
fn tree_paths(prefix: &str, tree: &str) -> Vec<String> {
    let (mut depth, mut part, mut parts) = (0_u32, String::new(), Vec::new());
    for c in tree.chars() {
        match c {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(std::mem::take(&mut part));
                continue;
            }
            _ => {}
        }
        part.push(c);
    }
    parts.push(part);
    let expand = |part: String| match part.trim().split_once('{') {
        Some((head, tail)) => tree_paths(&format!("{prefix}{head}"), tail.trim_end().strip_suffix('}').unwrap_or(tail)),
        None if part.trim().is_empty() => Vec::new(),
        None => vec![format!("{prefix}{}", part.trim())],
    };
    parts.into_iter().flat_map(expand).collect()
}
