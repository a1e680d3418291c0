//! The tier behind this one (`--next`): another whoami over HTTP, or memcached. What is asked there is part of the answer.

use std::io;
use std::str::FromStr;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// For one question to the next tier.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often a connection that breaks is tried on another: the next server may be stopping just then.
const TRIES: usize = 3;
/// Begins the line that names the tiers behind.
pub const CHAIN: &str = "Chain: ";

/// Where the next tier is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// `http://HOST:PORT`: another whoami.
    Http(String),
    /// `memcached://HOST:PORT`: one that counts visits.
    Memcached(String),
}

impl FromStr for Next {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, place) = match text.split_once("://") {
            Some(("http", place)) => (Self::Http as fn(String) -> Self, place),
            Some(("memcached", place)) => (Self::Memcached as fn(String) -> Self, place),
            _ => return Err("not http://HOST:PORT or memcached://HOST:PORT".to_owned()),
        };
        match place.rsplit_once(':') {
            Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => Ok(kind(place.to_owned())),
            _ => Err(format!("{place:?} is not HOST:PORT")),
        }
    }
}

impl Next {
    /// The tiers from there on, such as `service-1 → memcached (visit 7)`.
    ///
    /// # Errors
    /// What the last try failed with.
    pub async fn chain(&self) -> io::Result<String> {
        let mut last = io::Error::other("not tried");
        for _ in 0..TRIES {
            match timeout(PATIENCE, self.ask()).await.unwrap_or_else(|late| Err(late.into())) {
                Ok(chain) => return Ok(chain),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn ask(&self) -> io::Result<String> {
        match self {
            Self::Http(place) => {
                let mut stream = TcpStream::connect(place).await?;
                let request = format!("GET / HTTP/1.1\r\nHost: {place}\r\nConnection: close\r\n\r\n");
                stream.write_all(request.as_bytes()).await?;
                let mut answer = String::new();
                stream.read_to_string(&mut answer).await?;
                let chain = answer.lines().find_map(|line| line.strip_prefix(CHAIN));
                let status = || answer.lines().next().unwrap_or("nothing").to_owned();
                chain.map(str::to_owned).ok_or_else(|| io::Error::other(format!("{place} answers {}", status())))
            }
            Self::Memcached(place) => {
                let mut server = BufReader::new(TcpStream::connect(place).await?);
                // Two that begin at once: one adds, both count.
                for command in ["incr visits 1\r\n", "add visits 0 0 1\r\n0\r\n", "incr visits 1\r\n"] {
                    server.write_all(command.as_bytes()).await?;
                    let mut line = String::new();
                    server.read_line(&mut line).await?;
                    if let Ok(visits) = line.trim().parse::<u64>() {
                        return Ok(format!("memcached (visit {visits})"));
                    }
                }
                Err(io::Error::other(format!("{place} does not count")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn the_next_tier_is_a_url_of_two_kinds() {
        assert_eq!("http://a:80".parse(), Ok(Next::Http("a:80".to_owned())));
        assert_eq!("memcached://a.b:11211".parse(), Ok(Next::Memcached("a.b:11211".to_owned())));
        for bad in ["a:80", "ftp://a:80", "http://a", "http://:80", "http://a:x"] {
            assert!(bad.parse::<Next>().is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn a_count_that_is_not_there_yet_is_begun() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let next = Next::Memcached(listener.local_addr().unwrap().to_string());
        let server = async {
            // The first connection breaks; the second one is answered.
            drop(listener.accept().await.unwrap());
            let mut stream = BufReader::new(listener.accept().await.unwrap().0);
            let mut line = String::new();
            for (reads, answer) in [(1, "NOT_FOUND\r\n"), (2, "STORED\r\n"), (1, "1\r\n")] {
                for _ in 0..reads {
                    stream.read_line(&mut line).await.unwrap();
                }
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        };
        let (chain, ()) = tokio::join!(next.chain(), server);
        assert_eq!(chain.unwrap(), "memcached (visit 1)");
    }
}
