//! Sections whose structure HAProxy refused: a new one is left out, one that runs keeps its form. Pure, with injected time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::time::Instant;

use super::again::{Again, KEPT, REFUSED_FOR};
use super::trial::in_form_of;
use crate::generators::haproxy::file::layout::{Layout, Section};

/// The refused structures, by section.
#[derive(Debug, Default)]
pub struct Misfits {
    of: BTreeMap<Arc<str>, Misfit>,
    /// Those of them that are left out, or kept in an older form.
    out: BTreeSet<Arc<str>>,
}

#[derive(Debug)]
struct Misfit {
    skeleton: Arc<str>,
    /// The form in which it ran.
    instead: Option<Arc<Section>>,
    why: String,
    again: Again,
}

impl Misfits {
    /// Takes out of `layout` the sections whose structure was refused, or puts their running form there. Gives their names.
    pub fn leave_out(&self, layout: &mut Layout, running: &Layout, now: Instant) -> BTreeSet<Arc<str>> {
        let mut out = BTreeSet::new();
        if self.of.is_empty() {
            return out;
        }
        layout.sections.retain_mut(|section| {
            let misfit = self.of.get(&section.name).filter(|misfit| misfit.skeleton == section.skeleton);
            let Some(misfit) = misfit.filter(|misfit| !misfit.again.is_due(now)) else { return true };
            out.insert(section.name.clone());
            let before = running.sections.iter().find(|before| before.name == section.name);
            let before = before.or(misfit.instead.as_ref());
            before.map(|before| *section = in_form_of(section, before)).is_some()
        });
        out
    }

    /// These are out now; tells whether others were before.
    pub fn are_out(&mut self, out: BTreeSet<Arc<str>>) -> bool {
        std::mem::replace(&mut self.out, out) != self.out
    }

    /// HAProxy refused the structure of `section`, which goes on as `instead`. Tells whether that is new.
    pub fn refused(&mut self, section: &Section, instead: Option<Arc<Section>>, why: String, now: Instant) -> bool {
        let known = self.of.get(&section.name).filter(|misfit| misfit.skeleton == section.skeleton);
        let again = known.map_or(Again::now(now), |misfit| misfit.again).later(now, REFUSED_FOR);
        let is_new = known.is_none();
        self.of.insert(section.name.clone(), Misfit { skeleton: section.skeleton.clone(), instead, why, again });
        is_new
    }

    /// All are tried again: what made them wrong may be elsewhere, and there something changed.
    pub fn hurry(&mut self, now: Instant) {
        self.of.values_mut().for_each(|misfit| misfit.again.hurry(now));
    }

    /// Forgets those that nobody wants, where there are too many.
    pub fn forget_unused(&mut self) {
        if self.of.len() > KEPT {
            self.of.retain(|name, _| self.out.contains(name));
        }
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.of.clear();
    }

    /// What is out, and why.
    pub fn reasons(&self) -> impl Iterator<Item = (String, String)> {
        self.out.iter().filter_map(|name| Some((name.to_string(), self.of.get(name)?.why.clone())))
    }
}
