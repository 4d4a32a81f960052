//! `kubectl get --watch`: waiting for what an object says, without asking again and again. Each `kubectl get` takes a tenth of a second of
//! a processor that the cluster needs for what is waited for.

use std::{
    io::BufReader,
    process::{Child, Command, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Deserializer, Value};

use super::{
    api::ApiServer,
    kubectl::{self, PATIENCE, has_condition},
};

/// Before an object is asked for again that was not there, or whose watch has ended.
const PAUSE: Duration = Duration::from_millis(200);

/// A watch that tells nothing for so long is begun anew: one that has lost a word would wait for ever.
const QUIET: Duration = Duration::from_secs(10);

/// A `kubectl` that prints an object whenever it changes. It is killed when dropped.
struct Watch {
    kubectl: Child,
    events: Receiver<Value>,
}

impl ApiServer {
    /// Waits until an object is as asked for, and returns it. Panics with the last one when it never is.
    pub fn await_object(&self, what: &[&str], fits: impl Fn(&Value) -> bool) -> Value {
        let until = Instant::now() + PATIENCE;
        let mut last = "there is none".to_owned();
        loop {
            let watch = self.watch(what);
            while let Some(event) = watch.next(until.min(Instant::now() + QUIET)) {
                let object = &event["object"];
                // What it was like in its last moment is not what it is.
                if event["type"] != "DELETED" && fits(object) {
                    return object.clone();
                }
                last = format!("{}: {object:#}", event["type"]);
            }
            assert!(Instant::now() < until, "not after {} s: {what:?} is as asked for: {last}", PATIENCE.as_secs());
            thread::sleep(PAUSE);
        }
    }

    /// Waits until the object's condition of this type is `True`.
    pub fn await_condition(&self, what: &[&str], condition: &str) -> Value {
        self.await_object(what, |object| has_condition(object, condition))
    }

    fn watch(&self, what: &[&str]) -> Watch {
        let mut command = kubectl::command(&self.kubeconfig());
        command.args(["get", "-o", "json", "--watch", "--output-watch-events"]).args(what);
        Watch::start(self.netns.enter(|| Watch::spawn(command)))
    }
}

impl Watch {
    fn spawn(mut command: Command) -> Child {
        let spawned = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        spawned.unwrap_or_else(|error| panic!("failed to run kubectl: {error}"))
    }

    fn start(mut kubectl: Child) -> Self {
        let (sender, events) = mpsc::channel();
        let printed = BufReader::new(kubectl.stdout.take().expect("it is piped"));
        thread::spawn(move || {
            // Nobody listens any more once the object is as asked for.
            Deserializer::from_reader(printed).into_iter().map_while(Result::ok).try_for_each(|event| sender.send(event))
        });
        Self { kubectl, events }
    }

    /// The next event; none when there will not be another one, or not in time.
    fn next(&self, until: Instant) -> Option<Value> {
        self.events.recv_timeout(until.saturating_duration_since(Instant::now())).ok()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.kubectl.kill().and_then(|()| self.kubectl.wait());
    }
}
