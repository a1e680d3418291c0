//! A connection whose client must read what it asked for.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

/// For the client to take any bytes at all.
const STALL: Duration = Duration::from_secs(5);
/// For the client to take all that waits to be sent.
const WHOLE: Duration = Duration::from_secs(30);

/// Fails with [`io::ErrorKind::TimedOut`] once bytes that wait have made no way for 5 s, or have not all gone within 30 s.
pub(super) struct Deadlined<S> {
    stream: S,
    /// Since when bytes wait, and the next moment that counts.
    waiting: Option<(Instant, Pin<Box<Sleep>>)>,
}

impl<S> Deadlined<S> {
    pub fn new(stream: S) -> Self {
        Self { stream, waiting: None }
    }

    /// What to answer when the stream takes nothing now.
    fn wait<T>(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        let (since, timer) = self.waiting.get_or_insert_with(|| (Instant::now(), Box::pin(sleep(STALL))));
        let end = *since + WHOLE;
        if timer.deadline() > end {
            timer.as_mut().reset(end);
        }
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read")))
    }

    /// Some bytes went, others may wait.
    fn went(&mut self) {
        if let Some((since, timer)) = &mut self.waiting {
            let next = (Instant::now() + STALL).min(*since + WHOLE);
            timer.as_mut().reset(next);
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Deadlined<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Deadlined<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.stream).poll_write(cx, buf) {
            Poll::Pending => self.wait(cx),
            done => {
                self.went();
                done
            }
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.stream).poll_write_vectored(cx, bufs) {
            Poll::Pending => self.wait(cx),
            done => {
                self.went();
                done
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// hyper asks for this once it has written all that it has.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.stream).poll_flush(cx) {
            Poll::Pending => self.wait(cx),
            done => {
                self.waiting = None;
                done
            }
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.stream).poll_shutdown(cx) {
            Poll::Pending => self.wait(cx),
            done => done,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_client_that_reads_nothing_ends_the_connection_after_five_seconds() {
        let (_client, server) = tokio::io::duplex(16);
        let began = Instant::now();
        let error = Deadlined::new(server).write_all(&[0; 64]).await.unwrap_err();
        assert_eq!((error.kind(), began.elapsed()), (io::ErrorKind::TimedOut, STALL));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_reads_a_byte_now_and_then_ends_it_after_thirty_seconds() {
        let (mut client, server) = tokio::io::duplex(16);
        let read = async move {
            while client.read_u8().await.is_ok() {
                sleep(Duration::from_secs(4)).await;
            }
        };
        let began = Instant::now();
        let mut server = Deadlined::new(server);
        let (error, ()) = tokio::join!(
            async move {
                let error = server.write_all(&[0; 64]).await.unwrap_err();
                (error.kind(), began.elapsed())
            },
            read
        );
        assert_eq!(error, (io::ErrorKind::TimedOut, WHOLE));
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_has_nothing_to_send_lasts() {
        let (mut client, server) = tokio::io::duplex(16);
        let mut server = Deadlined::new(server);
        for _ in 0..5 {
            server.write_all(b"x").await.unwrap();
            server.flush().await.unwrap();
            assert_eq!(client.read_u8().await.unwrap(), b'x');
            sleep(Duration::from_secs(60)).await;
        }
    }
}
