//! A turn's choice of ports: who listens where, given what HAProxy listens on now.

use std::collections::BTreeSet;

use tokio::time::Instant;

use super::generator::Haproxy;
use super::state::HaproxyState;
use crate::generators::haproxy::file::binds::Listening;
use crate::generators::haproxy::file::ports::{PortNote, ServicePort};
use crate::reconcile::Desired;

impl Haproxy {
    /// Gives each service its ports.
    pub(super) async fn choose_ports(&mut self, desired: &Desired, now: Instant) {
        if !self.desk.chooses_ports() {
            return;
        }
        let absent = self.absent(desired, now).await;
        let texts;
        let listening = match self.applied.state {
            _ if !self.connection.local() => Listening::Elsewhere,
            HaproxyState::Away => Listening::Nothing,
            HaproxyState::Silent | HaproxyState::Strange | HaproxyState::Edited => {
                texts = self.disk.files.texts();
                Listening::Files(&texts)
            }
            HaproxyState::Interrupted | HaproxyState::Loaded | HaproxyState::Known | HaproxyState::Refused => {
                Listening::Layout(&self.applied.layout)
            }
        };
        self.desk.choose_ports(desired, &listening, &absent, now);
        let chosen = self.desk.ports();
        let mut note = self.note();
        note.unlisted = chosen.unlisted.iter().map(|(s, r)| (s.clone(), chosen.why_unlisted(s, r))).collect();
        let in_words = |notes: &Vec<PortNote>| notes.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        note.disputed = chosen.notes.iter().map(|(s, notes)| (s.clone(), in_words(notes))).collect();
        note.stats_taken = chosen.stats_taken;
    }

    /// Service ports that are in another's way and have no backend that is registered or works. Where HAProxy cannot be asked, a held
    /// backend is taken to work.
    async fn absent(&mut self, desired: &Desired, now: Instant) -> BTreeSet<ServicePort> {
        let in_the_way = self.desk.in_the_way(desired, now);
        if in_the_way.is_empty() {
            return BTreeSet::new();
        }
        let sections = in_the_way.iter().map(|(section, _)| section.clone()).collect();
        let idle = self.connection.without_working_server(sections).await;
        in_the_way.into_iter().filter(|(section, _)| idle.contains(section)).map(|(_, at)| at).collect()
    }
}
