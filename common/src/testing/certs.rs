//! An authority with a server's and a client's certificate, made by the `openssl` command.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where the files are; valid for a day. A certificate that is authority and server in one would be refused.
#[derive(Clone, Debug)]
pub struct Certs {
    dir: PathBuf,
}

impl Certs {
    /// Makes them in `dir`; the server's is for 127.0.0.1 and localhost.
    pub fn make(dir: &Path) -> Self {
        let certs = Self { dir: dir.to_owned() };
        let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
        let ca = ["req", "-x509", "-days", "1", "-subj", "/CN=test authority", "-out", "ca.pem", "-keyout", "ca.key"];
        certs.openssl(&[&ca[..], &key].concat());
        // The server's is a client's too: etcd's gateway dials its own server with it.
        for (name, uses) in [("server", "serverAuth,clientAuth"), ("client", "clientAuth")] {
            let [pem, key_file, request, extensions] = ["pem", "key", "csr", "ext"].map(|ext| format!("{name}.{ext}"));
            let subject = format!("/CN={name}");
            certs.openssl(&[&["req", "-subj", &subject, "-out", &request, "-keyout", &key_file][..], &key].concat());
            let text = format!("extendedKeyUsage={uses}\nsubjectAltName=IP:127.0.0.1,DNS:localhost\n");
            fs::write(dir.join(&extensions), text).unwrap();
            let sign = ["x509", "-req", "-days", "1", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"];
            certs.openssl(&[&sign[..], &["-in", &request, "-out", &pem, "-extfile", &extensions]].concat());
        }
        certs
    }

    fn openssl(&self, args: &[&str]) {
        let done = Command::new("openssl").args(args).current_dir(&self.dir).stdin(Stdio::null()).output().unwrap();
        assert!(done.status.success(), "openssl {args:?}: {}", String::from_utf8_lossy(&done.stderr));
    }

    /// A file by its name: `ca.pem`, `server.pem`, `server.key`, `client.pem`, `client.key`.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}
