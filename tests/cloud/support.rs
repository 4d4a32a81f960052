//! The emulator, the pools' folder, and `egressd-cloud` with both.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use world::{built, command, egressd, service::Service};

/// Fields of `cloud.aws` for a pool with an elastic address for each address.
pub const FORWARDER: &str = "elasticAddresses: Allocate";
const PORT: u16 = 5000;
const FOLDER: &str = "/run/cloud";

/// An account with a forwarder, and what the tests know of it.
pub struct Cloud {
    _emulator: Service,
}

impl Cloud {
    /// Starts the emulator with a new account.
    pub fn start() -> Self {
        command::run(&["ip", "link", "set", "lo", "up"]);
        fs::create_dir_all(Path::new(FOLDER).join("manifests")).expect("/run is ours");
        let mut emulator = Command::new("python3");
        emulator
            .arg("tests/cloud/emulator.py")
            .arg(PORT.to_string())
            .env("PYTHONPATH", built("tmp/cloud"))
            .env("PYTHONDONTWRITEBYTECODE", "1");
        let mut emulator = Service::start("emulator", emulator);
        emulator.wait_until("listening", Duration::from_secs(60), || TcpStream::connect(("127.0.0.1", PORT)).is_ok());
        let cloud = Self { _emulator: emulator };
        cloud.new_account(&json!({}));
        cloud
    }

    /// Forgets everything, the pools as well.
    pub fn new_account(&self, wishes: &Value) {
        let ids = ask("new", wishes);
        fs::write(Path::new(FOLDER).join("ids"), ids.to_string()).expect("/run is ours");
        for file in fs::read_dir(manifests()).expect("it was made").flatten() {
            fs::remove_file(file.path()).expect("it is ours");
        }
    }

    /// An id of the account's: `nic`, `outside`, `other`, `table`, `gateway`, `instance`.
    pub fn id(&self, name: &str) -> String {
        let ids: Value = serde_json::from_slice(&fs::read(Path::new(FOLDER).join("ids")).expect("written")).expect("JSON");
        ids[name].as_str().unwrap_or_else(|| panic!("no {name} in {ids}")).to_owned()
    }

    /// All that a forwarder asks for.
    pub fn forwarder(&self) -> String {
        format!("{FORWARDER}, sourceDestCheck: Disabled, routeTables: [{}]", self.id("table"))
    }

    /// Writes a pool with these fields of `cloud.aws`.
    pub fn pool(&self, name: &str, range: &str, aws: &str) {
        let (start, end) = range.split_once('-').expect("a range");
        let text = format!(
            "apiVersion: egressd.dev/v1alpha1\nkind: EgressPool\nmetadata: {{name: {name}}}\n\
             spec: {{blocks: [{{start: {start}, end: {end}}}], cloud: {{aws: {{{aws}}}}}}}\n"
        );
        fs::write(manifests().join(format!("{name}.yaml")), text).expect("/run is ours");
    }

    /// Takes a pool's manifest away.
    pub fn remove(&self, name: &str) {
        fs::remove_file(manifests().join(format!("{name}.yaml"))).expect("it was written");
    }

    /// A file with this text, by its path.
    pub fn file(&self, name: &str, text: &str) -> String {
        let path = Path::new(FOLDER).join(name);
        fs::write(&path, text).expect("/run is ours");
        path.to_string_lossy().into_owned()
    }

    /// `egressd-cloud` with its folders and the emulator.
    pub fn program(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Command {
        let mut command = self.bare(arguments, environment);
        if arguments[0] != "status" {
            command.arg("--manifests").arg(manifests());
        }
        if matches!(arguments[0], "run" | "status") {
            command.arg("--state-dir").arg(FOLDER);
        }
        command
    }

    /// `egressd-cloud` with the emulator alone.
    pub fn bare(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Command {
        let mut command = Command::new(egressd::companion("egressd-cloud"));
        command.args(arguments);
        let endpoint = format!("http://127.0.0.1:{PORT}");
        command.env("AWS_ENDPOINT_URL", &endpoint).env("AWS_EC2_METADATA_SERVICE_ENDPOINT", &endpoint);
        command.envs(environment.iter().copied());
        command
    }

    /// Runs one of its commands; what it prints, or its failure with that.
    pub fn command(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Result<String, String> {
        command::finish(self.program(arguments, environment), &[&["egressd-cloud"], arguments].concat(), "")
    }

    /// Runs it until nothing is left to do, with readings that are up to date.
    pub fn once(&self) -> Result<String, String> {
        self.command(&["run", "--once", "--settle-seconds", "0"], &[])
    }

    /// What it knows.
    pub fn status(&self) -> Value {
        serde_json::from_str(&self.command(&["status", "-o", "json"], &[]).expect("there is a status")).expect("JSON")
    }

    /// A condition of a pool.
    pub fn condition(&self, pool: &str, aspect: &str) -> Value {
        self.status()["pools"][pool]["conditions"][aspect].clone()
    }

    /// How the emulator behaves from now on.
    pub fn set(&self, settings: &Value) {
        ask("set", settings);
    }

    /// All that there is.
    pub fn state(&self) -> Value {
        ask("state", &json!({}))
    }

    /// Somebody else allocates elastic addresses; their ids.
    pub fn allocate(&self, wishes: &Value) -> Vec<String> {
        serde_json::from_value(ask("allocate", wishes)).expect("ids")
    }

    /// Somebody else assigns addresses.
    pub fn assign(&self, nic: &str, addresses: &[&str]) {
        ask("assign", &json!({ "nic": nic, "addresses": addresses }));
    }

    /// Somebody else lets an elastic address lead elsewhere.
    pub fn lead(&self, eip: &str, nic: &str, private: &str) {
        ask("lead", &json!({ "id": eip, "nic": nic, "private": private }));
    }

    /// Somebody else lets the business servers' default route lead to this network interface.
    pub fn route(&self, nic: &str) {
        ask("route", &json!({ "nic": nic }));
    }

    /// Somebody else deletes a network interface.
    pub fn delete(&self, nic: &str) {
        ask("delete", &json!({ "nic": nic }));
    }

    /// The instance's network interface is deleted with all that leads to it, and another one takes its place: the id of that.
    pub fn replace(&self) -> String {
        serde_json::from_value(ask("replace", &json!({}))).expect("an id")
    }

    /// All calls so far.
    pub fn calls(&self) -> Vec<Value> {
        serde_json::from_value(ask("told", &json!({}))).expect("a list")
    }

    /// The calls that changed something: the action with its form.
    pub fn changes(&self) -> Vec<String> {
        let changed = |call: &Value| call["code"].is_null() && !call["action"].as_str().unwrap().starts_with("Describe");
        let named = |call: Value| format!("{} {}", call["action"].as_str().unwrap(), call["form"]);
        self.calls().into_iter().filter(changed).map(named).collect()
    }

    /// The calls that were refused.
    pub fn refused(&self) -> Vec<Value> {
        self.calls().into_iter().filter(|call| !call["code"].is_null()).collect()
    }

    /// The NIC has these addresses and its own, each with one elastic address of ours, and there is no other one of ours.
    pub fn has(&self, addresses: &[&str]) {
        let state = self.state();
        let nic = self.id("nic");
        let held: BTreeSet<String> = serde_json::from_value(state["nics"][&nic]["addresses"].clone()).expect("a list");
        let wanted: BTreeSet<String> = addresses.iter().copied().chain(["10.0.1.10"]).map(str::to_owned).collect();
        assert_eq!(held, wanted, "{state}");
        let ours = state["elastic"].as_object().unwrap().values().filter(|eip| eip["tags"].get("egressd.dev/pool").is_some());
        let mut led: Vec<&str> = ours.map(|eip| eip["private"].as_str().unwrap_or("nowhere")).collect();
        led.sort_unstable();
        assert_eq!(led, addresses, "{state}");
    }
}

fn manifests() -> PathBuf {
    Path::new(FOLDER).join("manifests")
}

/// Asks the emulator itself.
fn ask(path: &str, body: &Value) -> Value {
    let body = body.to_string();
    let mut stream = TcpStream::connect(("127.0.0.1", PORT)).expect("the emulator listens");
    write!(stream, "POST /_{path} HTTP/1.0\r\nContent-Length: {}\r\n\r\n{body}", body.len()).expect("it takes it");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer}"));
    assert!(head.contains(" 200 "), "{answer}");
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}"))
}
