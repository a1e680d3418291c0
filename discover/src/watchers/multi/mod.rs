//! `method: multi` (and `discovery_multi`): several watchers for one service, and a resolver that makes one answer of theirs.
//!
//! A resolver is one file here and one line in [`RESOLVERS`].

mod ask;
mod preference;
mod s3_toggle;
mod union;

use std::fmt;
use std::sync::Arc;

use agent::watch::{Observation, Outlet, channel};
use model::Pool;
use registry::Snapshot;
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;

pub use ask::Ask;

use super::group::{Group, Resolve};
use super::methods::AnyMethod;
use super::teller::{Standing, Teller};
use super::{About, AnyWatcher, BoxWatcher, Context, Fault, Faults, Method, MethodInput};
use crate::reconcile::passes;
use crate::synapse::types::{Discovery, LabelFilter};

/// A resolver made of its keys; it does no I/O before it is asked for changes.
type Make = fn(&Ask<'_>) -> Result<Box<dyn Resolve>, Fault>;

/// Every resolver, by its word.
pub const RESOLVERS: &[(&str, Make)] = &[
    ("base", union::nothing),
    ("union", union::union),
    ("sequential", preference::sequential),
    ("fallback", preference::fallback),
    ("s3_toggle", s3_toggle::s3_toggle),
];

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Keys {
    watchers: Map<String, Value>,
    resolver: Map<String, Value>,
}

/// One of the watchers.
#[derive(Debug)]
struct Child {
    name: Arc<str>,
    method: AnyMethod,
    filters: Vec<LabelFilter>,
}

/// Several watchers of one service.
pub struct Multi {
    about: About,
    children: Vec<Child>,
    keys: Map<String, Value>,
    names: Vec<Arc<str>>,
    make: Make,
}

impl fmt::Debug for Multi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Multi").field("children", &self.children).field("resolver", &self.keys).finish()
    }
}

impl Multi {
    fn resolver(&self) -> Result<Box<dyn Resolve>, Fault> {
        (self.make)(&Ask { keys: &self.keys, names: &self.names, about: &self.about })
    }
}

impl Method for Multi {
    fn read(asked: &MethodInput<'_>) -> Result<Self, Faults> {
        let (keys, mut faults): (Keys, _) = (asked.keys()?, Faults::default());
        if keys.watchers.is_empty() {
            faults.add("watchers", "is required: watchers by name");
        }
        let mut children = Vec::new();
        for (name, value) in &keys.watchers {
            let path = format!("watchers.{name}");
            let valid = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.:-".contains(&b));
            if !valid {
                faults.add(path, "is no name: A-Z a-z 0-9 _ . : -");
                continue;
            }
            let raw = value.as_object().cloned().unwrap_or_default();
            let discovery = Discovery::of(raw).map_err(|e| Fault::new(format!("{path}.{}", e.path()), e.inner()));
            let Some(discovery) = faults.take(discovery) else { continue };
            let source = format!("{}/{name}", asked.about.source).into();
            let about = About { source, ..asked.about.clone() };
            let method = AnyMethod::read(&MethodInput { about, discovery: &discovery });
            let Some(method) = faults.take(method.map_err(|faults| faults.below(&path))) else { continue };
            let filters = discovery.filters().cloned().collect();
            children.push(Child { name: name.as_str().into(), method, filters });
        }
        let word = keys.resolver.get("method").and_then(Value::as_str).unwrap_or_default();
        let known = || RESOLVERS.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", ");
        let make = RESOLVERS.iter().find(|(known, _)| *known == word).map(|(_, make)| *make);
        let make =
            make.ok_or_else(|| Fault::new("resolver.method", format!("{word:?} is not known; known are {}", known())));
        let Some(make) = faults.take(make) else { return Err(faults) };
        // The resolver may name watchers that are wrong themselves.
        let names = keys.watchers.keys().map(|name| name.as_str().into()).collect();
        let multi = Self { about: asked.about.clone(), children, keys: keys.resolver, names, make };
        faults.take(multi.resolver().map(drop)); // tried now, so that it can be made later
        if faults.0.is_empty() { Ok(multi) } else { Err(faults) }
    }

    fn watcher(&self, context: &mut Context) -> BoxWatcher {
        let mut watchers: Vec<(Arc<str>, BoxWatcher)> = Vec::new();
        for child in &self.children {
            let service = &self.about.service;
            let inner = child.method.watcher(context);
            let answers = child.method.answers().then(|| service.clone());
            watchers.push((child.name.clone(), Box::new(Filtered { inner, filters: child.filters.clone(), answers })));
        }
        match self.resolver() {
            Ok(resolver) => Box::new(Group::new(&self.about.source, watchers, resolver, context)),
            Err(_) => Box::new(super::base::Base), // it was tried when the config was read
        }
    }

    fn doubts(&self) -> Vec<Fault> {
        let below = |child: &Child| Faults(child.method.doubts()).below(&format!("watchers.{}", child.name)).0;
        self.children.iter().flat_map(below).collect()
    }

    fn servers(&self) -> Vec<String> {
        self.children.iter().flat_map(|c| c.method.servers()).collect()
    }
}

/// A watcher below a multi: its own label filters, and an answer that names its service.
struct Filtered {
    inner: BoxWatcher,
    filters: Vec<LabelFilter>,
    answers: Option<model::ServiceName>,
}

impl AnyWatcher for Filtered {
    fn run(
        self: Box<Self>,
        out: Outlet<Snapshot>,
        cancel: CancellationToken,
    ) -> futures_util::future::BoxFuture<'static, Result<(), super::AnyError>> {
        if self.filters.is_empty() && self.answers.is_none() {
            return self.inner.run(out, cancel);
        }
        Box::pin(async move {
            let (below, mut inlet) = channel();
            let teller = Teller::new(out);
            let passing = async {
                while inlet.changed().await.is_ok() {
                    let observation = inlet.borrow_and_update().clone();
                    match observation.snapshot() {
                        Some(snapshot) => {
                            teller.relay(
                                filtered(snapshot, &self.filters, self.answers.as_ref()),
                                Standing::of(&observation),
                            );
                        }
                        None => {
                            if let Observation::Pending { error: Some(error) } = observation {
                                teller.fail_by(error);
                            }
                        }
                    }
                }
            };
            tokio::select! {
                ended = self.inner.run(below, cancel) => ended,
                () = passing => Ok(()),
            }
        })
    }
}

fn filtered(snapshot: &Snapshot, filters: &[LabelFilter], answers: Option<&model::ServiceName>) -> Snapshot {
    let mut filtered = snapshot.clone();
    if !filters.is_empty() {
        for pool in filtered.services.values_mut() {
            let passing = pool.backends().iter().filter(|b| passes(filters.iter(), b)).cloned();
            *pool = Arc::new(Pool::new(passing));
        }
    }
    if let Some(service) = answers {
        filtered.services.entry(service.clone()).or_default();
    }
    filtered
}
