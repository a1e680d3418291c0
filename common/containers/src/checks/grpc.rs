//! gRPC's health protocol: one unary call, whose messages are small enough to be written by hand.
//!
//! Source: grpc/health/v1/health.proto and gRPC over HTTP/2 (PROTOCOL-HTTP2.md).

use std::convert::Infallible;
use std::net::SocketAddr;

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http2;
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};

use super::error::excerpt;
use super::tcp::connect;
use super::{CheckError, TlsClient};
use model::desired::PeerTls;

/// `HealthCheckResponse.ServingStatus.SERVING`.
const SERVING: u64 = 1;
/// An answer is some ten bytes.
const LONGEST: usize = 1024;

/// Asks `grpc.health.v1.Health/Check`.
#[derive(Debug, Clone)]
pub struct GrpcProbe {
    address: SocketAddr,
    service: String,
    tls: Option<TlsClient>,
}

impl GrpcProbe {
    /// Asks at `address` about `service` (empty: the whole server), over TLS or in the clear.
    pub fn new(address: SocketAddr, service: &str, tls: Option<&PeerTls>) -> Self {
        let tls = tls.map(|peer| TlsClient::new(address, peer, None, b"h2"));
        Self { address, service: service.to_owned(), tls }
    }

    /// Tries once.
    ///
    /// # Errors
    /// Why it did not pass.
    pub async fn attempt(&self) -> Result<(), CheckError> {
        let stream = connect(self.address).await?;
        match &self.tls {
            None => self.ask(stream).await,
            Some(tls) => self.ask(tls.wrap(self.address, stream).await?).await,
        }
    }

    async fn ask(&self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Result<(), CheckError> {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let request = Request::post(format!("{scheme}://{}/grpc.health.v1.Health/Check", self.address))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Full::new(Bytes::from(question(&self.service))))
            .map_err(|e| CheckError::Impossible(e.to_string()))?;
        let made = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
        let (mut sender, connection) = made.map_err(|e| self.talk(e))?;
        let talk = async {
            let answer = sender.send_request(request).await.map_err(|e| self.talk(e))?;
            self.judge(answer).await
        };
        let drive = async {
            let _ = connection.await;
            std::future::pending::<Infallible>().await
        };
        tokio::select! {
            judged = talk => judged,
            never = drive => match never {},
        }
    }

    async fn judge(&self, mut answer: Response<Incoming>) -> Result<(), CheckError> {
        if answer.status() != 200 {
            return Err(CheckError::Unexpected(format!("no gRPC server: HTTP status {}", answer.status().as_u16())));
        }
        refused(answer.headers())?;
        let mut message = Vec::new();
        while let Some(frame) = answer.frame().await {
            let frame = frame.map_err(|e| self.talk(e))?;
            match frame.into_data() {
                Ok(data) => message.extend_from_slice(&data[..data.len().min(LONGEST - message.len())]),
                Err(frame) => frame.trailers_ref().map_or(Ok(()), refused)?,
            }
        }
        match status(&message) {
            Some(SERVING) => Ok(()),
            Some(2) => Err(CheckError::Unexpected("its health is NOT_SERVING".to_owned())),
            Some(3) => Err(CheckError::Unexpected("its health is SERVICE_UNKNOWN".to_owned())),
            other => Err(CheckError::Unexpected(format!("its health is unknown ({other:?})"))),
        }
    }

    fn talk(&self, source: hyper::Error) -> CheckError {
        CheckError::Talk { address: self.address, source: source.into() }
    }
}

/// An error where headers or trailers carry a `grpc-status` other than 0.
fn refused(headers: &HeaderMap) -> Result<(), CheckError> {
    let word = |name: &str| headers.get(name).map(|value| excerpt(value.as_bytes())).unwrap_or_default();
    match word("grpc-status").as_str() {
        "" | "0" => Ok(()),
        "12" => Err(CheckError::Unexpected("it has no health service (grpc-status 12)".to_owned())),
        code => Err(CheckError::Unexpected(format!("grpc-status {code} {}", word("grpc-message")).trim().to_owned())),
    }
}

/// `HealthCheckRequest { service }`, not compressed, with its length in front.
fn question(service: &str) -> Vec<u8> {
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(0x0a); // field 1, length-delimited
        let mut length = service.len();
        while length >= 0x80 {
            message.push((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        message.push(length as u8);
        message.extend_from_slice(service.as_bytes());
    }
    let mut framed = vec![0];
    framed.extend_from_slice(&u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
    framed.extend(message);
    framed
}

/// The `status` of a framed `HealthCheckResponse`; 0 (UNKNOWN) where the field is left out. `None`: it cannot be read.
fn status(framed: &[u8]) -> Option<u64> {
    let ([0, a, b, c, d], message) = framed.split_first_chunk::<5>()? else { return None };
    let length = usize::try_from(u32::from_be_bytes([*a, *b, *c, *d])).ok()?;
    let mut rest = message.get(..length)?;
    let mut status = 0;
    while !rest.is_empty() {
        let (tag, after) = varint(rest)?;
        rest = match tag & 7 {
            0 => {
                let (value, after) = varint(after)?;
                if tag >> 3 == 1 {
                    status = value;
                }
                after
            }
            1 => after.get(8..)?,
            2 => {
                let (length, after) = varint(after)?;
                after.get(usize::try_from(length).ok()?..)?
            }
            5 => after.get(4..)?,
            _ => return None,
        };
    }
    Some(status)
}

fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0_u64;
    for (n, byte) in bytes.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f).checked_shl(u32::try_from(n * 7).ok()?)?;
        if byte & 0x80 == 0 {
            return Some((value, &bytes[n + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn messages_are_as_protobuf_has_them() {
        assert_eq!(question(""), [0, 0, 0, 0, 0]);
        assert_eq!(question("ab"), [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        assert_eq!(question(&"x".repeat(300))[5..8], [0x0a, 0xac, 2]);
        assert_eq!(status(&[0, 0, 0, 0, 2, 8, 1]), Some(SERVING));
        assert_eq!(status(&[0, 0, 0, 0, 0]), Some(0));
        assert_eq!(status(&[0, 0, 0, 0, 5, 0x12, 1, b'x', 8, 2]), Some(2), "a field that is not known");
        assert_eq!(status(&[1, 0, 0, 0, 2, 8, 1]), None, "compressed");
        assert_eq!(status(&[0, 0, 0, 0, 9, 8, 1]), None, "cut short");
    }

    proptest! {
        #[test]
        fn no_answer_panics(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = status(&bytes);
        }
    }
}
