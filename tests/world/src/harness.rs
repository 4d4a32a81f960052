//! Scenarios, and the `main` of a test program made of them.
//!
//! The program starts itself again for each scenario, in namespaces of its own (see `isolate`). A scenario fails by a panic,
//! or by taking longer than its limit; what it printed is shown then.

use std::{
    cmp::Reverse,
    env,
    fs::{self, File, TryLockError},
    io,
    panic::{self, AssertUnwindSafe},
    process::ExitCode,
    sync::{Mutex, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

use libtest_mimic::{Arguments, Trial};

use crate::{built, cluster::first, groups, isolate};

/// Time that a scenario may take when it does not say otherwise.
pub const LIMIT: Duration = Duration::from_secs(120);
/// Clusters at once, of all test programs. More run out of what the machine has once: of 128 inotify instances a cluster takes dozens. They
/// count for the user who made a user namespace, too, so that one for each scenario would not help.
const CLUSTERS: usize = 2;

/// One test with a world of its own.
pub struct Scenario {
    name: String,
    limit: Duration,
    shown: bool,
    alone: bool,
    cluster: bool,
    run: Box<dyn Fn() + Send + Sync>,
}

impl Scenario {
    /// A scenario whose name is a sentence; `run` panics when it is not so.
    pub fn new(name: impl Into<String>, run: impl Fn() + Send + Sync + 'static) -> Self {
        Self { name: name.into(), limit: LIMIT, shown: false, alone: false, cluster: false, run: Box::new(run) }
    }

    /// The same with another limit than [`LIMIT`].
    #[must_use]
    pub fn within(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// The same, with its output shown at once and always, not only when it fails.
    #[must_use]
    pub fn shown(mut self) -> Self {
        self.shown = true;
        self
    }

    /// The same, with none beside it, of another test program neither: it takes all that the machine has.
    #[must_use]
    pub fn alone(mut self) -> Self {
        self.alone = true;
        self
    }

    /// The same, with a cluster: there are never many of them at once.
    #[must_use]
    pub fn with_cluster(mut self) -> Self {
        self.cluster = true;
        self
    }

    fn trial(self) -> Trial {
        let Self { name, limit, shown, alone, cluster, .. } = self;
        Trial::test(name.clone(), move || {
            let _places = places(alone, cluster).map_err(|error| format!("failed to lock: {error}"))?;
            let began = Instant::now();
            let (ended, processors) = isolate::run(&name, limit, shown);
            TOOK.lock().unwrap_or_else(PoisonError::into_inner).push((began.elapsed(), processors, name.clone()));
            ended.map_err(Into::into)
        })
    }
}

/// How long each scenario took, once it had its place, and how much of that a processor was busy for it.
static TOOK: Mutex<Vec<(Duration, Duration, String)>> = Mutex::new(Vec::new());
/// As many are told at the end.
const SLOWEST: usize = 5;

/// Says which scenarios took longest: where a suite's time goes.
fn tell_slowest() {
    let mut took = TOOK.lock().unwrap_or_else(PoisonError::into_inner);
    took.sort_by_key(|(time, ..)| Reverse(*time));
    if took.len() > SLOWEST {
        let all: Duration = took.iter().map(|(_, processors, _)| processors).sum();
        println!("{:.0} s of processors; slowest, with theirs:", all.as_secs_f64());
        for (time, processors, name) in took.iter().take(SLOWEST) {
            println!("{:6.1} s {:6.1} s  {name}", time.as_secs_f64(), processors.as_secs_f64());
        }
    }
}

/// Waits until a scenario may run, by locks that all test programs share. It may until the returned files are closed.
pub(crate) fn places(alone: bool, cluster: bool) -> io::Result<Vec<File>> {
    if env::var_os(isolate::CGROUP).is_some() {
        // A scenario that runs another one has its place already.
        return Ok(Vec::new());
    }
    let folder = built("tmp");
    fs::create_dir_all(&folder)?;
    let open = |name: &str| File::options().create(true).append(true).open(folder.join(name));
    let mut places = Vec::new();
    if cluster {
        places.push(any_of(|number| open(&format!("clusters.{number}.lock")))?);
    }
    // Whoever waits for the others to end keeps the door, so that no new ones come in. Those inside wait for nothing any more.
    let (door, place) = (open("scenarios.door")?, open("scenarios.lock")?);
    door.lock()?;
    if alone {
        place.lock()?
    } else {
        place.lock_shared()?
    }
    places.push(place);
    Ok(places)
}

/// Waits for one of the clusters' locks.
fn any_of(open: impl Fn(usize) -> io::Result<File>) -> io::Result<File> {
    loop {
        for number in 0..CLUSTERS {
            let lock = open(number)?;
            match lock.try_lock() {
                Ok(()) => return Ok(lock),
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
        thread::sleep(Duration::from_millis(100));
    }
}

/// Runs a scenario, and says last what it failed by: what ends with it prints logs.
fn told_last(run: &dyn Fn()) -> ExitCode {
    let (panics, told) = mpsc::channel();
    let hook = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        hook(info);
        // Nobody listens to a thread that outlives the scenario.
        let _ = panics.send(info.to_string());
    }));
    let ended = panic::catch_unwind(AssertUnwindSafe(run));
    if ended.is_ok() {
        return ExitCode::SUCCESS;
    }
    told.try_iter().for_each(|panic| eprintln!("--- failed: {panic}"));
    ExitCode::FAILURE
}

/// The `main` of a test program: takes the arguments of a usual Rust test (`--list`, a filter, `--test-threads`).
pub fn main(scenarios: Vec<Scenario>) -> ExitCode {
    run(2, scenarios)
}

/// The same for scenarios that have no engine and no node, and mostly wait: more of them at once.
pub fn main_of_waiting(scenarios: Vec<Scenario>) -> ExitCode {
    run(4, scenarios)
}

fn run(at_once: usize, mut scenarios: Vec<Scenario>) -> ExitCode {
    match env::var(isolate::STAGE).as_deref() {
        Ok(isolate::INIT) => isolate::init(),
        Ok(first::STAGE) => first::main(),
        Ok(isolate::RUN) => {
            let name = env::var(isolate::NAME).expect("the stage before names the scenario");
            let scenario = scenarios.iter().find(|scenario| scenario.name == name).expect("the same program named it");
            told_last(&scenario.run)
        }
        _ => {
            groups::sweep();
            // One that has to be alone waits until all others have ended, and nothing begins meanwhile: there are the fewest at first.
            scenarios.sort_by_key(|scenario| !scenario.alone);
            let trials = scenarios.into_iter().map(Scenario::trial).collect();
            let mut arguments = Arguments::from_args();
            arguments.test_threads.get_or_insert(at_once);
            let ended = libtest_mimic::run(&arguments, trials);
            tell_slowest();
            ended.exit_code()
        }
    }
}
