//! The last answer to each question of one watcher. A question that fails keeps its last answer, alone: the others go on.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use agent::telemetry::Chain;
use futures_util::StreamExt;
use futures_util::stream;

use super::resolver::{AskError, Found, Question, RecordKind, Resolver};

/// How many questions are under way at once.
const AT_ONCE: usize = 16;
/// How often a name that never answered is waited for before the first answer goes on without it.
const WAITED_FOR: u32 = 3;

/// Why a round of questions is no answer.
#[derive(Debug, thiserror::Error)]
pub enum NamesError {
    #[error("none of {questions} questions is answered; the first")]
    None { questions: usize, source: AskError },
    /// At the start: too soon to go on without it.
    #[error("waiting for a first answer")]
    First(#[source] AskError),
}

/// What a round brought.
#[derive(Debug, Default)]
pub struct Round {
    /// Questions that failed, and how; where there is an older answer it stands.
    pub failed: BTreeMap<String, String>,
    /// The shortest TTL of all answers.
    pub good_for: Option<Duration>,
}

/// Asks, and remembers.
#[derive(Debug)]
pub struct DnsNames {
    resolver: Resolver,
    known: HashMap<Question, Vec<Found>>,
    /// A whole round has been answered, or waited for long enough.
    begun: bool,
    waited: u32,
    asked: HashSet<Question>,
    failed: Vec<(Question, AskError)>,
    good_for: Option<Duration>,
}

impl DnsNames {
    /// Nothing is known yet.
    pub fn new(resolver: Resolver) -> Self {
        Self {
            resolver,
            known: HashMap::new(),
            begun: false,
            waited: 0,
            asked: HashSet::new(),
            failed: Vec::new(),
            good_for: None,
        }
    }

    /// Begins a round.
    pub fn begin(&mut self) {
        self.asked.clear();
        self.failed.clear();
        self.good_for = None;
    }

    /// Asks what was not asked in this round.
    pub async fn ask(&mut self, questions: impl IntoIterator<Item = Question>) {
        let new: Vec<Question> = questions.into_iter().filter(|q| self.asked.insert(q.clone())).collect();
        let resolver = &self.resolver;
        let ask = |question: Question| async move { (resolver.ask(&question).await, question) };
        let mut answers = stream::iter(new).map(ask).buffered(AT_ONCE);
        while let Some((answer, question)) = answers.next().await {
            match answer {
                Ok(answer) => {
                    self.good_for = self.good_for.into_iter().chain(answer.good_for).min();
                    self.known.insert(question, answer.found);
                }
                Err(error) => self.failed.push((question, error)),
            }
        }
    }

    /// Both kinds of addresses of a host; none where it is an address itself.
    pub fn of_host(host: &str) -> Vec<Question> {
        if host.parse::<IpAddr>().is_ok() {
            return Vec::new();
        }
        let name: Arc<str> = host.into();
        [RecordKind::A, RecordKind::Aaaa].map(|kind| Question { name: name.clone(), kind }).into()
    }

    /// The last answer to a question.
    pub fn answer(&self, question: &Question) -> &[Found] {
        self.known.get(question).map_or(&[], Vec::as_slice)
    }

    /// The addresses of a host, of both kinds, in the order of their texts (as Synapse has them), each once.
    pub fn addresses(&self, host: &str) -> Vec<IpAddr> {
        if let Ok(address) = host.parse() {
            return vec![address];
        }
        let questions = Self::of_host(host);
        let found = questions.iter().flat_map(|q| self.answer(q));
        let mut all: Vec<IpAddr> =
            found.filter_map(|f| if let Found::Address(ip) = f { Some(*ip) } else { None }).collect();
        all.sort_by_cached_key(ToString::to_string);
        all.dedup();
        all
    }

    /// Ends a round: what was not asked is forgotten.
    ///
    /// # Errors
    /// [`NamesError`] when there is no answer at all, or (for a few rounds at the start) not every one.
    pub fn end(&mut self) -> Result<Round, NamesError> {
        let questions = self.asked.len();
        if questions > 0 && self.failed.len() == questions {
            return Err(NamesError::None { questions, source: self.failed.swap_remove(0).1 });
        }
        let unknown = self.failed.iter().position(|(question, _)| !self.known.contains_key(question));
        if let Some(at) = unknown.filter(|_| !self.begun && self.waited < WAITED_FOR) {
            self.waited += 1;
            return Err(NamesError::First(self.failed.swap_remove(at).1));
        }
        self.begun = true;
        self.known.retain(|question, _| self.asked.contains(question));
        let failed = self.failed.drain(..).map(|(question, error)| (question.to_string(), Chain(&error).to_string()));
        Ok(Round { failed: failed.collect(), good_for: self.good_for })
    }
}
