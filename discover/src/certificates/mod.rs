//! Certificates for HTTPS at the edge: found, judged, and kept in a running HAProxy without a reload.
//!
//! | module | what it holds |
//! |---|---|
//! | [`mod@load`] | from files and directories to certificates that may be served, each judged alone |
//! | [`x509`] | what a certificate says of itself (pure) |
//! | [`names`] | which certificate is for which name (pure) |
//! | [`running`] | what HAProxy has, what it should have, and the commands between them (pure) |
//! | [`keeper`] | the task that keeps the files and HAProxy at that state |
//!
//! HAProxy reads copies in a directory of ours, listed in a crt-list, never the operator's files: so one bad file cannot keep it
//! from starting, and what is on disk always equals what runs or will run. A `bind` line needs no more than the [list](keeper::bind_words).

pub mod keeper;
pub mod load;
pub mod names;
pub mod running;
pub mod x509;

pub use keeper::CertificateKeeper;
pub use load::{Certificate, LoadedCertificates, RefusedCertificate, load};
