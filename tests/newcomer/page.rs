//! A page of the documentation that shows commands with what they print, compared with what they print here.

use std::{
    cell::Cell,
    fs, thread,
    time::{Duration, Instant},
};

/// How long a command may take to print what the page shows: the daemon hears of containers and NICs by events.
const PATIENCE: Duration = Duration::from_secs(10);

/// The commands of a page, section by section.
pub struct Page {
    examples: Vec<Example>,
}

/// A command of a `console` block, and the lines below it.
struct Example {
    section: String,
    command: String,
    lines: Vec<String>,
    shown: Cell<bool>,
}

/// A page of `docs`, as it is written.
pub fn text_of(name: &str) -> String {
    let path = format!("{}/docs/{name}", env!("CARGO_MANIFEST_DIR"));
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

impl Page {
    /// Reads a page of `docs`.
    pub fn read(name: &str) -> Self {
        let text = text_of(name);
        let (mut examples, mut section, mut inside) = (Vec::<Example>::new(), "", false);
        for line in text.lines() {
            if line.starts_with("```") {
                inside = line == "```console";
            } else if inside {
                match (line.strip_prefix("$ "), examples.last_mut()) {
                    (Some(command), _) => examples.push(Example {
                        section: section.to_owned(),
                        command: command.to_owned(),
                        lines: Vec::new(),
                        shown: Cell::new(false),
                    }),
                    (None, Some(example)) => example.lines.push(line.to_owned()),
                    (None, None) => panic!("{name}: {line} is below no command"),
                }
            } else if line.starts_with('#') {
                section = line.trim_start_matches('#').trim();
            }
        }
        assert!(!examples.is_empty(), "{name} shows no command");
        Self { examples }
    }

    /// Panics unless each command of the section prints all lines that the page shows below it; `run` runs one.
    pub fn shows(&self, section: &str, run: impl Fn(&str) -> String) {
        let examples: Vec<_> = self.examples.iter().filter(|example| example.section == section).collect();
        assert!(!examples.is_empty(), "the page has no section {section} that shows a command");
        for example in examples {
            let begun = Instant::now();
            loop {
                let printed = run(&example.command);
                match example.missing(&printed) {
                    None => break,
                    Some(line) if begun.elapsed() > PATIENCE => {
                        panic!("{section}: `{}` does not print {line:?}, but:\n{printed}", example.command)
                    }
                    Some(_) => thread::sleep(Duration::from_millis(200)),
                }
            }
            example.shown.set(true);
        }
    }

    /// The control of [`Self::shows`]: panics if the section's last command prints what the page shows while its cause is not there.
    pub fn does_not_show(&self, section: &str, run: impl Fn(&str) -> String) {
        let example = self.examples.iter().rfind(|example| example.section == section).expect("a section of the page");
        let printed = run(&example.command);
        assert!(example.missing(&printed).is_some(), "{section}: is shown without its cause:\n{printed}");
    }

    /// Panics if a command of a section that `of` lets through was never run.
    pub fn assert_all_shown(&self, of: impl Fn(&str) -> bool) {
        let never = self.examples.iter().filter(|example| of(&example.section) && !example.shown.get());
        let never: Vec<_> = never.map(|example| (&example.section, &example.command)).collect();
        assert!(never.is_empty(), "nothing compares {never:?}");
    }
}

impl Example {
    /// The first line that is not printed.
    fn missing(&self, printed: &str) -> Option<&String> {
        let printed: Vec<_> = printed.lines().map(words).collect();
        self.lines.iter().find(|line| !printed.contains(&words(line)))
    }
}

/// A line as words. Numbers (of flows, of packets), times and the engine's names of veths differ from run to run, and so do the widths of columns.
fn words(line: &str) -> Vec<&str> {
    let is_time = |word: &str| word.starts_with(|c: char| c.is_ascii_digit()) && word.bytes().all(|byte| b"0123456789dhms".contains(&byte));
    let differs = |word: &str| is_time(word.trim_end_matches([')', ','])) || word.starts_with("veth");
    line.split_whitespace().map(|word| if differs(word) { "#" } else { word }).collect()
}
