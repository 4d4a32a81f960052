//! Whatever reads what others wrote is given what it may once have been given, and what nobody would send: nothing panics, hangs or takes much
//! memory. The corpus began with real answers and examples; `make fuzz` adds what reaches code that nothing before it did.

use std::alloc::System;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use cap::Cap;
use egressd::fuzzing::{LIMIT, READERS, Reader};
use fastrand::Rng;
use libtest_mimic::{Arguments, Failed, Trial};

/// More ends this program. The input is in the file that [`search`] names.
#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, 2 * LIMIT);

/// How long each reader is searched, and in `make soak`. `make fuzz` takes an hour for each, and keeps what reaches new code in the corpus.
const SEARCH: [Duration; 2] = [Duration::from_secs(4), Duration::from_secs(60)];
/// How long one input may take, in a debug build on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);
/// Bytes of a made input.
const LONGEST: usize = 16 * 1024;
/// Numbers at which arithmetic may go wrong.
const EDGES: [&str; 8] = ["0", "-1", "255", "65535", "65536", "4294967295", "18446744073709551615", "1e400"];

/// Milliseconds since the start at which an input was begun; 0 while there is none.
static BEGUN: AtomicU64 = AtomicU64::new(0);

fn main() -> ExitCode {
    let start = Instant::now();
    thread::spawn(move || watch(start));
    let trial = |(name, reader): (&'static str, Reader)| {
        Trial::test(format!("{name}: no input harms its reader"), move || search(name, reader, start).map_err(Failed::from))
    };
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    libtest_mimic::run(&arguments, READERS.into_iter().map(trial).collect()).exit_code()
}

/// Ends the program when an input takes too long.
fn watch(start: Instant) {
    loop {
        thread::sleep(Duration::from_secs(1));
        let begun = BEGUN.load(Ordering::Relaxed);
        if begun != 0 && start.elapsed() > Duration::from_millis(begun) + PATIENCE {
            eprintln!("an input takes more than {PATIENCE:?}: it is in {}", at_hand().display());
            std::process::abort();
        }
    }
}

/// The input that a reader has just now.
fn at_hand() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("reader-input")
}

/// Gives a reader its corpus, and then variations of it.
fn search(name: &str, reader: Reader, start: Instant) -> Result<(), String> {
    let corpus = corpus(name)?;
    let seed = fastrand::u64(..);
    let mut rng = Rng::with_seed(seed);
    let began = Instant::now();
    let mut tried = 0_u64;
    let at_hand_file = File::create(at_hand()).map_err(|error| format!("{}: {error}", at_hand().display()))?;
    let give = |bytes: &[u8]| {
        let written = at_hand_file.set_len(bytes.len() as u64).and_then(|()| at_hand_file.write_all_at(bytes, 0));
        written.map_err(|error| format!("{}: {error}", at_hand().display()))?;
        BEGUN.store(start.elapsed().as_millis() as u64 + 1, Ordering::Relaxed);
        let ended = std::panic::catch_unwind(|| reader(bytes));
        BEGUN.store(0, Ordering::Relaxed);
        ended.map_err(|_| format!("{name} panicked at {:?} (in {})", String::from_utf8_lossy(bytes), at_hand().display()))
    };
    for input in &corpus {
        give(input)?;
    }
    let [usual, soak] = SEARCH;
    while began.elapsed() < world::count(usual, soak) {
        give(&varied(&corpus, &mut rng))?;
        tried += 1;
    }
    println!("{name}: {} inputs of the corpus, {tried} variations", corpus.len());
    Ok(())
}

/// One input a line, in hexadecimal digits.
fn corpus(name: &str) -> Result<Vec<Vec<u8>>, String> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(name);
    let text = fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
    let byte = |at: usize, line: &str| u8::from_str_radix(line.get(at..at + 2)?, 16).ok();
    let bytes = |line: &str| (0..line.len()).step_by(2).map(|at| byte(at, line)).collect::<Option<Vec<u8>>>();
    let all: Option<Vec<Vec<u8>>> = text.lines().map(bytes).collect();
    all.filter(|all| !all.is_empty()).ok_or_else(|| format!("{} has a line that is not hexadecimal, or none", file.display()))
}

/// One of the corpus with a few changes.
fn varied(corpus: &[Vec<u8>], rng: &mut Rng) -> Vec<u8> {
    let mut bytes = corpus[rng.usize(..corpus.len())].clone();
    for _ in 0..rng.usize(1..6) {
        let at = rng.usize(..=bytes.len());
        let end = at + rng.usize(..=bytes.len() - at).min(64);
        match rng.u8(..8) {
            0 => bytes.truncate(at),
            1 => drop(bytes.drain(at..end)),
            2 => bytes.extend_from_within(at..end),
            3 => drop(bytes.splice(at..at, std::iter::repeat_with(|| rng.u8(..)).take(4).collect::<Vec<_>>())),
            4 => drop(bytes.splice(at..end, EDGES[rng.usize(..EDGES.len())].bytes())),
            5 => {
                let other = &corpus[rng.usize(..corpus.len())];
                let from = rng.usize(..=other.len());
                bytes.splice(at..end, other[from..].iter().copied());
            }
            _ => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = if rng.bool() { *byte ^ (1 << rng.u8(..8)) } else { rng.choice([0, 1, 0x7f, 0x80, 0xff]).unwrap_or(0) };
                }
            }
        }
        bytes.truncate(LONGEST);
    }
    bytes
}
