//! HAProxy asked about all its servers, when somebody looks.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use agent::sync::lock;
use agent::telemetry::Chain;
use tokio::time::Instant;

use super::samples::Samples;
use super::seen::Seen;
use crate::generators::haproxy::file::places::Places;
use crate::haproxy::api::runtime::Runtime;
use crate::haproxy::api::socket::{Deadlines, Endpoint, RuntimeSocket};
use crate::haproxy::api::stats::StatRow;

/// The least time between two questions.
const LEAST: Duration = Duration::from_secs(1);
/// For who only watches, the question takes at most this part of the time.
const SHARE: u32 = 50;
/// Who watches sees nothing that is older than this.
const MOST: Duration = Duration::from_secs(30);
/// Who looks does not wait for long.
const PATIENCE: Deadlines = Deadlines { connect: Duration::from_secs(1), reply: Duration::from_secs(2) };

/// Asks HAProxy; clones share the answer.
#[derive(Debug, Clone)]
pub struct Traffic(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    socket: Option<Socket>,
    places: Places,
    /// When it was asked last. Locked while it is asked: who comes meanwhile waits for that answer.
    asked: tokio::sync::Mutex<Option<Instant>>,
    answer: Mutex<Answer>,
    /// How long who only watches does without the next answer.
    pause: Mutex<Duration>,
    /// What the sections counted in the last minutes.
    samples: Mutex<Samples>,
}

/// Where HAProxy's CLIs are.
#[derive(Debug, Clone)]
pub struct Socket {
    /// The runtime API.
    pub runtime: PathBuf,
    /// The master, which passes on what the runtime API cannot be asked.
    pub master: Option<PathBuf>,
}

/// What is known of the running HAProxy.
#[derive(Debug, Clone)]
pub enum Answer {
    /// It is not asked: it is elsewhere, or its config names no socket.
    NotAsked,
    /// It does not answer, and why.
    Silent(String),
    /// What it said last.
    Seen(Arc<Seen>),
}

impl Traffic {
    /// Of the HAProxy behind `socket`, if it can be asked. Does no I/O.
    pub fn new(socket: Option<Socket>, places: Places) -> Self {
        let answer = match socket {
            Some(_) => Answer::Silent("it was not asked yet".to_owned()),
            None => Answer::NotAsked,
        };
        let (asked, answer) = (tokio::sync::Mutex::default(), Mutex::new(answer));
        let (pause, samples) = (Mutex::default(), Mutex::default());
        Self(Arc::new(Shared { socket, places, asked, answer, pause, samples }))
    }

    /// Under which names it has the services.
    pub fn places(&self) -> &Places {
        &self.0.places
    }

    /// What it said last.
    pub fn answer(&self) -> Answer {
        lock(&self.0.answer).clone()
    }

    /// Takes in what the sections counted, and which of them have another number of servers that can take a request.
    pub fn sample(&self, rows: &[StatRow]) {
        lock(&self.0.samples).take(rows, agent::clock::now().as_secs());
    }

    /// What the sections counted in the last minutes.
    pub fn samples(&self) -> std::sync::MutexGuard<'_, Samples> {
        lock(&self.0.samples)
    }

    /// How long who only watches does without a new answer, so that the question takes a small part of the time, however many servers there are.
    pub fn pause(&self) -> Duration {
        *lock(&self.0.pause)
    }

    /// Whether it may be asked by who only watches.
    pub fn is_rested(&self) -> bool {
        self.0.asked.try_lock().is_ok_and(|asked| asked.is_none_or(|at| at.elapsed() >= self.pause()))
    }

    /// Whether its last answer is from before then.
    pub fn is_older_than(&self, then: Instant) -> bool {
        self.0.asked.try_lock().is_ok_and(|asked| asked.is_none_or(|at| at <= then))
    }

    /// Asks it, unless it was asked within the last second.
    pub async fn look(&self) {
        self.ask(LEAST).await;
    }

    /// Asks it, even if it was asked a moment ago: something is known to have changed since.
    pub async fn look_now(&self) {
        self.ask(Duration::ZERO).await;
    }

    async fn ask(&self, least: Duration) {
        let Some(socket) = &self.0.socket else { return };
        let mut asked = self.0.asked.lock().await;
        if asked.is_some_and(|at| at.elapsed() < least) {
            return;
        }
        let began = Instant::now();
        // A session would stay with a worker that a reload replaces, and keep it from ending.
        let once = RuntimeSocket::new(Endpoint::Unix(socket.runtime.clone()), PATIENCE);
        let once = match &socket.master {
            Some(master) => once.with_master(Endpoint::Unix(master.clone())),
            None => once,
        };
        let answer = match Runtime::new(once).servers().await {
            Ok(rows) => Answer::Seen(Arc::new(Seen::of(rows))),
            Err(error) => Answer::Silent(Chain(&error).to_string()),
        };
        *lock(&self.0.answer) = answer;
        *lock(&self.0.pause) = (began.elapsed() * SHARE).min(MOST);
        *asked = Some(Instant::now());
    }
}
