//! `register.<port>.sni`: names under which TLS is passed through, unread.

use std::collections::BTreeSet;

use super::{Proposal, own};
use crate::desired::labels::Vocabulary;
use crate::{HostPattern, Port};

pub fn read(vocabulary: &Vocabulary<'_>, tcp: &BTreeSet<Port>) -> Vec<Proposal<HostPattern>> {
    own::of_ports(vocabulary, tcp, "sni", |_, host| Ok(host))
}
