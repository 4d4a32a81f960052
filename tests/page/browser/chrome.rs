//! A headless Chromium, driven by its DevTools protocol over a pipe (`--remote-debugging-pipe`: JSON texts, each ended by a zero byte).

use std::{
    env,
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use world::{FOLDER, World, status::until_within};

/// How long the page may take to show something: many times what it takes.
const PATIENCE: Duration = Duration::from_secs(10);

/// A browser on the host with one page.
pub struct Chrome {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    next: u64,
    session: Option<String>,
    events: Vec<Value>,
}

impl Chrome {
    /// Starts it with an empty page. `EGRESSD_BROWSER` names the program.
    pub fn start(world: &World) -> Self {
        let program = env::var("EGRESSD_BROWSER").expect("scenarios of the browser are there only if it is named");
        // The protocol's pipes are descriptors 3 and 4.
        let mut command = Command::new("sh");
        command.args(["-c", r#"exec "$@" 3<&0 4>&1 </dev/null >/dev/null 2>&1"#, "sh", &program]);
        command.args(["--remote-debugging-pipe", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--force-color-profile=srgb"]);
        command.arg(format!("--user-data-dir={FOLDER}/chrome")).env("HOME", FOLDER).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = world.netns().enter(|| command.spawn()).unwrap_or_else(|error| panic!("failed to start {program}: {error}"));
        let (to, from) = (child.stdin.take().expect("it is piped"), child.stdout.take().expect("it is piped"));
        let mut chrome = Self { child, to, from: BufReader::new(from), next: 0, session: None, events: Vec::new() };
        let target = chrome.call("Target.createTarget", json!({ "url": "about:blank" }))["targetId"].clone();
        let attached = chrome.call("Target.attachToTarget", json!({ "targetId": target, "flatten": true }));
        chrome.session = attached["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Log"] {
            chrome.call(&format!("{domain}.enable"), json!({}));
        }
        // What moves by itself, and not because somebody typed, is noted from the page's first moment.
        let watch = "window.moved = [];
            const name = ({ node }) => node ? (node.closest?.('[id]')?.id ?? '') + ' ' + node.nodeName + '.' + node.className : '';
            new PerformanceObserver(list => list.getEntries().filter(entry => !entry.hadRecentInput)
                .forEach(entry => window.moved.push([entry.value, entry.sources.map(name)])))
                .observe({ type: 'layout-shift', buffered: true });";
        chrome.call("Page.addScriptToEvaluateOnNewDocument", json!({ "source": watch }));
        chrome
    }

    /// Sends a command, and returns its result. Panics when it is refused.
    pub fn call(&mut self, method: &str, params: Value) -> Value {
        self.next += 1;
        let mut message = json!({ "id": self.next, "method": method, "params": params });
        if let Some(session) = &self.session {
            message["sessionId"] = session.as_str().into();
        }
        self.to.write_all(format!("{message}\0").as_bytes()).expect("the browser runs");
        loop {
            let mut text = Vec::new();
            self.from.read_until(0, &mut text).expect("the browser runs");
            assert_eq!(text.pop(), Some(0), "the browser has ended before it answered {method}");
            let mut message: Value = serde_json::from_slice(&text).expect("the browser speaks JSON");
            if message["id"] == self.next {
                assert!(message.get("error").is_none(), "{method}: {message:#}");
                return message["result"].take();
            }
            self.events.push(message);
        }
    }

    /// The value of an expression in the page, awaited. Panics when it throws.
    pub fn value(&mut self, expression: &str) -> Value {
        let mut result = self.call("Runtime.evaluate", json!({ "expression": expression, "awaitPromise": true, "returnByValue": true }));
        assert!(result.get("exceptionDetails").is_none(), "{expression}: {result:#}");
        result["result"]["value"].take()
    }

    /// Waits until an expression is true.
    pub fn until(&mut self, expression: &str) {
        until_within(PATIENCE, Duration::from_millis(20), expression, || match self.value(expression) {
            Value::Bool(true) => Ok(()),
            _ => Err(self.value("document.body.innerText").as_str().unwrap_or_default().to_owned()),
        });
    }

    /// How long it takes until an expression is true.
    pub fn time_until(&mut self, expression: &str) -> Duration {
        let began = Instant::now();
        self.until(expression);
        began.elapsed()
    }

    /// Makes the window so large, and the user's system light or dark.
    pub fn show_as(&mut self, width: u32, height: u32, scheme: &str) {
        self.call(
            "Emulation.setDeviceMetricsOverride",
            json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false }),
        );
        self.call("Emulation.setEmulatedMedia", json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] }));
    }

    /// Presses and releases a key, which types `text`.
    pub fn press(&mut self, key: &str, code: u32, text: &str) {
        let event = |kind: &str| json!({ "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code, "text": text });
        self.call("Input.dispatchKeyEvent", event("keyDown"));
        self.call("Input.dispatchKeyEvent", json!({ "type": "keyUp", "key": key, "code": key, "windowsVirtualKeyCode": code }));
    }

    /// Opens an address, and waits until the page is live.
    pub fn open(&mut self, address: &str) {
        self.call("Page.navigate", json!({ "url": format!("http://{address}/") }));
        self.until("document.readyState === 'complete' && document.getElementById('live')?.textContent === 'Live'");
        self.until("document.querySelectorAll('#ways tr').length > 0");
    }

    /// What went wrong in the page since the last call: exceptions, and errors in its console.
    pub fn errors(&mut self) -> Vec<String> {
        // What came before this is there now.
        self.value("0");
        let is_error = |event: &Value| match event["method"].as_str() {
            Some("Runtime.exceptionThrown") => true,
            // The world's links get their last addresses while the browser runs, and then it makes its connections anew.
            Some("Log.entryAdded") => {
                let entry = &event["params"]["entry"];
                entry["level"] == "error" && !entry["text"].as_str().is_some_and(|text| text.contains("ERR_NETWORK_CHANGED"))
            }
            Some("Runtime.consoleAPICalled") => matches!(event["params"]["type"].as_str(), Some("error" | "warning" | "assert")),
            _ => false,
        };
        self.events.drain(..).filter(is_error).map(|event| event["params"].to_string()).collect()
    }

    /// What axe-core finds. `EGRESSD_AXE` names its file.
    pub fn inaccessible(&mut self) -> Value {
        let file = env::var("EGRESSD_AXE").expect("make test-ui names axe-core's file");
        let axe = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{file}: {error}"));
        self.value(&format!("{axe};0"));
        self.value("axe.run().then(found => found.violations.map(v => [v.id, v.help, v.nodes.map(node => node.html.slice(0, 200))]))")
    }

    /// The window as a PNG, once nothing is under way.
    pub fn screenshot(&mut self) -> Vec<u8> {
        thread::sleep(Duration::from_millis(300));
        let shot = self.call("Page.captureScreenshot", json!({ "format": "png", "optimizeForSpeed": false }));
        BASE64_STANDARD.decode(shot["data"].as_str().expect("a text")).expect("Base64")
    }
}

impl Drop for Chrome {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill().and_then(|()| self.child.wait());
    }
}
