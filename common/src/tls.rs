//! The process's TLS implementation.

/// Makes ring the process's TLS implementation, if none was chosen yet. To be called first thing in `main`.
///
/// etcd's, Docker's and HTTP's clients each bring features that rustls cannot choose between: without this the
/// first of them to open a TLS connection panics.
pub fn install_provider() {
    // An error says that one is installed already, which is as good.
    drop(rustls::crypto::ring::default_provider().install_default());
}
