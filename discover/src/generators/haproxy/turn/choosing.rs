//! A turn's choice of ports: who listens where, given what HAProxy listens on now.

use std::collections::BTreeSet;

use model::ServiceName;
use tokio::time::Instant;

use super::generator::Haproxy;
use super::state::HaproxyState;
use crate::generators::haproxy::file::binds::Listening;
use crate::reconcile::Desired;

impl Haproxy {
    /// Gives each service its port.
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
        note.unlisted = chosen.unlisted.iter().map(|(s, r)| (s.clone(), r.to_string())).collect();
        note.disputed = chosen.disputed.iter().map(|(s, what)| (s.clone(), what.to_string())).collect();
        note.stats_taken = chosen.stats_taken;
    }

    /// Services that are in another's way and have no backend that is registered or works. Where HAProxy cannot be asked, a held
    /// backend is taken to work.
    async fn absent(&mut self, desired: &Desired, now: Instant) -> BTreeSet<ServiceName> {
        let in_the_way = self.desk.in_the_way(desired, now);
        match in_the_way.is_empty() {
            true => in_the_way,
            false => self.connection.without_working_server(in_the_way).await,
        }
    }
}
