//! The container listens on a port of the host, and no other program does.
//!
//! A process belongs to the container if the path of its control group (version 1 or 2) holds the container's id. Its sockets
//! are in `/proc/PID/fd`. Where `/proc` does not show them, an accepted connection is enough.
//!
//! Source: proc(5), `/proc/net/tcp`: state `0A` is LISTEN, the tenth field is the socket's inode.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use agent::sync::lock;
use model::desired::ContainerId;

use super::{Check, CheckError, Outcome, TcpCheck};

/// Who listens.
#[derive(Debug, PartialEq, Eq)]
enum Holder {
    /// The container.
    Own,
    /// Another program, and its name if `/proc` shows it.
    Other(Option<String>),
    /// `/proc` does not tell.
    Unseen,
}

/// A port of a container on the host's network.
#[derive(Debug, Clone)]
pub struct OwnPort {
    address: SocketAddr,
    container: ContainerId,
    /// A connection must be accepted too.
    dials: bool,
    /// `/proc`.
    proc: PathBuf,
    /// The container's process and socket (its inode) at the last try.
    known: Arc<Mutex<Option<(u32, u64)>>>,
}

impl OwnPort {
    /// Passes if the container listens at `address` and accepts a connection.
    pub fn new(address: SocketAddr, container: ContainerId) -> Self {
        Self { address, container, dials: true, proc: "/proc".into(), known: Arc::default() }
    }

    /// The same without a connection: other checks make theirs.
    #[must_use]
    pub fn undialled(self) -> Self {
        Self { dials: false, ..self }
    }

    /// Looks through `/proc`.
    fn holder(&self) -> Holder {
        let known = *lock(&self.known);
        if let Some((pid, inode)) = known
            && self.listeners(pid).contains(&inode)
            && self.has_socket(pid, &[inode].into()).is_ok_and(|found| found == Some(inode))
        {
            return Holder::Own;
        }
        *lock(&self.known) = None;
        let members: Vec<u32> = self.pids().filter(|pid| self.is_member(*pid)).collect();
        let Some(first) = members.first() else { return Holder::Unseen };
        let listeners = self.listeners(*first);
        if listeners.is_empty() {
            return Holder::Unseen; // the container has another network, or has just ended
        }
        let mut all_seen = true;
        for pid in members {
            match self.has_socket(pid, &listeners) {
                Ok(Some(inode)) => {
                    *lock(&self.known) = Some((pid, inode));
                    return Holder::Own;
                }
                Ok(None) => {}
                Err(e) => all_seen &= e == ErrorKind::NotFound, // that process has ended
            }
        }
        if !all_seen {
            return Holder::Unseen;
        }
        let other = self.pids().find(|pid| matches!(self.has_socket(*pid, &listeners), Ok(Some(_))));
        let name = other.and_then(|pid| fs::read_to_string(self.of(pid, "comm")).ok());
        Holder::Other(name.map(|name| name.trim().to_owned()))
    }

    fn of(&self, pid: u32, file: &str) -> PathBuf {
        self.proc.join(pid.to_string()).join(file)
    }

    fn pids(&self) -> impl Iterator<Item = u32> {
        let entries = fs::read_dir(&self.proc).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
    }

    fn is_member(&self, pid: u32) -> bool {
        fs::read_to_string(self.of(pid, "cgroup")).is_ok_and(|groups| groups.contains(self.container.as_str()))
    }

    /// The listening sockets in the process's network that get connections to the address: those bound to the address
    /// itself, else those bound to all addresses.
    fn listeners(&self, pid: u32) -> BTreeSet<u64> {
        let mut all: Vec<(IpAddr, u64)> = Vec::new();
        for table in ["net/tcp", "net/tcp6"] {
            let text = fs::read_to_string(self.of(pid, table)).unwrap_or_default();
            all.extend(text.lines().filter_map(|line| listener(line, self.address.port())));
        }
        let at = |wanted: &dyn Fn(IpAddr) -> bool| -> BTreeSet<u64> {
            all.iter().filter(|(ip, _)| wanted(*ip)).map(|(_, inode)| *inode).collect()
        };
        let exact = at(&|ip| ip == self.address.ip());
        if exact.is_empty() { at(&|ip| ip.is_unspecified()) } else { exact }
    }

    /// The first of these sockets that the process holds.
    fn has_socket(&self, pid: u32, inodes: &BTreeSet<u64>) -> Result<Option<u64>, ErrorKind> {
        let inode = |path: &Path| {
            let link = fs::read_link(path).ok()?;
            link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
        };
        let files = fs::read_dir(self.of(pid, "fd")).map_err(|e| e.kind())?;
        Ok(files.flatten().filter_map(|file| inode(&file.path())).find(|inode| inodes.contains(inode)))
    }
}

impl Check for OwnPort {
    async fn attempt(&self, timeout: Duration) -> Outcome {
        if self.dials {
            match TcpCheck::new(self.address).attempt(timeout).await {
                // A firewall may drop what this host sends to itself.
                Outcome::Pass | Outcome::Unreachable(_) => {}
                failed => return failed,
            }
        }
        let this = self.clone();
        match tokio::task::spawn_blocking(move || this.holder()).await {
            Ok(Holder::Other(program)) => Outcome::Fail(CheckError::Foreign { port: self.address.port(), program }),
            Ok(Holder::Own | Holder::Unseen) | Err(_) => Outcome::Pass,
        }
    }
}

/// A line of `/proc/net/tcp` or `tcp6`: the address and the inode of a socket that listens on `port`.
fn listener(line: &str, port: u16) -> Option<(IpAddr, u64)> {
    let mut fields = line.split_whitespace().skip(1);
    let (ip, at) = fields.next()?.split_once(':')?;
    let state = fields.nth(1)?;
    if state != "0A" || u16::from_str_radix(at, 16).ok()? != port {
        return None;
    }
    let inode = fields.nth(5)?.parse().ok()?;
    Some((address(ip)?, inode))
}

/// An address as the kernel prints it: words of 32 bits in this machine's order.
fn address(hex: &str) -> Option<IpAddr> {
    let word = |n: usize| u32::from_str_radix(hex.get(n * 8..n * 8 + 8)?, 16).ok().map(u32::to_ne_bytes);
    match hex.len() {
        8 => Some(IpAddr::from(word(0)?)),
        32 => {
            let mut bytes = [0; 16];
            for (n, chunk) in bytes.chunks_exact_mut(4).enumerate() {
                chunk.copy_from_slice(&word(n)?);
            }
            Some(Ipv6Addr::from(bytes).to_canonical())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const TCP: &str =
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";

    /// A line of the kernel's, as it prints one.
    fn line(local: &str, state: &str, inode: u64) -> String {
        format!(
            "   0: {local} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000     0        0 {inode} 1 0 100 0 0 10 0\n"
        )
    }

    fn process(proc: &Path, pid: u32, name: &str, cgroup: &str, tables: [&str; 2], sockets: &[u64]) {
        let dir = proc.join(pid.to_string());
        fs::create_dir_all(dir.join("net")).unwrap();
        fs::create_dir_all(dir.join("fd")).unwrap();
        fs::write(dir.join("comm"), format!("{name}\n")).unwrap();
        fs::write(dir.join("cgroup"), cgroup).unwrap();
        fs::write(dir.join("net/tcp"), format!("{TCP}{}", tables[0])).unwrap();
        fs::write(dir.join("net/tcp6"), format!("{TCP}{}", tables[1])).unwrap();
        symlink("/dev/null", dir.join("fd/0")).unwrap();
        for (n, inode) in sockets.iter().enumerate() {
            symlink(format!("socket:[{inode}]"), dir.join(format!("fd/{}", n + 3))).unwrap();
        }
    }

    #[test]
    fn the_port_is_the_containers_only_if_its_own_process_listens() {
        let v2 = format!("0::/system.slice/docker-{ID}.scope\n");
        let v1 = format!("12:pids:/docker/{ID}\n11:cpu:/docker/{ID}\n");
        let nested = format!("0::/../docker-{ID}.scope/init.scope\n");
        let all = line("00000000:1F90", "0A", 7);
        let local = line("0100007F:1F90", "0A", 8);
        let all6 = line("00000000000000000000000000000000:1F90", "0A", 9);
        let mapped = line("0000000000000000FFFF00000100007F:1F90", "0A", 9);
        let connected = line("0100007F:1F90", "01", 7);
        let elsewhere = line("0200007F:1F90", "0A", 7);
        let none = String::new();
        let other = || Holder::Other(Some("haproxy".to_owned()));
        for (what, cgroup, tcp, tcp6, sockets, foreign, expected) in [
            ("its own", &v2, &all, "", &[7][..], &[][..], Holder::Own),
            ("version 1", &v1, &all, "", &[7], &[], Holder::Own),
            ("nested groups", &nested, &all, "", &[7], &[], Holder::Own),
            ("both families", &v2, &none, &all6, &[9], &[], Holder::Own),
            ("mapped", &v2, &none, &mapped, &[9], &[], Holder::Own),
            ("HAProxy's", &v2, &all, "", &[5], &[7], other()),
            ("HAProxy's on the address itself", &v2, &format!("{all}{local}"), "", &[7], &[8], other()),
            ("its own on the address itself", &v2, &format!("{all}{local}"), "", &[8], &[7], Holder::Own),
            ("only a connection", &v2, &connected, "", &[7], &[], Holder::Unseen),
            ("another address", &v2, &elsewhere, "", &[7], &[], Holder::Unseen),
            ("no process of it is seen", &"0::/\n".to_owned(), &all, "", &[7], &[], Holder::Unseen),
        ] {
            let proc = tempfile::TempDir::new().unwrap();
            process(proc.path(), 10, "web", cgroup, [tcp, tcp6], sockets);
            process(proc.path(), 11, "haproxy", "0::/init.scope\n", [tcp, tcp6], foreign);
            fs::create_dir(proc.path().join("sys")).unwrap();
            let check = OwnPort::new("127.0.0.1:8080".parse().unwrap(), ID.parse().unwrap());
            let check = OwnPort { proc: proc.path().to_owned(), ..check };
            assert_eq!(check.holder(), expected, "{what}");
            assert_eq!(check.holder(), expected, "{what}: again");
            // It ends, and somebody else has the port.
            fs::remove_dir_all(proc.path().join("10/fd")).unwrap();
            fs::create_dir(proc.path().join("10/fd")).unwrap();
            assert_ne!(check.holder(), Holder::Own, "{what}");
        }
    }

    #[tokio::test]
    async fn a_foreign_program_fails_although_it_accepts() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let proc = tempfile::TempDir::new().unwrap();
        let table = line(&format!("0100007F:{:04X}", address.port()), "0A", 7);
        process(proc.path(), 10, "web", &format!("0::/docker/{ID}\n"), [&table, ""], &[]);
        process(proc.path(), 11, "haproxy", "0::/\n", [&table, ""], &[7]);
        let check = OwnPort { proc: proc.path().to_owned(), ..OwnPort::new(address, ID.parse().unwrap()) };
        let Outcome::Fail(error) = check.attempt(Duration::from_secs(5)).await else { panic!("it passes") };
        let said = error.to_string();
        assert!(said.contains("haproxy") && said.contains(&address.port().to_string()), "{said}");
        drop(listener);
        let failed = check.attempt(Duration::from_secs(5)).await;
        assert!(matches!(failed, Outcome::Fail(CheckError::Connect { .. })), "{failed:?}");
    }
}
