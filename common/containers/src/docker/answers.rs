//! What becomes of an answer: decoded, counted, or an error that names the request.

use bollard::BollardRequest;
use bollard::errors::Error;
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::timeout;
use tracing::warn;

use super::client::Docker;
use super::connection::{LONGEST, is_endless, whole};
use super::error::DockerError;
use super::lenient::{self, Reply};
use agent::sync::lock;

/// How many odd words are logged.
const NAMED: usize = 64;

impl Docker {
    /// An answer, without its odd words where it has some.
    pub(super) async fn read<T: DeserializeOwned>(
        &self,
        request: &str,
        answer: impl Future<Output = Result<T, Error>>,
    ) -> Result<Reply<T>, DockerError> {
        match self.within(request, answer).await? {
            Ok(value) => Ok(value.into()),
            Err(Error::JsonDataError { contents, .. }) => lenient::read(contents.as_bytes())
                .map(|reply| self.note(reply))
                .map_err(|e| DockerError::unreadable(request, e)),
            Err(error) => Err(self.failed(request, error)),
        }
    }

    pub(super) async fn ask<T>(
        &self,
        request: &str,
        answer: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, DockerError> {
        self.within(request, answer).await?.map_err(|error| self.failed(request, error))
    }

    pub(super) async fn within<T>(&self, request: &str, answer: impl Future<Output = T>) -> Result<T, DockerError> {
        let late = |_| DockerError::Deadline { request: request.to_owned(), seconds: self.patience.as_secs() };
        timeout(self.patience, answer).await.map_err(late)
    }

    /// An answer as it came.
    pub(super) async fn raw(&self, path: &str) -> Result<Vec<u8>, DockerError> {
        let answer = async { whole(self.get(path, LONGEST).await?).await };
        self.ask(&format!("GET {path}"), answer).await
    }

    pub(super) async fn get(&self, path: &str, limit: usize) -> Result<Response<Incoming>, Error> {
        self.accepted(Request::get(path).body(bollard::body_full(Bytes::new()))?, limit).await
    }

    /// An answer that is no refusal, before its body.
    pub(super) async fn accepted(&self, request: BollardRequest, limit: usize) -> Result<Response<Incoming>, Error> {
        let answer = self.connector.send(request, limit).await?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let status_code = answer.status().as_u16();
        let message = String::from_utf8_lossy(&whole(answer).await?).into_owned();
        Err(Error::DockerResponseServerError { status_code, message })
    }

    pub(super) fn failed(&self, request: &str, error: Error) -> DockerError {
        let request = request.to_owned();
        match error {
            Error::DockerResponseServerError { status_code: status, message } => {
                DockerError::Refused { request, status, message: words(&message) }
            }
            error if is_endless(&error) => DockerError::TooLong { request, limit: LONGEST },
            source => DockerError::Transport { endpoint: self.shown.clone(), request, source },
        }
    }

    /// Counts the odd words and logs each once.
    pub(super) fn note<T>(&self, reply: Reply<T>) -> Reply<T> {
        self.odd_words.inc_by(reply.odd.len() as u64);
        let mut told = lock(&self.told);
        for (path, word) in &reply.odd {
            let word: String = word.to_string().chars().take(80).collect();
            if told.len() < NAMED && told.insert(format!("{path} {word}")) {
                warn!(path, word, "Docker's answer holds an unknown word; the rest of the answer counts.");
            }
        }
        drop(told);
        reply
    }
}

/// The daemon's own words in `{"message": "…"}`, or a proxy's page without its tags; cut short.
fn words(body: &str) -> String {
    let value: Value = serde_json::from_str(body).unwrap_or_default();
    let mut text = value["message"].as_str().unwrap_or(body).trim().to_owned();
    if text.starts_with('<') {
        let parts = text.split('<').map(|part| part.split_once('>').map_or(part, |(_tag, rest)| rest).trim());
        text = parts.filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ");
    }
    text.chars().filter(|c| !c.is_control()).take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusals_words_are_the_daemons_or_the_proxys_without_tags() {
        for (body, said) in [
            (r#"{"message":"No such container: x\n"}"#, "No such container: x"),
            (
                "<html><body><h1>403 Forbidden</h1>\nRequest forbidden.\n</body></html>\n",
                "403 Forbidden Request forbidden.",
            ),
            ("not allowed\u{7}", "not allowed"),
            ("a <b> c", "a <b> c"),
            ("<", ""),
            ("", ""),
            ("[1]", "[1]"),
        ] {
            assert_eq!(words(body), said, "{body}");
        }
    }
}
