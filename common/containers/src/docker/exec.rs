//! Runs a command in a container.
//!
//! bollard starts a command only over an upgraded connection, and a proxy in between may leave the upgrade out (HAProxy does, of a request
//! with a body). Without one Docker sends the output as an answer's body, everywhere.

use std::time::Duration;

use bollard::exec::CreateExecOptions;
use http_body_util::BodyExt as _;
use hyper::Request;
use hyper::body::Bytes;
use hyper::header::CONTENT_TYPE;

use super::client::Docker;
use super::error::DockerError;
use model::desired::ContainerId;

/// How much of a command's output is kept, in bytes.
const OUTPUT: usize = 4096;
/// What stands before each piece of output: the stream's number, three zeros, and the piece's length in big endian (Docker's API, "attach").
const HEAD: usize = 8;

impl Docker {
    /// Runs a command in a container and returns its exit status, with the first 4 kB of what it printed.
    ///
    /// # Errors
    /// Any [`DockerError`]; [`DockerError::Deadline`] when it does not end within `patience` (it then runs on: Docker cannot
    /// stop it).
    pub async fn exec(
        &self,
        id: &ContainerId,
        command: &[String],
        patience: Duration,
    ) -> Result<(i64, Vec<u8>), DockerError> {
        let run = async {
            let cmd = Some(command.to_vec());
            let options =
                CreateExecOptions { attach_stdout: Some(true), attach_stderr: Some(true), cmd, ..Default::default() };
            let exec = self.api.create_exec(id.as_str(), options).await?.id;
            let start = Request::post(format!("/exec/{exec}/start")).header(CONTENT_TYPE, "application/json");
            let body = bollard::body_full(Bytes::from_static(br#"{"Detach":false,"Tty":false}"#));
            let answer = self.accepted(start.body(body)?, usize::MAX).await?;
            let (mut body, mut raw) = (answer.into_body(), Vec::new());
            while let Some(frame) = body.frame().await {
                let data = frame?.into_data().unwrap_or_default();
                raw.extend_from_slice(&data[..data.len().min((2 * OUTPUT).saturating_sub(raw.len()))]);
            }
            Ok((self.api.inspect_exec(&exec).await?.exit_code.unwrap_or(-1), output(&raw)))
        };
        let request = format!("exec in container {id}");
        let ran = self.clone().with_patience(patience).within(&request, run).await?;
        ran.map_err(|error| self.failed(&request, error))
    }
}

/// The output that these pieces hold; the last one may be cut off.
fn output(mut raw: &[u8]) -> Vec<u8> {
    let mut output = Vec::new();
    while let Some((head, rest)) = raw.split_first_chunk::<HEAD>() {
        let [.., a, b, c, d] = *head;
        let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX).min(rest.len());
        output.extend_from_slice(&rest[..length]);
        raw = &rest[length..];
    }
    output.truncate(OUTPUT);
    output
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_what_the_pieces_hold() {
        assert_eq!(output(b""), b"");
        assert_eq!(output(b"\x01\0\0\0\0\0\0\x02ab\x02\0\0\0\0\0\0\x01c"), b"abc");
        assert_eq!(output(b"\x01\0\0\0\0\0\0\x05ab"), b"ab", "cut off");
        assert_eq!(output(b"\x01\0\0\0\xff\xff\xff\xffab"), b"ab", "nonsense");
        assert_eq!(output(b"\x01\0\0"), b"");
    }
}
