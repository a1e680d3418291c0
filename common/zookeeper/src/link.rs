//! One session's connection: opened, kept, and opened again, here or elsewhere, until nobody needs it any more.
//!
//! The session outlives its connections; what it lost its watches with, a cut connection or its own end, makes no difference
//! to anybody: with each new connection the epoch grows, and whoever watches reads again.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use rand::seq::SliceRandom;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_stream::StreamExt;
use tokio_util::bytes::BytesMut;
use tokio_util::codec::{FramedRead, LengthDelimitedCodec};
use tracing::{debug, info, warn};

use super::mailbox::Mailboxes;
use super::wire::{AUTH, EVENT, Granted, Head, Op, PASSWORD, PING, Reader, Writer};
use super::{Target, ZkFault};
use agent::backoff::Backoff;

/// The first wait after a failure, and the longest one.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));
/// How long one server may take to answer a new connection, at most.
const MOST_TO_CONNECT: Duration = Duration::from_secs(2);
/// The largest answer read, in bytes. The servers' own limit (`jute.maxbuffer`) is 1 MB for what is written; lists of
/// children may be longer.
const MOST_ANSWER: usize = 64 << 20;
/// How many bytes may wait to be written before further calls must wait, too.
const MOST_UNSENT: usize = 256 << 10;

/// How things stand with a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// There is no connection.
    Connecting {
        /// How the last one failed; none before the first attempt has ended.
        error: Option<Arc<str>>,
    },
    Connected {
        /// Grows with each connection: watches of an older one are gone.
        epoch: u64,
        /// The session's id. Ephemeral nodes of another one are not ours any more.
        session: i64,
    },
    /// The session was closed, by us and for good.
    Closed,
}

/// An answer's body, or what went wrong.
pub(super) type Answer = Result<BytesMut, ZkFault>;

/// One request on its way.
#[derive(Debug)]
pub(super) struct Call {
    /// The frame; its transaction id is filled in when it is sent.
    pub(super) frame: Vec<u8>,
    pub(super) answer: oneshot::Sender<Answer>,
    /// Whether the session ends with it.
    pub(super) last: bool,
}

#[derive(Debug)]
struct Session {
    id: i64,
    password: Vec<u8>,
    /// The newest transaction seen: a server that is behind it will not take us.
    zxid: i64,
}

impl Default for Session {
    fn default() -> Self {
        Self { id: 0, password: vec![0; PASSWORD], zxid: 0 }
    }
}

/// The one task that speaks with the servers.
#[derive(Debug)]
pub(super) struct Link {
    target: Target,
    calls: mpsc::Receiver<Call>,
    state: watch::Sender<State>,
    mailboxes: Arc<Mailboxes>,
    session: Session,
    epoch: u64,
    /// When the last connection was lost.
    lost: Option<Instant>,
}

/// How a connection ended.
enum End {
    /// It failed.
    Lost(ZkFault),
    /// We closed the session.
    Closed,
}

impl From<ZkFault> for End {
    fn from(fault: ZkFault) -> Self {
        Self::Lost(fault)
    }
}

impl Link {
    pub(super) fn new(
        target: Target,
        calls: mpsc::Receiver<Call>,
        state: watch::Sender<State>,
        mailboxes: Arc<Mailboxes>,
    ) -> Self {
        Self { target, calls, state, mailboxes, session: Session::default(), epoch: 0, lost: None }
    }

    /// Runs until the session is closed. To be aborted when nobody holds the session any more.
    pub(super) async fn run(mut self) {
        let mut servers = self.target.servers().to_vec();
        // A fleet does not all lean on the server that is named first.
        servers.shuffle(&mut rand::rng());
        let mut backoff = Backoff::new(RETRY.0, RETRY.1);
        let mut error: Option<Arc<str>> = None;
        for server in servers.iter().cycle() {
            let ended = match self.connect(server, error.as_ref()).await {
                Ok((stream, granted)) => self.serve(stream, server, &granted).await,
                Err(fault) => End::Lost(fault),
            };
            let fault = match ended {
                End::Lost(fault) => fault,
                End::Closed => {
                    self.state.send_replace(State::Closed);
                    return;
                }
            };
            let lost = *self.lost.get_or_insert_with(Instant::now);
            if fault == ZkFault::Expired || lost.elapsed() > self.target.session_timeout() {
                // It has run out by now. What it saw must not keep us from an ensemble that was set back.
                self.session = Session::default();
            }
            let text: Arc<str> = fault.to_string().into();
            self.state.send_replace(State::Connecting { error: Some(text.clone()) });
            let retry_in = if fault == ZkFault::Expired { Duration::ZERO } else { backoff.next_delay() };
            let retry_in_ms = u64::try_from(retry_in.as_millis()).unwrap_or(u64::MAX);
            match error.replace(text.clone()) {
                Some(same) if same == text => {
                    debug!(%server, error = %text, retry_in_ms, "ZooKeeper connection failed.")
                }
                _ => warn!(%server, error = %text, retry_in_ms, "ZooKeeper connection failed."),
            }
            self.refusing(sleep(retry_in), Some(&text)).await;
            if self.calls.is_closed() && self.calls.is_empty() {
                return;
            }
        }
    }

    /// Does `work`, and refuses calls meanwhile once there is a reason to.
    async fn refusing<T>(&mut self, work: impl Future<Output = T>, why: Option<&Arc<str>>) -> T {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                Some(call) = self.calls.recv(), if why.is_some() => {
                    let why = why.cloned().unwrap_or_default();
                    drop(call.answer.send(Err(ZkFault::NotConnected(why))));
                }
            }
        }
    }

    async fn connect(&mut self, server: &Arc<str>, error: Option<&Arc<str>>) -> Result<(TcpStream, Granted), ZkFault> {
        let asked = self.target.session_timeout();
        let mut hello = Writer::bare();
        hello.int(0).long(self.session.zxid).int(millis(asked)).long(self.session.id).bytes(&self.session.password);
        hello.bool(false); // not from a server that has lost its ensemble
        let patience = (asked / 3).min(MOST_TO_CONNECT);
        let opened = timeout(patience, open(server.clone(), hello.frame()));
        let (stream, granted) = self
            .refusing(opened, error)
            .await
            .map_err(|_| ZkFault::Silent { server: server.clone(), after: patience })??;
        if granted.timeout <= 0 {
            return Err(ZkFault::Expired);
        }
        Ok((stream, granted))
    }

    /// Carries calls and answers until the connection fails or the session is closed.
    async fn serve(&mut self, stream: TcpStream, server: &Arc<str>, granted: &Granted) -> End {
        let fresh = self.session.id != granted.session;
        (self.session.id, self.session.password) = (granted.session, granted.password.clone());
        self.lost = None;
        self.epoch += 1;
        let session = format_args!("{:#x}", granted.session).to_string();
        info!(%server, session, fresh, timeout_ms = granted.timeout, "Connected to ZooKeeper.");
        let (near, far) = stream.into_split();
        let codec = LengthDelimitedCodec::builder().max_frame_length(MOST_ANSWER).new_codec();
        let mut wire = Wire {
            server: server.clone(),
            answers: FramedRead::new(near, codec),
            far,
            unsent: VecDeque::new(),
            pending: VecDeque::new(),
            next_xid: 1,
            timeout: Duration::from_millis(granted.timeout.unsigned_abs().into()),
            heard: Instant::now(),
            said: Instant::now(),
        };
        if let Some(auth) = self.target.auth() {
            let mut writer = Writer::request(AUTH, Op::Auth);
            writer.int(0).bytes(auth.scheme.as_bytes()).bytes(auth.credential.as_bytes());
            wire.unsent.extend(writer.frame());
        }
        self.state.send_replace(State::Connected { epoch: self.epoch, session: self.session.id });
        let end = loop {
            match wire.step(&mut self.calls).await {
                Ok(Some(frame)) => {
                    if let Err(end) = self.take(frame, &mut wire) {
                        break end;
                    }
                }
                Ok(None) => {}
                Err(fault) => break End::Lost(fault),
            }
        };
        let fault = match &end {
            End::Lost(fault) => fault.clone(),
            End::Closed => ZkFault::NotConnected("the session is closed".into()),
        };
        for (_, answer, _) in wire.pending.drain(..) {
            drop(answer.send(Err(fault.clone())));
        }
        end
    }

    /// Hands on what the server said.
    fn take(&mut self, mut frame: BytesMut, wire: &mut Wire) -> Result<(), End> {
        let head = Head::read(&mut Reader::new(&frame))?;
        let body = frame.split_off(Head::LEN);
        match head.xid {
            PING => {}
            EVENT => {
                let event = Reader::new(&body).event()?;
                if let Some(path) = self.target.relative(&event.path) {
                    self.mailboxes.deliver(path);
                }
            }
            AUTH => {
                if let Some(fault) = ZkFault::of_code(head.code, &wire.server) {
                    return Err(fault.into());
                }
            }
            xid => {
                self.session.zxid = self.session.zxid.max(head.zxid);
                let (_, answer, last) = wire
                    .pending
                    .pop_front()
                    .filter(|(asked, ..)| *asked == xid)
                    .ok_or(ZkFault::Garbled("an answer to another call"))?;
                let fault = ZkFault::of_code(head.code, &wire.server);
                drop(answer.send(fault.clone().map_or(Ok(body), Err)));
                if last {
                    return Err(End::Closed);
                }
                if let Some(fault @ (ZkFault::Expired | ZkFault::Unauthenticated)) = fault {
                    return Err(fault.into());
                }
            }
        }
        Ok(())
    }
}

/// One open connection.
struct Wire {
    server: Arc<str>,
    answers: FramedRead<tokio::net::tcp::OwnedReadHalf, LengthDelimitedCodec>,
    far: tokio::net::tcp::OwnedWriteHalf,
    unsent: VecDeque<u8>,
    /// Calls in the order in which they were sent, which is the order of their answers.
    pending: VecDeque<(i32, oneshot::Sender<Answer>, bool)>,
    next_xid: i32,
    /// After so long without a word the servers end the session.
    timeout: Duration,
    heard: Instant,
    said: Instant,
}

impl Wire {
    /// Whatever comes first: an answer, room to write, a call, or the time for a ping.
    async fn step(&mut self, calls: &mut mpsc::Receiver<Call>) -> Result<Option<BytesMut>, ZkFault> {
        let (silent, ping) = (self.heard + self.timeout.mul_f32(2.0 / 3.0), self.said + self.timeout / 3);
        let unavailable = |server: &Arc<str>, why: String| ZkFault::Unavailable { server: server.clone(), why };
        tokio::select! {
            frame = self.answers.next() => {
                self.heard = Instant::now();
                match frame {
                    Some(Ok(frame)) if frame.len() >= Head::LEN => return Ok(Some(frame)),
                    Some(Ok(_)) => return Err(ZkFault::Garbled("an answer ends too early")),
                    Some(Err(e)) => return Err(unavailable(&self.server, e.to_string())),
                    None => return Err(unavailable(&self.server, "it hung up".to_owned())),
                }
            }
            written = self.far.write_buf(&mut self.unsent), if !self.unsent.is_empty() => {
                written.map_err(|e| unavailable(&self.server, e.to_string()))?;
            }
            Some(call) = calls.recv(), if self.unsent.len() < MOST_UNSENT => {
                self.send(call);
                while let (true, Ok(call)) = (self.unsent.len() < MOST_UNSENT, calls.try_recv()) {
                    self.send(call);
                }
            }
            () = sleep_until(silent.min(ping)) => {
                if Instant::now() >= silent {
                    let after = self.timeout.mul_f32(2.0 / 3.0);
                    return Err(ZkFault::Silent { server: self.server.clone(), after });
                }
                self.unsent.extend(Writer::request(PING, Op::Ping).frame());
                self.said = Instant::now();
            }
        }
        Ok(None)
    }

    fn send(&mut self, mut call: Call) {
        let xid = self.next_xid;
        self.next_xid = xid.checked_add(1).unwrap_or(1);
        call.frame[4..8].copy_from_slice(&xid.to_be_bytes());
        self.unsent.extend(call.frame);
        self.pending.push_back((xid, call.answer, call.last));
        self.said = Instant::now();
    }
}

/// Opens a connection and says who we are.
async fn open(server: Arc<str>, hello: Vec<u8>) -> Result<(TcpStream, Granted), ZkFault> {
    let unavailable = |e: std::io::Error| ZkFault::Unavailable { server: server.clone(), why: e.to_string() };
    let mut stream = TcpStream::connect(&*server).await.map_err(unavailable)?;
    stream.set_nodelay(true).map_err(unavailable)?;
    stream.write_all(&hello).await.map_err(unavailable)?;
    let mut len = [0; 4];
    stream.read_exact(&mut len).await.map_err(unavailable)?;
    // What is granted is 36 bytes, 37 with the newer servers' last field.
    let len = usize::try_from(i32::from_be_bytes(len)).ok().filter(|len| (16..=256).contains(len));
    let mut frame = vec![0; len.ok_or(ZkFault::Garbled("it does not answer as ZooKeeper does"))?];
    stream.read_exact(&mut frame).await.map_err(unavailable)?;
    let granted = Granted::read(&frame)?;
    Ok((stream, granted))
}

fn millis(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis()).unwrap_or(i32::MAX)
}
