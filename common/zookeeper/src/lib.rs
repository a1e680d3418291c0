//! ZooKeeper: sessions that are shared, kept, and begun anew when they are lost.
//!
//! A client of its own, since it is small and the ones there are bring a second runtime or second versions of half a dozen
//! crates (docs/adr): no thread, no timer but the ping that is due, nothing written unless somebody asks. A call on a cut
//! connection fails at once; trying again is its caller's business, who reads again what it needs.

pub mod child;
mod error;
mod link;
mod mailbox;
mod target;
mod wire;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, Weak};

use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::bytes::BytesMut;
use tokio_util::task::AbortOnDropHandle;

use link::{Call, Link};
use mailbox::Mailboxes;
use wire::{Op, Reader, Writer};

use agent::sync::lock;

pub use error::{Operation, ZkError, ZkFault};
pub use link::State;
pub use mailbox::Mailbox;
pub use target::{Auth, AuthError, DEFAULT_PORT, SESSION_TIMEOUT, Target, TargetError, ZkPath, ZkPathError};
pub use wire::Stat;

/// How many calls may wait for the connection before their callers do.
const MOST_CALLS: usize = 1024;
/// All that there is to be allowed: read, write, create, delete, administer.
const ALL: i32 = 31;
const READ: i32 = 1;

/// What becomes of a node, and whether ZooKeeper numbers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(i32)]
pub enum NodeKind {
    /// It stays until somebody deletes it.
    Persistent = 0,
    /// It goes with the session that made it.
    Ephemeral = 1,
    /// It stays; ten digits are added to its name.
    PersistentSequential = 2,
    /// It goes with its session; ten digits are added to its name.
    EphemeralSequential = 3,
}

impl NodeKind {
    /// Whether it goes with its session.
    pub fn is_ephemeral(self) -> bool {
        matches!(self, Self::Ephemeral | Self::EphemeralSequential)
    }

    /// Whether ZooKeeper adds a number to its name.
    pub fn is_sequential(self) -> bool {
        matches!(self, Self::PersistentSequential | Self::EphemeralSequential)
    }
}

/// A session with one ensemble; clones are the same one. It connects when it is first used, and ends without a word when
/// the last clone is dropped: its ephemeral nodes then live until it runs out. See [`close`](Self::close).
#[derive(Debug, Clone)]
pub struct ZooKeeper(Arc<SharedSession>);

#[derive(Debug)]
struct SharedSession {
    target: Target,
    calls: mpsc::Sender<Call>,
    state: watch::Receiver<State>,
    mailboxes: Arc<Mailboxes>,
    /// The connection, until it is started.
    link: Mutex<Option<Link>>,
    task: OnceLock<AbortOnDropHandle<()>>,
}

impl ZooKeeper {
    /// A session of its own. Nothing happens before it is used.
    pub fn new(target: Target) -> Self {
        let (calls, received) = mpsc::channel(MOST_CALLS);
        let (told, state) = watch::channel(State::Connecting { error: None });
        let mailboxes = Arc::<Mailboxes>::default();
        let link = Mutex::new(Some(Link::new(target.clone(), received, told, mailboxes.clone())));
        Self(Arc::new(SharedSession { target, calls, state, mailboxes, link, task: OnceLock::new() }))
    }

    /// Which ensemble, and which part of it.
    pub fn target(&self) -> &Target {
        &self.0.target
    }

    /// How the session stands, now and from now on. Starts it.
    pub fn state(&self) -> watch::Receiver<State> {
        self.0.task.get_or_init(|| {
            let link = lock(&self.0.link).take();
            AbortOnDropHandle::new(tokio::spawn(async move {
                if let Some(link) = link {
                    link.run().await;
                }
            }))
        });
        self.0.state.clone()
    }

    /// A mailbox for what happens to these nodes and their children, as far as they are watched.
    pub fn mailbox(&self, paths: &[&ZkPath]) -> Mailbox {
        self.0.mailboxes.subscribe(paths)
    }

    /// The names of a node's children, in no order; `None` where there is no such node.
    pub async fn children(&self, path: &ZkPath, watch: bool) -> Result<Option<(Vec<String>, Stat)>, ZkError> {
        let read = |reader: &mut Reader<'_>| Ok((reader.texts()?, reader.stat()?));
        present(self.ask(Operation::List, Op::GetChildren2, &self.at(path), |w| _ = w.bool(watch), read).await)
    }

    /// A node's data; `None` where there is no such node.
    pub async fn data(&self, path: &ZkPath, watch: bool) -> Result<Option<(Vec<u8>, Stat)>, ZkError> {
        let read = |reader: &mut Reader<'_>| Ok((reader.bytes()?.to_vec(), reader.stat()?));
        present(self.ask(Operation::Read, Op::GetData, &self.at(path), |w| _ = w.bool(watch), read).await)
    }

    /// What stands about a node; `None` where there is no such node. A watch tells when one comes, too.
    pub async fn exists(&self, path: &ZkPath, watch: bool) -> Result<Option<Stat>, ZkError> {
        self.stat(&self.at(path), watch).await
    }

    /// Makes a node and gives its path, with ZooKeeper's number where the kind is a sequential one. With credentials only
    /// their user may change it; anybody may read it.
    pub async fn create(&self, path: &ZkPath, data: &[u8], kind: NodeKind) -> Result<ZkPath, ZkError> {
        let at = self.at(path);
        let made = self.make(&at, data, kind).await?;
        let ours = self.0.target.relative(&made).and_then(|path| path.parse().ok());
        let fault = ZkFault::Garbled("a node was made elsewhere");
        ours.ok_or(ZkError { operation: Operation::Create, path: at.to_string(), fault })
    }

    /// Makes a persistent node without data and all that are missing above it, the chroot included.
    ///
    /// # Errors
    /// [`ZkError`] naming the one that could not be made.
    pub async fn create_all(&self, path: &ZkPath) -> Result<(), ZkError> {
        let mut missing = Vec::new();
        let mut at = Some(self.at(path));
        while let Some(path) = at.filter(|path| *path != ZkPath::root()) {
            if self.stat(&path, false).await?.is_some() {
                break;
            }
            at = path.parent();
            missing.push(path);
        }
        for path in missing.iter().rev() {
            match self.make(path, b"", NodeKind::Persistent).await {
                Err(ZkError { fault: ZkFault::NodeExists, .. }) => {}
                made => drop(made?),
            }
        }
        Ok(())
    }

    /// Replaces a node's data, whatever its version.
    ///
    /// # Errors
    /// [`ZkError`]; [`ZkFault::NoNode`] where there is none.
    pub async fn set(&self, path: &ZkPath, data: &[u8]) -> Result<Stat, ZkError> {
        self.ask(Operation::Write, Op::SetData, &self.at(path), |w| _ = w.bytes(data).int(-1), |r| r.stat()).await
    }

    /// Removes a node, whatever its version; tells whether there was one.
    pub async fn delete(&self, path: &ZkPath) -> Result<bool, ZkError> {
        let deleted = self.ask(Operation::Delete, Op::Delete, &self.at(path), |w| _ = w.int(-1), |_| Ok(())).await;
        Ok(present(deleted)?.is_some())
    }

    /// Ends the session at once, and its ephemeral nodes with it, for every clone and for good.
    ///
    /// # Errors
    /// [`ZkError`] where ZooKeeper cannot be told; then it runs out by itself.
    pub async fn close(&self) -> Result<(), ZkError> {
        let failed = |fault| ZkError { operation: Operation::Close, path: self.0.target.to_string(), fault };
        self.call(Writer::request(0, Op::Close), true).await.map(drop).map_err(failed)
    }

    /// A path as the servers know it.
    fn at(&self, path: &ZkPath) -> ZkPath {
        self.0.target.absolute(path)
    }

    async fn stat(&self, at: &ZkPath, watch: bool) -> Result<Option<Stat>, ZkError> {
        present(self.ask(Operation::Read, Op::Exists, at, |w| _ = w.bool(watch), |r| r.stat()).await)
    }

    async fn make(&self, at: &ZkPath, data: &[u8], kind: NodeKind) -> Result<String, ZkError> {
        let write = |writer: &mut Writer| {
            writer.bytes(data);
            match self.0.target.auth() {
                None => writer.int(1).int(ALL).bytes(b"world").bytes(b"anyone"),
                Some(_) => writer.int(2).int(ALL).bytes(b"auth").bytes(b"").int(READ).bytes(b"world").bytes(b"anyone"),
            };
            writer.int(kind as i32);
        };
        self.ask(Operation::Create, Op::Create, at, write, |r| r.text()).await
    }

    /// Asks about the node `at`, a path as the servers know it.
    async fn ask<T>(
        &self,
        operation: Operation,
        op: Op,
        at: &ZkPath,
        write: impl FnOnce(&mut Writer),
        read: impl FnOnce(&mut Reader<'_>) -> Result<T, ZkFault>,
    ) -> Result<T, ZkError> {
        let failed = |fault| ZkError { operation, path: at.to_string(), fault };
        let mut writer = Writer::request(0, op);
        writer.bytes(at.as_str().as_bytes());
        write(&mut writer);
        let body = self.call(writer, false).await.map_err(failed)?;
        read(&mut Reader::new(&body)).map_err(failed)
    }

    /// Waits for the first connection, not for a later one: that is for whoever wants to try again.
    async fn call(&self, request: Writer, last: bool) -> Result<BytesMut, ZkFault> {
        let gone = || ZkFault::NotConnected("the session is closed".into());
        let decided = |state: &State| !matches!(state, State::Connecting { error: None });
        self.state().wait_for(decided).await.map_err(|_| gone())?;
        let (answer, answered) = oneshot::channel();
        let call = Call { frame: request.frame(), answer, last };
        self.0.calls.send(call).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }
}

/// A node that is not there is an answer, too.
fn present<T>(answer: Result<T, ZkError>) -> Result<Option<T>, ZkError> {
    match answer {
        Err(ZkError { fault: ZkFault::NoNode, .. }) => Ok(None),
        other => other.map(Some),
    }
}

/// The sessions of one process: one for each target, for as long as somebody holds it.
#[derive(Debug, Clone, Default)]
pub struct Sessions(Arc<Mutex<HashMap<Target, Weak<SharedSession>>>>);

impl Sessions {
    /// The session with `target`, shared with whoever else asks for the same one.
    pub fn get(&self, target: &Target) -> ZooKeeper {
        let mut all = lock(&self.0);
        all.retain(|_, shared| shared.strong_count() > 0);
        if let Some(shared) = all.get(target).and_then(Weak::upgrade) {
            return ZooKeeper(shared);
        }
        let session = ZooKeeper::new(target.clone());
        all.insert(target.clone(), Arc::downgrade(&session.0));
        session
    }
}
