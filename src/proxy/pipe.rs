//! What carries bytes from one socket to another: a buffer for the first of them, a pipe for many. Neither is held while nobody sends.

use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SpliceFFlags, fcntl, splice};
use nix::sys::socket::{MsgFlags, recv, send};
use tokio::net::TcpStream;

/// Bytes of a buffer.
const BUFFER: usize = 16 * 1024;
/// Bytes of a pipe: four times what the kernel gives unasked, up to `fs.pipe-max-size`.
const PIPE: i32 = 256 * 1024;
/// Bytes in one direction after which a pipe is worth its two system calls for each piece.
pub const MANY: u64 = 64 * 1024;
/// Pipes that wait for the next burst.
const KEPT: usize = 32;
/// Pipes at once, of two descriptors each, beside what is counted: those that carry more have a buffer.
const MOST: usize = 96;

/// A pipe, empty whenever nobody carries with it.
pub struct Pipe {
    reader: PipeReader,
    writer: PipeWriter,
}

impl Pipe {
    fn new() -> io::Result<Self> {
        let (reader, writer) = io::pipe()?;
        // Without the right to a larger one it has the usual size.
        let _ = fcntl(&writer, FcntlArg::F_SETPIPE_SZ(PIPE));
        Ok(Self { reader, writer })
    }
}

/// The pipes of all bursts.
#[derive(Default)]
pub struct Pipes(Mutex<Stock>);

#[derive(Default)]
struct Stock {
    kept: Vec<Pipe>,
    /// Pipes that carry.
    busy: usize,
}

impl Pipes {
    /// One, unless there are as many as there may be, or the kernel makes none.
    fn take(&self) -> Option<Pipe> {
        let mut stock = self.stock();
        if stock.busy == MOST {
            return None;
        }
        let pipe = stock.kept.pop().or_else(|| Pipe::new().ok())?;
        stock.busy += 1;
        Some(pipe)
    }

    /// Takes one back; `None` is one that still held something.
    fn put(&self, pipe: Option<Pipe>) {
        let mut stock = self.stock();
        stock.busy -= 1;
        if stock.kept.len() < KEPT {
            stock.kept.extend(pipe);
        }
    }

    fn stock(&self) -> MutexGuard<'_, Stock> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Medium {
    Buffer { bytes: Box<[u8]>, from: usize },
    Pipe(Option<Pipe>),
}

/// Carries bytes for one burst: filled from one socket, then emptied into the other.
pub struct Carrier<'a> {
    pipes: &'a Pipes,
    medium: Medium,
    /// Bytes that it holds.
    held: usize,
}

impl<'a> Carrier<'a> {
    /// A pipe for `many` bytes where one is to be had, else a buffer.
    pub fn new(pipes: &'a Pipes, many: bool) -> Self {
        let pipe = if many { pipes.take() } else { None };
        let medium = match pipe {
            Some(pipe) => Medium::Pipe(Some(pipe)),
            None => Medium::Buffer { bytes: vec![0; BUFFER].into(), from: 0 },
        };
        Self { pipes, medium, held: 0 }
    }

    /// Takes what the socket has; 0 at its end. To be called when it is empty.
    pub fn fill(&mut self, socket: &TcpStream) -> io::Result<usize> {
        self.held = match &mut self.medium {
            Medium::Buffer { bytes, from } => {
                *from = 0;
                again(|| recv(socket.as_raw_fd(), bytes, MsgFlags::MSG_DONTWAIT))?
            }
            Medium::Pipe(pipe) => moved(socket, &pipe_of(pipe).writer, PIPE as usize)?,
        };
        Ok(self.held)
    }

    /// Gives some of what it holds to the socket, and tells how much.
    pub fn empty(&mut self, socket: &TcpStream) -> io::Result<usize> {
        let gone = match &mut self.medium {
            Medium::Buffer { bytes, from } => {
                let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
                let gone = again(|| send(socket.as_raw_fd(), &bytes[*from..*from + self.held], flags))?;
                *from += gone;
                gone
            }
            Medium::Pipe(pipe) => moved(&pipe_of(pipe).reader, socket, self.held)?,
        };
        self.held -= gone;
        Ok(gone)
    }

    /// Whether it carries pages.
    pub fn is_pipe(&self) -> bool {
        matches!(self.medium, Medium::Pipe(_))
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.held == 0
    }
}

impl Drop for Carrier<'_> {
    fn drop(&mut self) {
        if let Medium::Pipe(pipe) = &mut self.medium {
            self.pipes.put(pipe.take().filter(|_| self.held == 0));
        }
    }
}

fn pipe_of(pipe: &Option<Pipe>) -> &Pipe {
    pipe.as_ref().expect("it is taken out at the end alone")
}

/// Moves pages, not bytes (splice(2)): one of the two is a pipe.
fn moved(from: impl AsFd, to: impl AsFd, most: usize) -> io::Result<usize> {
    again(|| splice(&from, None, &to, None, most, SpliceFFlags::SPLICE_F_NONBLOCK | SpliceFFlags::SPLICE_F_MOVE))
}

fn again(mut call: impl FnMut() -> nix::Result<usize>) -> io::Result<usize> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            done => return Ok(done?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pipes_have_a_bound_and_are_used_again() {
        let pipes = Pipes::default();
        let carriers: Vec<Carrier> = (0..=MOST).map(|_| Carrier::new(&pipes, true)).collect();
        assert_eq!(carriers.iter().filter(|carrier| carrier.is_pipe()).count(), MOST, "who comes after them has a buffer");
        drop(carriers);
        assert_eq!(pipes.stock().kept.len(), KEPT);
        assert!(Carrier::new(&pipes, true).is_pipe() && !Carrier::new(&pipes, false).is_pipe());
    }
}
