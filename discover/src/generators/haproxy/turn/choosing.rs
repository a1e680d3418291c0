//! A turn's choice of ports: who listens where, given what HAProxy listens on now.

use std::collections::BTreeSet;

use common::model::ServiceName;

use super::generator::Haproxy;
use super::plan::ReloadReason;
use crate::generators::haproxy::file::binds::Listening;
use crate::generators::haproxy::file::published::Published;
use crate::reconcile::Desired;

impl Haproxy {
    /// Gives each service its port.
    pub(super) async fn choose_ports(&mut self, desired: &Desired) {
        let Some(settings) = self.settings.clone() else { return };
        let absent = self.absent(desired).await;
        let texts;
        let listening = match (self.connection.local(), self.applied.unknown) {
            (false, _) => Listening::Elsewhere,
            (true, None | Some(ReloadReason::Interrupted | ReloadReason::Refused)) => {
                Listening::Layout(&self.applied.layout)
            }
            (true, Some(_)) if self.verify_at.is_some() || self.runs_silently => {
                texts = self.files.texts();
                Listening::Files(&texts)
            }
            (true, Some(_)) => Listening::Nothing,
        };
        self.binds.choose(&desired.services, &settings, &listening, &absent, self.now);
        let chosen = self.binds.chosen();
        let mut note = self.note();
        note.unlisted = chosen.unlisted.iter().map(|(s, r)| (s.clone(), r.to_string())).collect();
        note.disputed = chosen.disputed.iter().map(|(s, what)| (s.clone(), what.to_string())).collect();
        note.stats_taken = chosen.stats_taken;
    }

    /// Services that are in another's way and have no backend that is registered or works. Where HAProxy cannot be asked, a held
    /// backend is taken to work.
    async fn absent(&mut self, desired: &Desired) -> BTreeSet<ServiceName> {
        let in_the_way = self.binds.in_the_way(&desired.unregistered());
        self.binds.ask_again(!in_the_way.is_empty(), self.now);
        match in_the_way.is_empty() {
            true => in_the_way,
            false => self.connection.without_working_server(in_the_way).await,
        }
    }

    /// Keeps off the ports that containers of this host publish.
    pub fn keep_off(&mut self, published: Published) {
        self.binds.keep_off(published);
    }
}
