//! Writes down what the next boot is to close, beside the loop: a disk may take seconds.

use std::path::PathBuf;
use std::sync::mpsc;
use std::thread::JoinHandle;

use super::{Event, EventSender, threads};
use crate::effects::boot;
use crate::effects::kernel::Failure;
use crate::plan::boot::Remembered;

/// What failures of it are known by.
pub(super) const STEP: &str = "remembering what is guarded";

/// The thread, and what it was last given.
pub(super) struct Keeper {
    given: Option<Remembered>,
    write: mpsc::Sender<Remembered>,
    thread: JoinHandle<()>,
}

impl Keeper {
    pub fn start(file: PathBuf, tell: EventSender) -> Self {
        let (write, to_write) = mpsc::channel::<Remembered>();
        let work = move || {
            // Only the newest counts.
            while let Some(newest) = threads::all_given(&to_write, None).ok().and_then(|mut given| given.pop()) {
                let written = boot::write(&file, &newest);
                let cure = "give --boot-guard a file that can be written";
                let fails = |error| {
                    let failure = Failure::of(STEP, &error);
                    Failure { error: format!("{}; {cure}", failure.error), ..failure }
                };
                let _ = tell.send(Event::Remembered(written.map_err(fails)));
            }
        };
        Self { given: None, write, thread: threads::spawn("keeper", work) }
    }

    /// Has it written, unless that was done before.
    pub fn keep(&mut self, remembered: Remembered) {
        if self.given.as_ref() != Some(&remembered) {
            let _ = self.write.send(remembered.clone());
            self.given = Some(remembered);
        }
    }

    /// The last was not written: it is to be given again.
    pub fn failed(&mut self) {
        self.given = None;
    }

    /// Waits for what is being written, and writes nothing any more.
    pub fn end(self) {
        drop(self.write);
        let _ = self.thread.join();
    }
}
