//! ZooKeeper's wire format (jute), as far as this client speaks it: frames of big-endian numbers, buffers and strings with
//! their lengths before them.
//!
//! Source: `zookeeper.jute` and `ZooDefs.java` of ZooKeeper 3.4 to 3.9, which agree in all that is used here.

use super::ZkFault;

/// The transaction id of a watch's event.
pub(super) const EVENT: i32 = -1;
/// The transaction id of a ping and its answer.
pub(super) const PING: i32 = -2;
/// The transaction id of an authentication and its answer.
pub(super) const AUTH: i32 = -4;
/// How long a session's password is, in bytes.
pub(super) const PASSWORD: usize = 16;

/// What can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub(super) enum Op {
    Create = 1,
    Delete = 2,
    Exists = 3,
    GetData = 4,
    SetData = 5,
    Ping = 11,
    GetChildren2 = 12,
    Auth = 100,
    Close = -11,
}

/// What stands about a node beside its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stat {
    /// The transaction that made it: ZooKeeper's order of creation.
    pub created: i64,
    /// The transaction that last wrote its data.
    pub modified: i64,
    /// The session that it ends with; 0 where it outlives all of them.
    pub owner: i64,
    /// The transaction that last added or removed a child.
    pub children_modified: i64,
    /// How many children it has.
    pub children: i32,
}

/// What happened to a watched node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Event {
    /// The node, from the server's root.
    pub(super) path: String,
}

/// A request as it grows. Its frame's length is filled in at the end.
#[derive(Debug)]
pub(super) struct Writer(Vec<u8>);

impl Writer {
    /// The first message on a connection; it has no header.
    pub(super) fn bare() -> Self {
        Self(vec![0; 4])
    }

    pub(super) fn request(xid: i32, op: Op) -> Self {
        let mut writer = Self::bare();
        writer.int(xid).int(op as i32);
        writer
    }

    pub(super) fn int(&mut self, value: i32) -> &mut Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    pub(super) fn long(&mut self, value: i64) -> &mut Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    pub(super) fn bool(&mut self, value: bool) -> &mut Self {
        self.0.push(value.into());
        self
    }

    /// A buffer or a string: they are written alike.
    pub(super) fn bytes(&mut self, value: &[u8]) -> &mut Self {
        self.int(length(value.len()));
        self.0.extend(value);
        self
    }

    /// The whole frame.
    pub(super) fn frame(mut self) -> Vec<u8> {
        let body = length(self.0.len() - 4);
        self.0[..4].copy_from_slice(&body.to_be_bytes());
        self.0
    }
}

fn length(len: usize) -> i32 {
    i32::try_from(len).unwrap_or(i32::MAX) // 2 GB are refused long before
}

/// An answer, read from its front. What does not fit is a fault, never a panic.
#[derive(Debug)]
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], ZkFault> {
        let (head, rest) = self.0.split_at_checked(count).ok_or(ZkFault::Garbled("an answer ends too early"))?;
        self.0 = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ZkFault> {
        self.take(N)?.try_into().map_err(|_| ZkFault::Garbled("an answer ends too early"))
    }

    pub(super) fn int(&mut self) -> Result<i32, ZkFault> {
        self.array().map(i32::from_be_bytes)
    }

    pub(super) fn long(&mut self) -> Result<i64, ZkFault> {
        self.array().map(i64::from_be_bytes)
    }

    /// A buffer; one that is absent (length -1) is empty.
    pub(super) fn bytes(&mut self) -> Result<&'a [u8], ZkFault> {
        let len = self.int()?.max(0);
        self.take(usize::try_from(len).unwrap_or_default())
    }

    pub(super) fn text(&mut self) -> Result<String, ZkFault> {
        let bytes = self.bytes()?;
        std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| ZkFault::Garbled("a name is not UTF-8"))
    }

    pub(super) fn texts(&mut self) -> Result<Vec<String>, ZkFault> {
        (0..self.int()?.max(0)).map(|_| self.text()).collect()
    }

    pub(super) fn stat(&mut self) -> Result<Stat, ZkFault> {
        let (created, modified) = (self.long()?, self.long()?);
        self.take(8 + 8 + 4 + 4 + 4)?; // times and version counters
        let owner = self.long()?;
        self.int()?; // the data's length
        Ok(Stat { children: self.int()?, children_modified: self.long()?, created, modified, owner })
    }

    pub(super) fn event(&mut self) -> Result<Event, ZkFault> {
        self.take(4 + 4)?; // what happened, and the session's state: the node is read again whatever it was
        Ok(Event { path: self.text()? })
    }
}

/// The head of every answer but the first.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head {
    pub(super) xid: i32,
    pub(super) zxid: i64,
    pub(super) code: i32,
}

impl Head {
    /// How many bytes it takes.
    pub(super) const LEN: usize = 16;

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, ZkFault> {
        Ok(Self { xid: reader.int()?, zxid: reader.long()?, code: reader.int()? })
    }
}

/// What a server grants to a new connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Granted {
    /// In milliseconds; not above 0 where the session has expired.
    pub(super) timeout: i32,
    pub(super) session: i64,
    pub(super) password: Vec<u8>,
}

impl Granted {
    pub(super) fn read(frame: &[u8]) -> Result<Self, ZkFault> {
        let mut reader = Reader::new(frame);
        reader.int()?; // the protocol's version, always 0
        Ok(Self { timeout: reader.int()?, session: reader.long()?, password: reader.bytes()?.to_vec() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_request_is_written_as_the_servers_read_it() {
        let mut writer = Writer::request(7, Op::Exists);
        writer.bytes(b"/a").bool(true);
        let want = [0, 0, 0, 15, 0, 0, 0, 7, 0, 0, 0, 3, 0, 0, 0, 2, b'/', b'a', 1];
        assert_eq!(writer.frame(), want);
    }

    proptest! {
        #[test]
        fn no_answer_panics(bytes in prop::collection::vec(any::<u8>(), 0..120)) {
            let read = || Reader::new(&bytes);
            let _ = (read().stat(), read().texts(), read().event(), Granted::read(&bytes), Head::read(&mut read()));
        }

        #[test]
        fn what_is_written_is_read(number in any::<i32>(), long in any::<i64>(), text in "\\PC{0,20}") {
            let mut writer = Writer::bare();
            writer.int(number).long(long).bytes(text.as_bytes());
            let frame = writer.frame();
            let mut reader = Reader::new(&frame[4..]);
            prop_assert_eq!((reader.int(), reader.long(), reader.text()), (Ok(number), Ok(long), Ok(text)));
        }
    }
}
