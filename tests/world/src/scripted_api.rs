//! An API server that says what a test tells it: conflicts, silence, half answers, resets, and a proxy's refusals.
//!
//! What no rule of the test is about it answers as a real one would, as far as egressd can tell: objects with versions, lists, watches, writes with
//! preconditions. It speaks HTTP without TLS on loopback and knows nobody's rights.

mod store;
mod wire;

use std::{
    fs,
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use store::Store;
pub use wire::Request;

/// How a request is answered that a rule is about.
#[derive(Clone, Debug)]
pub enum Answer {
    /// Never, though it was read.
    Silence,
    /// The connection is closed.
    Reset,
    /// With this code, and more headers (`Retry-After: 86400`).
    Refused(u16, &'static str),
    /// The head of a good answer and the first bytes of its body, and then nothing.
    Half,
    /// With these lines and nothing more, as a watch; the connection stays.
    Lines(Vec<Value>),
    /// With these lines, and the connection ends.
    Ended(Vec<Value>),
}

type Rule = Box<dyn Fn(&Request) -> Option<Answer> + Send>;

/// A request that came.
#[derive(Clone, Debug)]
pub struct Asked {
    pub at: Instant,
    pub request: Request,
}

#[derive(Default)]
struct State {
    store: Store,
    rule: Option<Rule>,
    asked: Vec<Asked>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

/// A running one. Its threads end with the test program.
pub struct ScriptedApi {
    shared: Arc<Shared>,
    port: u16,
}

impl ScriptedApi {
    /// Starts one with nothing in it.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("it is bound").port();
        let shared = Arc::new(Shared { state: Mutex::default(), changed: Condvar::new() });
        let serving = Arc::clone(&shared);
        thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let shared = Arc::clone(&serving);
                // An error is the other end's: it went away.
                thread::spawn(move || drop(serve(&shared, connection)));
            }
        });
        Self { shared, port }
    }

    /// Writes a kubeconfig for it into a folder.
    pub fn kubeconfig(&self, folder: &Path) -> PathBuf {
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{ "name": "c", "cluster": { "server": format!("http://127.0.0.1:{}", self.port) } }],
            "users": [{ "name": "u", "user": {} }],
            "contexts": [{ "name": "c", "context": { "cluster": "c", "user": "u" } }],
        });
        let path = folder.join("kubeconfig");
        fs::write(&path, config.to_string()).expect("the folder is the test's");
        path
    }

    /// What is said to whom from now on; `None` is the usual. A watch that is [`Answer::Reset`] ends, also one that has begun.
    pub fn script(&self, rule: impl Fn(&Request) -> Option<Answer> + Send + 'static) {
        self.state().rule = Some(Box::new(rule));
        self.shared.changed.notify_all();
    }

    /// Puts an object there, or in an other's place. `resource` as in a path: `egressd.dev/egressbindings`, `namespaces`.
    pub fn put(&self, resource: &str, object: Value) {
        self.state().store.put(resource, object);
        self.shared.changed.notify_all();
    }

    /// Deletes an object, `namespace/name` or a name.
    pub fn delete(&self, resource: &str, key: &str) {
        self.state().store.delete(resource, key);
        self.shared.changed.notify_all();
    }

    /// An object as it is.
    pub fn get(&self, resource: &str, key: &str) -> Option<Value> {
        self.state().store.get(resource, key).cloned()
    }

    /// All that was asked so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.state().asked.clone()
    }

    /// How often something of this kind was asked since then.
    pub fn count(&self, since: Instant, of: impl Fn(&Request) -> bool) -> usize {
        self.state().asked.iter().filter(|asked| asked.at >= since && of(&asked.request)).count()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().expect("no test panics while it has it")
    }
}

fn serve(shared: &Shared, connection: TcpStream) -> std::io::Result<()> {
    let mut wire = wire::Wire::new(connection)?;
    while let Some(request) = wire.request()? {
        let (rule, answer) = {
            let mut state = shared.state.lock().expect("no test panics while it has it");
            state.asked.push(Asked { at: Instant::now(), request: request.clone() });
            let rule = state.rule.as_ref().and_then(|rule| rule(&request));
            let answer = if rule.is_none() && !request.watch { Some(state.store.answer(&request)) } else { None };
            (rule, answer)
        };
        shared.changed.notify_all();
        match (rule, answer) {
            (Some(Answer::Silence), _) => return wire.wait(),
            (Some(Answer::Reset), _) => return Ok(()),
            (Some(Answer::Refused(code, headers)), _) => wire.answer(code, headers, &store::refusal(code, &request))?,
            (Some(Answer::Half), _) => {
                wire.half()?;
                return wire.wait();
            }
            (Some(Answer::Lines(lines)), _) => {
                wire.begin()?;
                lines.iter().try_for_each(|line| wire.line(line))?;
                return wire.wait();
            }
            (Some(Answer::Ended(lines)), _) => {
                wire.begin()?;
                return lines.iter().try_for_each(|line| wire.line(line));
            }
            (None, Some((code, body))) => wire.answer(code, "", &body)?,
            (None, None) => return watch(shared, &request, &mut wire),
        }
    }
    Ok(())
}

fn watch(shared: &Shared, request: &Request, wire: &mut wire::Wire) -> std::io::Result<()> {
    wire.begin()?;
    let mut version = request.version;
    let mut state = shared.state.lock().expect("no test panics while it has it");
    if request.listed {
        let (lines, now) = state.store.listed(request);
        lines.iter().try_for_each(|line| wire.line(line))?;
        version = now;
    }
    while !matches!(state.rule.as_ref().and_then(|rule| rule(request)), Some(Answer::Reset)) {
        for (at, line) in state.store.since(request, version) {
            wire.line(&line)?;
            version = at;
        }
        state = shared.changed.wait_timeout(state, Duration::from_secs(1)).expect("no test panics while it has it").0;
    }
    Ok(())
}
