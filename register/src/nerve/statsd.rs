//! StatsD as Nerve spoke it (DogStatsD: tags after `|#`), for those whose config has a `statsd` section. One UDP datagram
//! for each thing counted; what cannot be sent at once is lost, as ever with StatsD.

use std::fmt::Write as _;
use std::net::UdpSocket;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Where counts go; clones share the socket. Without a section nothing is sent.
#[derive(Debug, Clone, Default)]
pub struct Statsd(Option<Arc<UdpSocket>>);

impl Statsd {
    /// Sends nothing.
    pub fn off() -> Self {
        Self(None)
    }

    /// Sends to `host:port`.
    ///
    /// # Errors
    /// When no socket can be opened, or the name cannot be resolved.
    pub fn to(host: &str, port: u16) -> std::io::Result<Self> {
        let any = if host.contains(':') { "[::]:0" } else { "0.0.0.0:0" };
        let socket = UdpSocket::bind(any)?;
        socket.connect((host, port))?;
        socket.set_nonblocking(true)?;
        Ok(Self(Some(Arc::new(socket))))
    }

    /// Counts one `name`.
    pub fn increment(&self, name: &str, tags: &[(&str, &str)]) {
        self.send(name, "1|c", tags);
    }

    /// Tells how long `name` took.
    pub fn time(&self, name: &str, took: Duration, tags: &[(&str, &str)]) {
        if self.0.is_some() {
            self.send(name, &format!("{:.3}|ms", took.as_secs_f64() * 1000.0), tags);
        }
    }

    /// Tells how long it took until what this gives is dropped.
    pub fn timer(&self, name: &'static str) -> impl Drop + use<> {
        Timer { statsd: self.clone(), name, began: Instant::now() }
    }

    /// Tells the present value of `name`.
    pub fn gauge(&self, name: &str, value: u64, tags: &[(&str, &str)]) {
        if self.0.is_some() {
            self.send(name, &format!("{value}|g"), tags);
        }
    }

    fn send(&self, name: &str, value: &str, tags: &[(&str, &str)]) {
        if let Some(socket) = &self.0 {
            let _ = socket.send(line(name, value, tags).as_bytes()); // nobody listens, or the buffer is full
        }
    }
}

struct Timer {
    statsd: Statsd,
    name: &'static str,
    began: Instant,
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.statsd.time(self.name, self.began.elapsed(), &[]);
    }
}

/// A datagram's text. What would end a tag or a line becomes `_`.
///
/// Source: the DogStatsD datagram format, version 1.0.
fn line(name: &str, value: &str, tags: &[(&str, &str)]) -> String {
    let plain = |text: &str| text.replace(|c: char| matches!(c, '|' | ',' | '#' | '@') || c.is_control(), "_");
    let mut text = format!("{name}:{value}");
    for (n, (key, value)) in tags.iter().enumerate() {
        let mark = if n == 0 { "|#" } else { "," };
        let _ = write!(text, "{mark}{key}:{}", plain(value)); // a String takes everything
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_go_out_as_dogstatsd_has_them() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        server.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let statsd = Statsd::to("127.0.0.1", server.local_addr().unwrap().port()).unwrap();
        let mut buffer = [0; 200];
        let mut said = || {
            let length = server.recv(&mut buffer).unwrap();
            String::from_utf8_lossy(&buffer[..length]).into_owned()
        };
        statsd.increment("nerve.start", &[]);
        assert_eq!(said(), "nerve.start:1|c");
        statsd.increment("nerve.watcher.start", &[("service_name", "a|b,\n"), ("x", "y")]);
        assert_eq!(said(), "nerve.watcher.start:1|c|#service_name:a_b__,x:y");
        statsd.time("t", Duration::from_micros(1500), &[]);
        assert_eq!(said(), "t:1.500|ms");
        Statsd::off().increment("nobody", &[]);
    }
}
