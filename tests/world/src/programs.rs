//! Programs of the host itself, each started in a control group, as a user, or by another program, from its first instruction.
//!
//! The program is the test's own, which is called again: see [`act`].

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio},
    thread,
};

use nix::sched::{CloneFlags, unshare};

use crate::{
    CGROUP, FOLDER, command,
    netns::Netns,
    talk::{self, Flow, PATIENCE},
    traffic::{nobody, shout},
};

/// Environment variable with what the program does.
const ACT: &str = "EGRESSD_TEST_PROGRAM";

/// The scenario's own hierarchy of control groups: as the machine's, with nobody else in it.
pub struct Programs {
    root: PathBuf,
    program: PathBuf,
}

impl Programs {
    /// Moves the scenario into a control group and makes that the root of all that it and its programs see.
    pub fn new() -> Self {
        let mounts = fs::read_to_string("/proc/mounts").expect("it can be read");
        let whole = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2")).expect("control groups of version 2 are mounted");
        let name = std::env::var(CGROUP).expect("the harness names it");
        let own = Path::new(whole.split(' ').nth(1).expect("a mount has a place")).join(name);
        fs::create_dir_all(&own).and_then(|()| fs::write(own.join("cgroup.procs"), "0")).expect("root may");
        unshare(CloneFlags::CLONE_NEWCGROUP).expect("root may");
        let (root, program) = (Path::new(FOLDER).join("cgroup"), Path::new(FOLDER).join("program"));
        fs::create_dir_all(&root).expect("/run is ours");
        command::run(&["mount", "-t", "cgroup2", "cgroup2", &root.to_string_lossy()]);
        let own = std::env::current_exe().expect("a running program has a path");
        fs::copy(own, &program).expect("/run is ours");
        Self { root, program }
    }

    /// Makes a control group, `/jobs/batch`.
    pub fn make(&self, cgroup: &str) {
        fs::create_dir_all(self.folder(cgroup)).expect("root may");
    }

    /// Removes one that nobody is in any more, and those below it.
    pub fn remove(&self, cgroup: &str) {
        let folder = self.folder(cgroup);
        crate::status::until("the control group is empty", || fs::remove_dir(&folder).map_err(|error| error.to_string()));
    }

    /// Moves a running program into one.
    pub fn move_to(&self, cgroup: &str, running: &Running) {
        fs::write(self.folder(cgroup).join("cgroup.procs"), running.child.id().to_string()).expect("root may");
    }

    /// Whether it is there.
    pub fn exists(&self, cgroup: &str) -> bool {
        self.folder(cgroup).exists()
    }

    fn folder(&self, cgroup: &str) -> PathBuf {
        self.root.join(cgroup.trim_start_matches('/'))
    }

    /// The program, in no control group of its own.
    pub fn program(&self) -> Program<'_> {
        Program { programs: self, before: Vec::new() }
    }

    /// The program in a control group, which is made when it is not there: nothing is between that and its first act.
    pub fn within(&self, cgroup: &str) -> Program<'_> {
        let folder = self.folder(cgroup);
        let join = format!("mkdir -p '{0}' && echo $$ >'{0}/cgroup.procs' && exec \"$@\"", folder.display());
        self.program().through(&["sh", "-c", &join, "sh"])
    }
}

impl Default for Programs {
    fn default() -> Self {
        Self::new()
    }
}

/// A program that is to be started.
pub struct Program<'a> {
    programs: &'a Programs,
    before: Vec<String>,
}

impl Program<'_> {
    /// Started by another program with these arguments, which becomes it.
    #[must_use]
    pub fn through(mut self, arguments: &[&str]) -> Self {
        self.before.extend(arguments.iter().map(|text| (*text).to_owned()));
        self
    }

    /// As a user, by number. The right to enter namespaces is the test's own need.
    #[must_use]
    pub fn user(self, uid: u32) -> Self {
        let user = format!("--reuid={uid}");
        self.through(&["setpriv", &user, "--clear-groups", "--inh-caps=+sys_admin", "--ambient-caps=+sys_admin"])
    }

    fn command(&self, act: &str) -> Command {
        let mut whole: Vec<&str> = self.before.iter().map(String::as_str).collect();
        let program = self.programs.program.to_string_lossy().into_owned();
        whole.push(&program);
        let mut command = Command::new(whole[0]);
        command.args(&whole[1..]).env(ACT, act);
        command
    }

    /// Whom a server saw when the program asked it by TCP.
    pub fn tcp(&self, server: SocketAddr) -> Result<SocketAddr, String> {
        self.answer(&format!("tcp {server}"))
    }

    /// The same by a datagram of a socket that is not connected.
    pub fn udp(&self, server: SocketAddr) -> Result<SocketAddr, String> {
        self.answer(&format!("udp {server}"))
    }

    /// The same from a port, which a socket for datagrams may have as soon as the one before has ended.
    pub fn udp_from(&self, port: u16, server: SocketAddr) -> Result<SocketAddr, String> {
        self.answer(&format!("from {server} {port}"))
    }

    /// The same by a connected socket.
    pub fn connected_udp(&self, server: SocketAddr) -> Result<SocketAddr, String> {
        self.answer(&format!("connected {server}"))
    }

    fn answer(&self, act: &str) -> Result<SocketAddr, String> {
        let line = self.output(act)?;
        talk::parse(&line).map_err(|error| error.to_string())
    }

    /// Sends a datagram and the first packet of a connection, as its first acts, to where nobody answers in the family of `like`.
    pub fn shout(&self, like: IpAddr) {
        // What the host refuses on the spot has not left.
        let _ = self.output(&format!("shout {}", nobody(like)));
    }

    /// Asks by TCP and ends at once without a word: what is left to say the kernel says.
    pub fn leave(&self, server: SocketAddr) {
        self.output(&format!("leave {server}")).unwrap_or_else(|error| panic!("{error}"));
    }

    /// Whether a host answers its ping.
    pub fn ping(&self, to: IpAddr) -> Result<String, String> {
        self.instead(&["ping", "-n", "-c1", "-W2", &to.to_string()])
    }

    /// Starts another program in the same way, and returns what it prints.
    pub fn instead(&self, arguments: &[&str]) -> Result<String, String> {
        let before = self.before.iter().map(String::as_str);
        command::try_run(&before.chain(arguments.iter().copied()).collect::<Vec<_>>())
    }

    fn output(&self, act: &str) -> Result<String, String> {
        command::finish(self.command(act), &[act], "")
    }

    /// Starts one that keeps a connection to a server.
    pub fn flow(&self, server: SocketAddr) -> Running {
        self.start(&format!("flow {server}"))
    }

    /// Starts one that keeps a socket for datagrams to a server.
    pub fn datagrams(&self, server: SocketAddr) -> Running {
        self.start(&format!("datagrams {server}"))
    }

    /// Starts one that serves TCP and UDP on a port of an address.
    pub fn serve(&self, at: SocketAddr) -> Running {
        self.start(&format!("serve {at}"))
    }

    fn start(&self, act: &str) -> Running {
        let mut child =
            self.command(act).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap_or_else(|error| panic!("{act}: {error}"));
        let (input, output) = (child.stdin.take().expect("it is piped"), child.stdout.take().expect("it is piped"));
        let mut running = Running { child, input, output: BufReader::new(output), seen: Err(String::new()) };
        running.seen = running.line();
        running
    }
}

/// A program that runs until it is dropped.
pub struct Running {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    /// Whom the server saw at first.
    pub seen: Result<SocketAddr, String>,
}

impl Running {
    /// Whom the server sees now, by the same socket.
    pub fn ask(&mut self) -> Result<SocketAddr, String> {
        self.input.write_all(b"again\n").map_err(|error| error.to_string())?;
        self.line()
    }

    fn line(&mut self) -> Result<SocketAddr, String> {
        let mut line = String::new();
        self.output.read_line(&mut line).map_err(|error| error.to_string())?;
        talk::parse(&line).map_err(|_| line)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What this process is to do as the program, if it is one. To be asked ahead of everything else.
pub fn act() -> Option<ExitCode> {
    let act = std::env::var(ACT).ok()?;
    let mut words = act.split(' ');
    let (what, at) = (words.next()?, words.next()?.parse().ok()?);
    let done = match what {
        "tcp" => say(|| talk::ask_tcp(&Netns::host(), at)),
        "from" => {
            let port = words.next()?.parse().ok()?;
            say(|| unconnected_from(at, port).and_then(|socket| ask(&socket, at)))
        }
        "udp" => say(|| unconnected(at).and_then(|socket| ask(&socket, at))),
        "connected" => say(|| talk::ask_udp(&Netns::host(), at)),
        "flow" => keep(Flow::open(&Netns::host(), at).map(|mut flow| (flow.seen, move || flow.ask()))),
        "datagrams" => keep(unconnected(at).and_then(|socket| Ok((ask(&socket, at)?, move || ask(&socket, at))))),
        "serve" => serve(at),
        "leave" => Flow::open(&Netns::host(), at).map(drop),
        "shout" => {
            shout(&Netns::host(), at);
            Ok(())
        }
        _ => return None,
    };
    match done {
        Ok(()) => Some(ExitCode::SUCCESS),
        Err(error) => {
            eprintln!("{error}");
            Some(ExitCode::FAILURE)
        }
    }
}

fn say(answer: impl FnOnce() -> std::io::Result<SocketAddr>) -> std::io::Result<()> {
    let seen = answer()?;
    println!("{} {}", seen.ip(), seen.port());
    Ok(())
}

fn keep(begun: std::io::Result<(SocketAddr, impl FnMut() -> std::io::Result<SocketAddr>)>) -> std::io::Result<()> {
    let (seen, mut again) = begun?;
    say(|| Ok(seen))?;
    for line in std::io::stdin().lines() {
        line?;
        if let Err(error) = say(&mut again) {
            println!("{error}");
        }
    }
    Ok(())
}

fn unconnected(like: SocketAddr) -> std::io::Result<UdpSocket> {
    unconnected_from(like, 0)
}

fn unconnected_from(like: SocketAddr, port: u16) -> std::io::Result<UdpSocket> {
    let any: IpAddr = if like.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, port))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket)
}

fn ask(socket: &UdpSocket, server: SocketAddr) -> std::io::Result<SocketAddr> {
    socket.send_to(b"who am I?\n", server)?;
    let mut answer = [0; 128];
    let (length, _) = socket.recv_from(&mut answer)?;
    talk::parse(&String::from_utf8_lossy(&answer[..length]))
}

/// Serves as the world's servers do; the port is free when it says so.
fn serve(at: SocketAddr) -> std::io::Result<()> {
    let free = TcpListener::bind(at).and_then(|_| UdpSocket::bind(at));
    drop(free?);
    let _guests = talk::serve(&Netns::host(), &[at.ip()], &[at.port()]);
    say(|| Ok(at))?;
    loop {
        thread::park();
    }
}
