//! Registrants' words: nothing of them goes live unproved.
//!
//! | module | what it holds | I/O |
//! |---|---|---|
//! | [`proofs`] | what is proved of a layout | no |
//! | [`ledger`] | where words stand | no |
//! | [`misfits`] | sections whose structure HAProxy refused | no |
//! | `again` | when something is tried again | no |
//! | [`trial`] | a file with suspects, and without some of them | no |
//! | [`proving`] | words judged beside the turns | yes |
//! | [`prover`] | the ledger and that search as one | yes |
//! | [`checker`] | who judges a file | yes |

mod again;
pub mod checker;
pub mod ledger;
pub mod misfits;
pub mod proofs;
pub mod prover;
pub mod proving;
pub mod trial;
