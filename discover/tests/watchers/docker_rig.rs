//! Containers of a scripted daemon as the contract's suite wants them, whichever watcher reads them.

use testing::docker_api::{DockerApi, event, running};
use testing::watch_contract::{Breakage, Order, Rig};

use super::*;

/// Backends that are containers; `W` is the watcher under test.
pub struct DockerRig<W> {
    api: DockerApi,
    watcher: fn(&DockerApi) -> W,
    /// The service that shows a backend of this one: its own, or the one that a watcher of one service knows.
    shown_by: fn(&str) -> &str,
    history: History,
    /// The container of each service and name.
    at: BTreeMap<(String, String), usize>,
    count: usize,
}

/// Where container `number` is published.
pub fn address(number: usize) -> String {
    format!("127.0.0.1:{}", 10_000 + number)
}

impl<W> DockerRig<W> {
    pub fn new(watcher: fn(&DockerApi) -> W, shown_by: fn(&str) -> &str) -> Self {
        let (history, at) = (History::default(), BTreeMap::new());
        Self { api: DockerApi::start(), watcher, shown_by, history, at, count: 0 }
    }

    fn stop(&mut self, service: &str, name: &str) {
        let Some(number) = self.at.remove(&(service.to_owned(), name.to_owned())) else { return };
        self.note();
        self.api.remove(number);
        self.api.emit(&[event(number, "die"), event(number, "destroy")]);
    }

    fn note(&mut self) {
        let (at, shown_by) = (&self.at, self.shown_by);
        self.history.record(|pools| {
            pools.clear();
            for ((service, _), number) in at {
                pools.entry(shown_by(service).to_owned()).or_default().insert(address(*number));
            }
        });
    }
}

impl<W: Watcher<Snapshot>> Rig for DockerRig<W> {
    type Watcher = W;

    fn watcher(&self) -> W {
        (self.watcher)(&self.api)
    }

    async fn put(&mut self, backends: &[(&str, &str)]) {
        for (service, name) in backends {
            self.stop(service, name);
            self.count += 1;
            let number = self.count;
            self.at.insert(((*service).to_owned(), (*name).to_owned()), number);
            self.note();
            self.api.put(running(number, &format!("example/{}:1", (self.shown_by)(service))));
            self.api.emit(&[event(number, "create"), event(number, "start")]);
        }
    }

    async fn remove(&mut self, service: &str, name: &str) {
        self.stop(service, name);
    }

    async fn break_off(&mut self, how: Breakage) {
        match how {
            Breakage::Fail => self.api.go_away(),
            Breakage::Hang => self.api.hang(true),
        }
    }

    async fn mend(&mut self) {
        self.api.hang(false);
        self.api.go_away();
        self.api.listen();
    }

    fn history(&self) -> &History {
        &self.history
    }

    fn order(&self) -> Order {
        Order::EachBackend
    }

    fn quiet(&self) -> Duration {
        Duration::from_secs(2)
    }
}
