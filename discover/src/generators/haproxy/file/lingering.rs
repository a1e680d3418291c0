//! Sections of services that are gone: they stay, empty, for a while, so that a service whose last container restarts costs
//! no reload. Pure, with injected time.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::layout::{Layout, Section};

/// Until when each section without a service stays.
#[derive(Debug, Default)]
pub struct Lingering(HashMap<Arc<str>, Instant>);

impl Lingering {
    /// Adds to `layout` the sections of `applied` that are to stay. `wanted_by_another` tells whether another service wants
    /// a section's place: that one has it at once.
    pub fn keep(
        &mut self,
        layout: &mut Layout,
        applied: &Layout,
        stay: Duration,
        now: Instant,
        wanted_by_another: impl Fn(&Section) -> bool,
    ) {
        let same = |(a, b): (&Arc<Section>, &Arc<Section>)| Arc::ptr_eq(a, b) || a.name == b.name;
        if self.0.is_empty()
            && layout.sections.len() == applied.sections.len()
            && layout.sections.iter().zip(&applied.sections).all(same)
        {
            return;
        }
        let wanted: BTreeSet<&str> = layout.sections.iter().map(|s| &*s.name).collect();
        self.0.retain(|name, _| !wanted.contains(&**name));
        let mut kept = Vec::new();
        for section in &applied.sections {
            if wanted.contains(&*section.name) || wanted_by_another(section) {
                continue;
            }
            if *self.0.entry(section.name.clone()).or_insert(now + stay) > now {
                kept.push(match section.servers.is_empty() {
                    true => section.clone(),
                    false => Arc::new(Section { servers: Vec::new(), ..(**section).clone() }),
                });
            }
        }
        if !kept.is_empty() {
            layout.sections.extend(kept);
            layout.sections.sort_by(|a, b| a.name.cmp(&b.name));
        }
    }

    /// Forgets the sections that are not loaded any more.
    pub fn loaded(&mut self, layout: &Layout) {
        self.0.retain(|name, _| layout.sections.iter().any(|s| s.name == *name));
    }

    /// When a section's time is up; one whose time is up already waits for the reload, which has its own time.
    pub fn next_end(&self, now: Instant) -> Option<Instant> {
        self.0.values().filter(|at| **at > now).min().copied()
    }
}
