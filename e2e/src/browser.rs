//! A real browser without a window: Chromium, which takes its commands by a pipe.
//!
//! Source: the Chrome `DevTools` Protocol (domains Target, Page, Runtime, Log); over `--remote-debugging-pipe` it reads messages
//! from file descriptor 3 and writes to 4, each ended by a zero byte.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::pipe;
use tokio::time::timeout;

use crate::process::Process;
use crate::{Context, Lab, LabError, Result, wait};

/// How long a single thing may take: a first start on a busy machine reads some hundred megabytes.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Every name leads to this machine, so nothing that the browser does by itself leaves it; what it does by itself is mostly off.
const FLAGS: [&str; 14] = [
    "--headless",
    "--remote-debugging-pipe",
    "--no-sandbox", // which is not to be had as root, nor in most containers; only our own pages are seen
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-features=HttpsUpgrades,HttpsFirstBalancedMode",
    "--host-resolver-rules=MAP * 127.0.0.1",
    "--ignore-certificate-errors",
    "--window-size=1200,1500",
];

/// Chromium with one page.
#[derive(Debug)]
pub struct Browser {
    process: Process,
    commands: pipe::Sender,
    answers: pipe::Receiver,
    unread: Vec<u8>,
    /// The page's, once it is there.
    session: Option<String>,
    last_id: u64,
    complaints: Vec<String>,
    _profile: TempDir,
}

/// The program: CHROMIUM_BIN, else Debian's name.
fn program() -> PathBuf {
    std::env::var_os("CHROMIUM_BIN").map_or_else(|| "chromium".into(), PathBuf::from)
}

/// Why there can be no browser on this machine, if so.
pub fn missing() -> Option<String> {
    let mut version = Command::new(program());
    let runs = version.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    let runs = runs.is_ok_and(|status| status.success());
    (!runs).then(|| format!("{} does not run here (Debian's package chromium)", program().display()))
}

impl Browser {
    /// Starts it with an empty page.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn start(lab: &Lab) -> Result<Self> {
        let home = lab.subdir("browser")?;
        let [input, output] = ["commands", "answers"].map(|name| home.join(name));
        for fifo in [&input, &output] {
            mkfifo(fifo, Mode::S_IRUSR | Mode::S_IWUSR).during(format!("making {}", fifo.display()))?;
        }
        // Opened both ways, neither side waits for the other.
        let mut both = pipe::OpenOptions::new();
        both.read_write(true);
        let commands = both.open_sender(&input).during("opening the browser's pipe")?;
        let answers = both.open_receiver(&output).during("opening the browser's pipe")?;
        // Nothing but a shell puts descriptors into their places here.
        let script = r#"program=$1 in=$2 out=$3; shift 3; exec "$program" "$@" 3<"$in" 4>"$out""#;
        // Beside the lab's, swept as that is: what Chromium calls a log is none for people.
        let profile = TempDir::with_prefix(format!("e2e-{}-", lab.mark())).during("making the browser's profile")?;
        let data = format!("--user-data-dir={}", profile.path().display());
        let (program, input, output) = (program(), input.to_string_lossy(), output.to_string_lossy());
        let program = program.to_string_lossy();
        let args = ["-c", script, "browser", &program, &input, &output].into_iter().chain(FLAGS).chain([data.as_str()]);
        let environment = [("HOME", &*profile.path().to_string_lossy())];
        let process = Process::spawn(lab, "browser", Path::new("/bin/sh"), args, &environment)?;
        let (unread, session, complaints) = (Vec::new(), None, Vec::new());
        let mut browser =
            Self { process, commands, answers, unread, session, last_id: 0, complaints, _profile: profile };
        let target = browser.call("Target.createTarget", json!({"url": "about:blank"})).await?;
        let target = json!({"targetId": target["targetId"], "flatten": true});
        let attached = browser.call("Target.attachToTarget", target).await?;
        browser.session = Some(attached["sessionId"].as_str().during("a page without a session")?.to_owned());
        for domain in ["Page.enable", "Runtime.enable", "Log.enable"] {
            browser.call(domain, json!({})).await?;
        }
        Ok(browser)
    }

    /// Goes to a page and waits until it is there, whatever its status.
    ///
    /// # Errors
    /// When there is no answer at all.
    pub async fn goto(&mut self, url: &str) -> Result<()> {
        let went = self.call("Page.navigate", json!({"url": url})).await?;
        if let Some(why) = went["errorText"].as_str() {
            return Err(LabError::new(format!("{url}: {why}")));
        }
        self.until("document.readyState === 'complete'").await
    }

    /// What an expression in the page comes to; of a promise, what it is kept with.
    ///
    /// # Errors
    /// What it throws.
    pub async fn evaluate(&mut self, expression: &str) -> Result<Value> {
        let what = json!({"expression": expression, "awaitPromise": true, "returnByValue": true});
        let mut answer = self.call("Runtime.evaluate", what).await?;
        if !answer["exceptionDetails"].is_null() {
            return Err(LabError::new(format!("{expression}: {}", answer["exceptionDetails"])));
        }
        Ok(answer["result"]["value"].take())
    }

    /// [`Self::evaluate`] for a text.
    ///
    /// # Errors
    /// Its errors, or another value.
    pub async fn text(&mut self, expression: &str) -> Result<String> {
        let value = self.evaluate(expression).await?;
        value.as_str().map(str::to_owned).during(format!("{expression} is no text but {value}"))
    }

    /// Waits until an expression is true.
    ///
    /// # Errors
    /// When it does not become so; what the page shows then is told.
    pub async fn until(&mut self, expression: &str) -> Result<()> {
        let came_true = wait::until_true(expression, PATIENCE, async || {
            self.evaluate(expression).await.is_ok_and(|value| value == Value::Bool(true))
        });
        let Err(error) = came_true.await else { return Ok(()) };
        let shown = self.text("location.href + ': ' + document.body.innerText").await.unwrap_or_default();
        Err(error).during(format!("the page is {shown:?}"))
    }

    /// Makes the window so many pixels wide, and has pages light or dark.
    ///
    /// # Errors
    /// When the browser refuses.
    pub async fn look(&mut self, width: u32, dark: bool) -> Result<()> {
        let scheme = json!([{"name": "prefers-color-scheme", "value": if dark { "dark" } else { "light" }}]);
        let size = json!({"width": width, "height": 1500, "deviceScaleFactor": 1, "mobile": width < 600});
        self.call("Emulation.setDeviceMetricsOverride", size).await?;
        self.call("Emulation.setEmulatedMedia", json!({"features": scheme})).await.map(drop)
    }

    /// Takes a picture of what is to be seen.
    ///
    /// # Errors
    /// When it cannot be written.
    pub async fn screenshot(&mut self, to: &Path) -> Result<()> {
        let shot = self.call("Page.captureScreenshot", json!({"format": "png"})).await?;
        let png = BASE64.decode(shot["data"].as_str().unwrap_or_default()).during("reading a picture")?;
        tokio::fs::write(to, png).await.during(format!("writing {}", to.display()))
    }

    /// What scripts threw and what the browser refused (by a page's Content-Security-Policy, say) since this was last asked.
    pub fn complaints(&mut self) -> Vec<String> {
        std::mem::take(&mut self.complaints)
    }

    /// Asks it to end, and waits.
    ///
    /// # Errors
    /// When it does not.
    pub async fn close(mut self) -> Result<()> {
        self.session = None;
        self.call("Browser.close", json!({})).await?;
        self.process.ended(PATIENCE).await.map(drop)
    }

    async fn call(&mut self, method: &str, params: Value) -> Result<Value> {
        self.last_id += 1;
        let id = self.last_id;
        let mut command = json!({"id": id, "method": method, "params": params});
        if let Some(session) = &self.session {
            command["sessionId"] = json!(session);
        }
        let mut bytes = command.to_string().into_bytes();
        bytes.push(0);
        let exchange = async {
            self.commands.write_all(&bytes).await.during("writing to the browser")?;
            loop {
                let message = self.read().await?;
                if message["id"] == id {
                    return Ok::<_, LabError>(message);
                }
                self.hear(&message);
            }
        };
        let Ok(answer) = timeout(PATIENCE, exchange).await else {
            return Err(LabError::new(format!("{method}: no answer of the browser; its log:\n{}", self.process.log())));
        };
        let mut answer = answer?;
        match &answer["error"] {
            Value::Null => Ok(answer["result"].take()),
            error => Err(LabError::new(format!("{method}: {error}"))),
        }
    }

    async fn read(&mut self) -> Result<Value> {
        loop {
            if let Some(end) = self.unread.iter().position(|byte| *byte == 0) {
                let message: Vec<u8> = self.unread.drain(..=end).collect();
                return serde_json::from_slice(&message[..end]).during("reading what the browser says");
            }
            self.answers.read_buf(&mut self.unread).await.during("reading from the browser")?;
        }
    }

    fn hear(&mut self, event: &Value) {
        let params = &event["params"];
        match event["method"].as_str() {
            Some("Runtime.exceptionThrown") => self.complaints.push(params["exceptionDetails"].to_string()),
            // An answer of 503, to the former page's icon perhaps, is no complaint about a page.
            Some("Log.entryAdded") if params["entry"]["level"] == "error" && params["entry"]["source"] != "network" => {
                self.complaints.push(params["entry"]["text"].to_string());
            }
            _ => {}
        }
    }
}
