//! Registrants' words: nothing of them goes live unproved.
//!
//! | module | what it holds | I/O |
//! |---|---|---|
//! | [`proofs`] | the ledger of words | no |
//! | [`trial`] | a file with suspects, and without some of them | no |
//! | [`proving`] | words judged beside the turns | yes |
//! | [`checker`] | who judges a file | yes |

pub mod checker;
pub mod proofs;
pub mod proving;
pub mod trial;
