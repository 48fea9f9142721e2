//! A real browser without a screen: Debian's Chromium, driven through WebDriver.
//!
//! In: addresses and scripts. Out: what scripts answer, what the console said, pictures.
//! Guarantees: the browser ends with the value. On failure: what the driver said; nothing is tried again.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use base64::Engine as _;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::addresses::HOST;
use crate::install;
use crate::patience::holds_within;
use crate::places::Places;
use crate::process::tie_to_this_thread;

/// Until the driver listens.
const STARTS: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// What the driver does in one step takes no longer.
const STEP: Duration = Duration::from_secs(60);

/// One window.
pub struct Browser {
    driver: Child,
    /// Where the session is.
    session: String,
    http: reqwest::Client,
    runtime: Runtime,
}

impl Drop for Browser {
    fn drop(&mut self) {
        let ended = self.runtime.block_on(async { self.http.delete(&self.session).send().await });
        let killed = self.driver.kill().and_then(|()| self.driver.wait());
        if let (Err(error), _) | (_, Err(error)) =
            (ended.map_err(anyhow::Error::from), killed.map_err(Into::into))
        {
            eprintln!("browser: {error}");
        }
    }
}

impl Browser {
    /// Installs what is missing and opens a window; the driver listens on `port`.
    ///
    /// # Errors
    /// When one of the two does not start.
    pub fn open(port: u16) -> Result<Self> {
        let needed = [("chromium", "chromium"), ("chromedriver", "chromium-driver")];
        install::programs(&Places::find()?, &needed, &mut |line| eprintln!("{line}"))?;
        let mut command = Command::new("chromedriver");
        command.arg(format!("--port={port}")).stdout(Stdio::null()).stderr(Stdio::null());
        tie_to_this_thread(&mut command);
        let driver = command.spawn().context("chromedriver")?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let http = reqwest::Client::builder().timeout(STEP).build()?;
        let base = format!("http://{HOST}:{port}");
        let mut browser = Self { driver, session: base.clone(), http, runtime };
        let listens = || Ok(browser.call("GET", "/status", &Value::Null).is_ok());
        ensure!(holds_within(STARTS, LOOK_EVERY, listens)?, "chromedriver does not listen on {port}");
        let arguments =
            ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"];
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "acceptInsecureCerts": true,
            "goog:chromeOptions": {"args": arguments},
            "goog:loggingPrefs": {"browser": "ALL"},
        }}});
        let opened = browser.call("POST", "/session", &wanted)?;
        let id = opened["sessionId"].as_str().context("the driver names no session")?;
        browser.session = format!("{base}/session/{id}");
        Ok(browser)
    }

    fn call(&self, method: &str, path: &str, body: &Value) -> Result<Value> {
        let url = format!("{}{path}", self.session);
        let request = match method {
            "GET" => self.http.get(&url),
            _ => self.http.post(&url).json(body),
        };
        let mut answer: Value = self.runtime.block_on(async { request.send().await?.json().await })?;
        let value = answer["value"].take();
        if let Some(error) = value.get("error") {
            bail!("{path}: {error}: {}", value["message"]);
        }
        Ok(value)
    }

    /// Loads a page.
    ///
    /// # Errors
    /// When it does not load.
    pub fn go(&self, url: &str) -> Result<()> {
        self.call("POST", "/url", &json!({ "url": url })).map(drop)
    }

    /// What a script returns.
    ///
    /// # Errors
    /// What it throws.
    pub fn eval(&self, script: &str) -> Result<Value> {
        self.call("POST", "/execute/sync", &json!({"script": script, "args": []}))
    }

    /// Waits until an expression is true.
    ///
    /// # Errors
    /// When it does not become so in time; then what the page says.
    pub fn wait_for(&self, expression: &str, patience: Duration) -> Result<()> {
        let script = format!("return Boolean({expression})");
        let came = holds_within(patience, LOOK_EVERY, || Ok(self.eval(&script)? == json!(true)))?;
        ensure!(
            came,
            "{expression} did not become true; the page says:\n{}",
            self.eval("return document.body.innerText")?
        );
        Ok(())
    }

    /// A window of this size, as of a phone when it is narrow, in light or dark.
    ///
    /// # Errors
    /// What the browser refuses.
    pub fn look(&self, (width, height): (u32, u32), scheme: &str) -> Result<()> {
        let mobile = width < 600;
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile});
        let media = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        for (command, parameters) in
            [("Emulation.setDeviceMetricsOverride", size), ("Emulation.setEmulatedMedia", media)]
        {
            self.call("POST", "/goog/cdp/execute", &json!({"cmd": command, "params": parameters}))?;
        }
        Ok(())
    }

    /// Presses keys, as WebDriver writes them: `\u{E004}` is the tabulator.
    ///
    /// # Errors
    /// What the driver refuses.
    pub fn press(&self, keys: &str) -> Result<()> {
        let strokes: Vec<Value> = keys
            .chars()
            .flat_map(|key| ["keyDown", "keyUp"].map(|kind| json!({"type": kind, "value": key.to_string()})))
            .collect();
        let actions = json!({"actions": [{"type": "key", "id": "keyboard", "actions": strokes}]});
        self.call("POST", "/actions", &actions).map(drop)
    }

    /// What the console said since it was last asked.
    ///
    /// # Errors
    /// What the driver refuses.
    pub fn console(&self) -> Result<Vec<String>> {
        let lines = self.call("POST", "/se/log", &json!({"type": "browser"}))?;
        let text = |line: &Value| format!("{}: {}", line["level"], line["message"]);
        Ok(lines.as_array().into_iter().flatten().map(text).collect())
    }

    /// A picture of what is seen.
    ///
    /// # Errors
    /// When it cannot be taken or written.
    pub fn picture(&self, path: &Path) -> Result<()> {
        let picture = self.call("GET", "/screenshot", &Value::Null)?;
        let bytes = base64::engine::general_purpose::STANDARD.decode(picture.as_str().unwrap_or_default())?;
        Ok(std::fs::write(path, bytes)?)
    }
}
