//! Signed requests to AWS. Credentials come from the keys of the config, else from the standard chain: environment, shared
//! files and SSO, web identity, ECS, EC2's metadata. docs/adr/0005 says why it is not the SDK.

use std::fmt;
use std::time::Duration;

use axum::body::Bytes;
use axum::http;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, PercentEncode, utf8_percent_encode};
use quick_xml::de::from_str;
use reqsign_aws_v4::{Credential, DefaultCredentialProvider, RequestSigner, StaticCredentialProvider};
use reqsign_core::{Context, Error, HttpSend, OsEnv, Signer};
use reqsign_file_read_tokio::TokioFileRead;
use reqwest::{Client, Url};
use serde::Deserialize;

use super::Fault;

/// For credentials: outside of EC2 nobody answers at the metadata's address.
const CREDENTIALS_WITHIN: Duration = Duration::from_secs(5);
/// Where Synapse asks if nothing names a region: version 1 of AWS's SDK for Ruby has this default.
const DEFAULT_REGION: &str = "us-east-1";
/// The largest answer: a page of 1,000 instances has some 5 MB.
const MOST_BYTES: usize = 64 << 20;

/// Where and as whom.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct AwsKeys {
    aws_region: Option<String>,
    aws_access_key_id: Option<String>,
    aws_secret_access_key: Option<String>,
    aws_endpoint_url: Option<String>,
}

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum AwsError {
    /// No credentials, or a request that cannot be signed.
    #[error("signing a request to {service}")]
    Sign {
        /// Such as `ec2`.
        service: &'static str,
        /// Why not.
        source: Error,
    },
    /// The request was not answered.
    #[error("asking {service}")]
    Transport {
        /// Such as `ec2`.
        service: &'static str,
        /// Why not.
        source: reqwest::Error,
    },
    /// The service refused.
    #[error("{service} answered {status} {code}: {message}")]
    Refused {
        /// Such as `ec2`.
        service: &'static str,
        /// HTTP's.
        status: u16,
        /// AWS's own code, such as `RequestLimitExceeded`.
        code: String,
        /// In its words.
        message: String,
    },
    /// An answer that is none.
    #[error("{service}: {why}")]
    Answer {
        /// Such as `ec2`.
        service: &'static str,
        /// What about it.
        why: String,
    },
}

impl AwsError {
    /// A rate limit was hit: asking again soon makes it worse.
    pub fn is_throttled(&self) -> bool {
        const CODES: [&str; 5] =
            ["RequestLimitExceeded", "Throttling", "ThrottlingException", "SlowDown", "EC2ThrottledException"];
        matches!(self, Self::Refused { status, code, .. } if *status == 429 || *status == 503 || CODES.contains(&code.as_str()))
    }
}

/// One service of AWS in one region. Clones share its credentials and connections.
#[derive(Clone)]
pub struct Aws {
    service: &'static str,
    http: Client,
    signer: Signer<Credential>,
    base: Url,
}

impl fmt::Debug for Aws {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Aws").field("service", &self.service).field("base", &self.base.as_str()).finish()
    }
}

impl AwsKeys {
    /// What tells one connection from another.
    pub fn name(&self) -> String {
        format!("{:?} {:?} {:?}", self.aws_region, self.aws_access_key_id, self.aws_endpoint_url)
    }

    fn region(&self, get: &dyn Fn(&str) -> Option<String>) -> Option<String> {
        let given = |value: &String| !value.is_empty();
        let own = self.aws_region.clone().filter(given);
        own.or_else(|| get("AWS_REGION").filter(given)).or_else(|| get("AWS_DEFAULT_REGION").filter(given))
    }

    /// The id and the secret, if the config has one of them: as Synapse has it, the other may be in the environment.
    fn pair(&self, get: &dyn Fn(&str) -> Option<String>) -> [Option<String>; 2] {
        let own =
            [&self.aws_access_key_id, &self.aws_secret_access_key].map(|key| key.clone().filter(|v| !v.is_empty()));
        if own.iter().all(Option::is_none) {
            return own;
        }
        let [id, secret] = own;
        let read = |name: &str| get(name).filter(|v| !v.is_empty());
        [id.or_else(|| read("AWS_ACCESS_KEY_ID")), secret.or_else(|| read("AWS_SECRET_ACCESS_KEY"))]
    }

    /// What Synapse goes on without, and what counts instead.
    pub fn doubts(&self, get: &dyn Fn(&str) -> Option<String>) -> Vec<Fault> {
        let region = self.region(get).is_none().then(|| {
            let why = format!("is not given, here or as AWS_REGION: {DEFAULT_REGION} is asked, as Synapse asks it");
            Fault::new("aws_region", why)
        });
        let missing = match self.pair(get) {
            [Some(_), None] => Some(("aws_secret_access_key", "aws_access_key_id", "AWS_SECRET_ACCESS_KEY")),
            [None, Some(_)] => Some(("aws_access_key_id", "aws_secret_access_key", "AWS_ACCESS_KEY_ID")),
            _ => None,
        };
        let half = missing.map(|(key, other, variable)| {
            Fault::new(
                key,
                format!("is not given, here or as {variable}: {other} alone does not count, the standard chain does"),
            )
        });
        region.into_iter().chain(half).collect()
    }

    /// The service that is meant; nothing is asked yet. An answer may take `patience`. `get` reads one variable of the environment.
    ///
    /// # Errors
    /// [`Fault`] naming the key.
    pub fn service(
        &self,
        service: &'static str,
        patience: Duration,
        get: impl Fn(&str) -> Option<String>,
    ) -> Result<Aws, Fault> {
        let region = self.region(&get).unwrap_or_else(|| DEFAULT_REGION.to_owned());
        if !region.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
            return Err(Fault::new("aws_region", format!("{region:?} is no region, such as eu-west-1")));
        }
        let own = format!("AWS_ENDPOINT_URL_{}", service.to_ascii_uppercase());
        let get = |name: &str| get(name).filter(|v| !v.is_empty());
        let endpoint = self.aws_endpoint_url.clone().or_else(|| get(&own)).or_else(|| get("AWS_ENDPOINT_URL"));
        let suffix = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
        let base = endpoint.unwrap_or_else(|| format!("https://{service}.{region}.{suffix}"));
        let base = Url::parse(&base).map_err(|e| Fault::new("aws_endpoint_url", format!("{base:?}: {e}")))?;
        let client = |within| {
            // Another part of the program may have chosen first; either serves.
            let _ = rustls::crypto::ring::default_provider().install_default();
            let builder = Client::builder().connect_timeout(within).timeout(within);
            builder.build().map_err(|e| Fault::new("method", format!("making a client: {e}")))
        };
        let context = Context::new()
            .with_file_read(TokioFileRead)
            .with_http_send(Sender(client(CREDENTIALS_WITHIN)?))
            .with_env(OsEnv);
        let sign = RequestSigner::new(service, &region);
        let signer = match self.pair(&get) {
            [Some(id), Some(secret)] => Signer::new(context, StaticCredentialProvider::new(&id, &secret), sign),
            _ => Signer::new(context, DefaultCredentialProvider::new(), sign),
        };
        Ok(Aws { service, http: client(patience)?, signer, base })
    }
}

/// Credentials are asked for with the same client as everything else.
#[derive(Debug)]
struct Sender(Client);

impl HttpSend for Sender {
    async fn http_send(&self, request: http::Request<Bytes>) -> reqsign_core::Result<http::Response<Bytes>> {
        let failed = |e: reqwest::Error| Error::unexpected("asking for credentials").with_source(e);
        let request = reqwest::Request::try_from(request).map_err(failed)?;
        let answer = self.0.execute(request).await.map_err(failed)?;
        let mut made = http::Response::new(Bytes::new());
        *made.status_mut() = answer.status();
        *made.headers_mut() = answer.headers().clone();
        *made.body_mut() = answer.bytes().await.map_err(failed)?;
        Ok(made)
    }
}

impl Aws {
    /// GETs `path` (without a leading slash) with these parameters. Cancel-safe.
    pub async fn get(&self, path: &str, query: &[(String, String)]) -> Result<String, AwsError> {
        let service = self.service;
        let unfit = |why: String| AwsError::Answer { service, why };
        let path: Vec<String> = path.split('/').map(|part| encode(part).to_string()).collect();
        let query: Vec<String> = query.iter().map(|(k, v)| format!("{}={}", encode(k), encode(v))).collect();
        let question = if query.is_empty() { String::new() } else { format!("?{}", query.join("&")) };
        let url = format!("{}/{}{question}", self.base.as_str().trim_end_matches('/'), path.join("/"));
        let request = http::Request::get(&url).header("x-amz-content-sha256", EMPTY_SHA256).body(());
        let (mut parts, ()) = request.map_err(|e| unfit(format!("{url}: {e}")))?.into_parts();
        self.signer.sign(&mut parts, None).await.map_err(|source| AwsError::Sign { service, source })?;
        let failed = |source: reqwest::Error| AwsError::Transport { service, source: source.without_url() };
        let request = reqwest::Request::try_from(http::Request::from_parts(parts, "")).map_err(failed)?;
        let mut answer = self.http.execute(request).await.map_err(failed)?;
        let status = answer.status();
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(failed)? {
            body.extend_from_slice(&chunk);
            if body.len() > MOST_BYTES {
                return Err(unfit(format!("an answer above {MOST_BYTES} bytes")));
            }
        }
        let text = String::from_utf8(body).map_err(|_| unfit("an answer that is not UTF-8".to_owned()))?;
        if status.is_success() {
            return Ok(text);
        }
        let AwsRefusal { code, message } = refusal(&text);
        Err(AwsError::Refused { service, status: status.as_u16(), code, message })
    }
}

/// SHA-256 of no body.
const EMPTY_SHA256: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// What SigV4 leaves as it is: A-Z a-z 0-9 - _ . ~.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

fn encode(text: &str) -> PercentEncode<'_> {
    utf8_percent_encode(text, ENCODED)
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct AwsRefusal {
    #[serde(rename = "Code")]
    code: String,
    #[serde(rename = "Message")]
    message: String,
}

/// EC2 wraps its error twice, S3 does not.
fn refusal(text: &str) -> AwsRefusal {
    let bare = text.find("<Error>").and_then(|at| text[at..].find("</Error>").map(|end| &text[at..at + end + 8]));
    let read: Option<AwsRefusal> = bare.and_then(|xml| from_str(xml).ok());
    let shown = |t: &str| t.chars().filter(|c| !c.is_control()).take(300).collect::<String>();
    match read {
        Some(AwsRefusal { code, message }) => AwsRefusal { code: shown(&code), message: shown(&message) },
        None => AwsRefusal { code: String::new(), message: shown(text) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_read_in_either_form() {
        let ec2 = "<?xml version=\"1.0\"?><Response><Errors><Error><Code>RequestLimitExceeded</Code><Message>Slow.</Message></Error></Errors></Response>";
        let s3 = "<Error><Code>NoSuchKey</Code><Message>None.</Message><Key>k</Key></Error>";
        assert_eq!((refusal(ec2).code, refusal(s3).message), ("RequestLimitExceeded".into(), "None.".into()));
        assert_eq!(refusal("<html>\n").message, "<html>");
        let throttled = |status, code: &str| {
            AwsError::Refused { service: "ec2", status, code: code.into(), message: String::new() }.is_throttled()
        };
        assert!(throttled(503, "") && throttled(400, "RequestLimitExceeded") && !throttled(403, "AccessDenied"));
    }

    #[test]
    fn the_endpoint_comes_from_the_config_or_the_environment() {
        let base = |keys: &AwsKeys, env: &[(&str, &str)]| {
            let get = |name: &str| env.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
            keys.service("ec2", CREDENTIALS_WITHIN, get).map(|aws| aws.base.to_string())
        };
        let keys = AwsKeys { aws_region: Some("eu-west-1".into()), ..AwsKeys::default() };
        assert_eq!(base(&keys, &[]).unwrap(), "https://ec2.eu-west-1.amazonaws.com/");
        assert_eq!(base(&keys, &[("AWS_ENDPOINT_URL", "http://h:5")]).unwrap(), "http://h:5/");
        let none = AwsKeys::default();
        assert_eq!(base(&none, &[("AWS_REGION", "cn-north-1")]).unwrap(), "https://ec2.cn-north-1.amazonaws.com.cn/");
        assert_eq!(base(&none, &[]).unwrap(), "https://ec2.us-east-1.amazonaws.com/");
        assert_eq!(base(&none, &[("AWS_REGION", "Frankfurt")]).unwrap_err().key, "aws_region");
    }

    #[test]
    fn what_synapse_goes_on_without_is_doubted() {
        let doubts = |keys: &AwsKeys, env: &[(&str, &str)]| -> Vec<String> {
            let get = |name: &str| env.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
            keys.doubts(&get).into_iter().map(|fault| fault.key).collect()
        };
        let text = |value: &str| Some(value.to_owned());
        let keys = AwsKeys { aws_region: text("eu-west-1"), aws_access_key_id: text("a"), ..AwsKeys::default() };
        assert_eq!(doubts(&keys, &[]), ["aws_secret_access_key"]);
        assert!(doubts(&keys, &[("AWS_SECRET_ACCESS_KEY", "s")]).is_empty());
        let keys = AwsKeys { aws_access_key_id: text(""), aws_secret_access_key: text("s"), ..AwsKeys::default() };
        assert_eq!(doubts(&keys, &[]), ["aws_region", "aws_access_key_id"]);
        assert!(
            doubts(&AwsKeys::default(), &[("AWS_DEFAULT_REGION", "eu-west-1"), ("AWS_ACCESS_KEY_ID", "a")]).is_empty()
        );
    }
}
