//! What is published of services without Docker. A slot is one registration of one service; it holds the directory in which
//! its key lies, and not who asks for it.

use std::collections::BTreeMap;
use std::sync::Arc;

/// What is written, byte for byte.
pub type Payload = Arc<str>;

/// One registration of one service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Slot {
    /// The service's name.
    pub service: Arc<str>,
    /// Where its numbered key lies; begins and ends with `/`.
    pub directory: Arc<str>,
}

/// What is to become of a registration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Want {
    Publish(Payload),
    /// Not decided yet (its first checks are under way): it stays as it is, there or not there.
    Leave(Payload),
    /// It is down: nothing of it is to be there, whoever wrote it (this payload tells its own from others').
    Absent(Payload),
}

/// All slots that one publisher answers for. One that is not in it is to be withdrawn.
pub type Slots = BTreeMap<Slot, Want>;
