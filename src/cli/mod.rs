//! The command line: what each command takes. What it does is in a file of its own.

mod cleanup;
mod config;
mod controller;
pub mod crd;
mod echo;
mod exec;
mod guard;
mod install;
pub mod kubectl;
mod log;
mod man;
mod output;
mod proxies;
mod proxy;
mod run;
mod show;
mod values;
mod variables;
mod verify;

use std::ffi::OsString;
use std::io::Write;
use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::bail;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use ipnet::Ipv4Net;
pub use log::log;
use output::Output;
pub use output::end;
use show::Inbound;

/// What scripts may rely on.
const EXIT_CODES: &str = "Exit codes: 0 done, 1 failed (`check`: something has to be repaired first), 2 wrong arguments.
Each option that names an environment variable is also read from that, and from the file of --config by its long name: a flag wins over a variable, and a variable over the file.";

/// Gives every container its own way out: the NIC, the gateway and the public address that its labels or a manifest ask for.
#[derive(Debug, Parser)]
#[command(name = "egressd", version, about, after_help = EXIT_CODES)]
pub struct Cli {
    /// File of options by their long names, for example `no-docker: true`
    #[arg(long, global = true, env = "EGRESSD_CONFIG", default_value = config::FILE, value_name = "FILE")]
    config: PathBuf,
    #[command(subcommand)]
    command: Command,
}

/// Options that may stand ahead of the command as well as behind it: that of all commands, and those that 0.1.0 took there.
const AHEAD: [&str; 4] = ["--config", "--state-dir", "--boot-guard", "--sysctl-root"];

/// Reads the arguments of a process, and what the file of options adds to them. Ends the process where clap does: for help, and when they are
/// wrong.
///
/// # Errors
/// When the file is wrong, or a value in it.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> anyhow::Result<Cli> {
    let arguments = behind_the_command(args);
    let command = variables::without_overruled(Cli::command(), &arguments);
    let completed = config::complete(&Cli::command(), arguments)?;
    let parsed = command.try_get_matches_from(&completed.arguments).and_then(|given| Cli::from_arg_matches(&given));
    let error = match parsed {
        Ok(cli) => return Ok(cli),
        Err(error) => error,
    };
    if let Some(fault) = completed.fault(&error) {
        bail!(fault);
    }
    if error.use_stderr() {
        if let Some((variable, option)) = variables::blamed(&Cli::command(), &completed.arguments, &error) {
            output::tell(format_args!("egressd: the variable {variable} says {option}"));
        }
        if !completed.added.is_empty() {
            output::tell(format_args!("egressd: {} says {}", completed.file.display(), completed.added.join(", ")));
        }
    }
    error.exit()
}

/// Puts options that stand ahead of the command behind it: each belongs to the commands that use it, and scripts may have it there.
fn behind_the_command(args: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut args = args.into_iter().peekable();
    let mut ordered: Vec<OsString> = args.next().into_iter().collect();
    let mut ahead = Vec::new();
    while let Some(option) = args.next_if(|arg| arg.to_str().is_some_and(|arg| AHEAD.contains(&arg.split('=').next().unwrap_or(arg)))) {
        let whole = option.to_str().is_some_and(|option| option.contains('='));
        ahead.push(option);
        ahead.extend(args.next_if(|_| !whole));
    }
    ordered.extend(args.next());
    ordered.extend(ahead);
    ordered.extend(args);
    ordered
}

#[derive(Debug, Args)]
struct StateArgs {
    /// Folder of the daemon's socket and saved state
    #[arg(long, env = "EGRESSD_STATE_DIR", default_value = "/run/egressd", value_name = "DIR")]
    state_dir: PathBuf,
}

#[derive(Debug, Args)]
struct SysctlArgs {
    /// Folder of the kernel's settings: a mount of the host's, if /proc/sys is read-only (in a container)
    #[arg(long, env = "EGRESSD_SYSCTL_ROOT", default_value = "/proc/sys", value_name = "DIR")]
    sysctl_root: PathBuf,
}

/// Where Docker's socket is unless told otherwise.
const DOCKER: &str = "/var/run/docker.sock";

#[derive(Debug, Subcommand)]
enum Command {
    /// Watch containers and manifests, and program the kernel accordingly
    Run(Box<run::RunArgs>),
    /// Run the cluster's controller: lend pools' addresses to bindings and write their status. Of several replicas one leads, the others stand by
    Controller(controller::ControllerArgs),
    /// Show every workload: its binding, exit, NIC, gateway and state
    Status {
        #[command(flatten)]
        state: StateArgs,
        /// Output format
        #[arg(short, long, value_enum, default_value_t)]
        output: show::Form,
        /// Print it again every two seconds
        #[arg(short, long)]
        watch: bool,
    },
    /// Show the open flows of a workload, or of all: source, destination, exit and state
    Flows {
        #[command(flatten)]
        state: StateArgs,
        /// A WORKLOAD of `egressd status`, an address, or pod/NAME
        workload: Option<String>,
        /// Output format
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
    },
    /// Show how many flows each exit has and how fast, again every two seconds
    Top {
        #[command(flatten)]
        state: StateArgs,
    },
    /// Show the path of a workload's packets, and why they take it
    Explain {
        #[command(flatten)]
        state: StateArgs,
        /// Explain a call to this port of an exit instead: which workloads serve it, and which one a client with the address behind it gets
        #[arg(long, value_name = "ADDRESS:PORT[/PROTOCOL]")]
        inbound: Option<Inbound>,
        /// A WORKLOAD of `egressd status` (NAME, netns/NAME, user/NAME, unit/NAME, host/all, ...), a container's id, an address, or pod/NAME
        #[arg(required_unless_present = "inbound")]
        workload: Option<String>,
        /// Destination, an address or a name; any outside address when not given
        #[arg(conflicts_with = "inbound")]
        destination: Option<String>,
    },
    /// Run a program of this host that uses a binding's exit, or an address, from its first packet
    #[command(after_help = exec::EXIT_CODES)]
    Exec {
        #[command(flatten)]
        state: StateArgs,
        #[command(flatten)]
        by: ExecArgs,
        #[command(flatten)]
        isolation: NamespaceArgs,
        /// Run it as this user, with the user's groups; the environment stays as it is
        #[arg(long, value_name = "NAME")]
        user: Option<String>,
        /// The program and its arguments
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "PROGRAM")]
        program: Vec<OsString>,
    },
    /// Ask an outside service from each exit which address it sees, and compare it with the exit's public address
    Verify {
        #[command(flatten)]
        state: StateArgs,
        /// A service that answers with its caller's address, as text or JSON
        #[arg(long, env = "EGRESSD_ECHO", value_name = "http://HOST[:PORT][/PATH]")]
        echo: echo::Echo,
        /// Addresses of this host; when none is given, the exits that workloads use
        #[arg(value_parser = crate::api::exit_address, value_name = "EXIT")]
        exits: Vec<IpAddr>,
        /// Output format
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
    },
    /// Check this host for whatever keeps egressd from working, with the cure for each problem
    Check {
        #[command(flatten)]
        state: StateArgs,
        #[command(flatten)]
        sysctl: SysctlArgs,
        /// Docker's socket
        #[arg(long, env = "EGRESSD_DOCKER_SOCKET", default_value = DOCKER, value_name = "PATH")]
        docker_socket: PathBuf,
        /// Output format
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
    },
    /// At boot, before any container runs: drop traffic of guarded bridges until the daemon runs (see --boot-guard)
    Guard {
        /// The file of `egressd run --boot-guard`
        #[arg(long, env = "EGRESSD_BOOT_GUARD", value_name = "FILE")]
        boot_guard: PathBuf,
    },
    /// Remove everything of egressd from the kernel (stop the daemon first, and name the file of the boot guard)
    Cleanup {
        #[command(flatten)]
        state: StateArgs,
        #[command(flatten)]
        sysctl: SysctlArgs,
        /// The file of `egressd run --boot-guard`; the next boot guards nothing
        #[arg(long, env = "EGRESSD_BOOT_GUARD", value_name = "FILE")]
        boot_guard: Option<PathBuf>,
    },
    /// Install this binary with its systemd units, so that it runs now and after each boot
    Install {
        /// Install into the system in this folder instead, and start nothing
        #[arg(long, default_value = "/", value_name = "DIR")]
        root: PathBuf,
        /// Do not start it now, only at the next boot
        #[arg(long)]
        no_start: bool,
    },
    /// Stop what `install` installed, remove its rules from the kernel, and uninstall it; /etc/egressd stays
    Uninstall {
        /// The system in this folder instead
        #[arg(long, default_value = "/", value_name = "DIR")]
        root: PathBuf,
        #[command(flatten)]
        state: StateArgs,
    },
    /// Serve ports inside network namespaces, as EgressProxy manifests say
    Proxy(proxy::ProxyArgs),
    /// Show the ports of `egressd proxy`: where each one is, its server, exit, state and connections
    Proxies(proxies::ProxiesArgs),
    /// Print the CustomResourceDefinitions
    Crd,
    /// Print the reference of labels and manifests
    Reference,
    /// Print the version
    Version,
    /// Print a shell's completion script
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    Man {
        /// Write pages for all commands and for `kubectl egress` into this folder instead
        #[arg(long, value_name = "DIR")]
        directory: Option<PathBuf>,
    },
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct ExecArgs {
    /// A binding of the manifest files, NAMESPACE/NAME, whatever else it selects; the namespace is default when not given
    #[arg(long, value_name = "NAME")]
    binding: Option<String>,
    /// An address of a NIC
    #[arg(long, value_parser = crate::api::exit_address, value_name = "ADDRESS")]
    ip: Option<IpAddr>,
}

#[derive(Debug, Args)]
struct NamespaceArgs {
    /// Run it in a network namespace of its own, which ends with it
    #[arg(long)]
    namespace: bool,
    /// A port of the exits that goes to the program in its namespace, for instance 8090/tcp or 8090:80; may be repeated
    #[arg(long, requires = "namespace", value_parser = crate::api::isolated::published, value_name = "[ADDRESS:]PORT[:PORT][/PROTOCOL]")]
    publish: Vec<String>,
    /// IPv4 subnet of the link between the namespace and the host, a /30 or /31; one that this host has no route to when not given
    #[arg(long, requires = "namespace", value_parser = crate::api::isolated::subnet, value_name = "CIDR")]
    subnet: Option<Ipv4Net>,
    /// Name server for the namespace; when not given the host's, or those that its stub on a loopback address uses; may be repeated
    #[arg(long, requires = "namespace", value_parser = values::name_server, value_name = "ADDRESS")]
    dns: Vec<IpAddr>,
}

impl Cli {
    /// Does what was asked for.
    pub fn run(self) -> anyhow::Result<()> {
        let out = &mut std::io::stdout();
        match self.command {
            Command::Run(args) => run::run(*args, self.config),
            Command::Controller(args) => controller::control(args),
            Command::Status { state, output, watch } => show::status(&state.state_dir, output, watch),
            Command::Flows { state, workload, output } => show::flows(&state.state_dir, workload, output),
            Command::Top { state } => show::top(&state.state_dir),
            Command::Explain { state, inbound: Some(inbound), workload: client, .. } => {
                show::explain_inbound(&state.state_dir, inbound, client.as_deref())
            }
            Command::Explain { state, inbound: None, workload, destination } => {
                show::explain(&state.state_dir, &workload.unwrap_or_default(), destination.as_deref())
            }
            Command::Exec { state, by: ExecArgs { binding, ip }, isolation, user, program } => {
                let NamespaceArgs { namespace, publish, subnet, dns } = isolation;
                let isolation = namespace.then_some(exec::Isolated { publish, subnet, dns });
                exec::exec(&state.state_dir, exec::By { binding, ip }, isolation, user.as_deref(), &program)
            }
            Command::Verify { state, echo, exits, output } => verify::verify(&state.state_dir, &echo, &exits, output),
            Command::Check { state, sysctl, docker_socket, output } => {
                runtime()?.block_on(crate::check::run(&docker_socket, &state.state_dir, &sysctl.sysctl_root, |findings| {
                    output.print(&findings, || findings.iter().map(|finding| format!("{finding}\n")).collect())
                }))
            }
            Command::Guard { boot_guard } => guard::guard(&boot_guard),
            Command::Cleanup { state, sysctl, boot_guard } => {
                runtime()?.block_on(cleanup::cleanup(&state.state_dir, &sysctl.sysctl_root, boot_guard.as_deref()))
            }
            Command::Install { root, no_start } => {
                let said = install::System::at(&root).install(&std::env::current_exe()?, !no_start)?;
                Ok(said.iter().try_for_each(|line| writeln!(out, "{line}"))?)
            }
            Command::Uninstall { root, state } => {
                let guard = std::path::Path::new(install::BOOT_GUARD);
                let cleanup = || runtime()?.block_on(cleanup::cleanup(&state.state_dir, "/proc/sys".as_ref(), Some(guard)));
                let said = install::System::at(&root).uninstall(cleanup)?;
                Ok(said.iter().try_for_each(|line| writeln!(out, "{line}"))?)
            }
            Command::Proxy(args) => proxy::run(args, self.config),
            Command::Proxies(args) => Ok(out.write_all(proxies::proxies(&args)?.as_bytes())?),
            Command::Crd => Ok(crd::crd(out)?),
            Command::Reference => Ok(crd::reference(out)?),
            Command::Version => Ok(writeln!(out, "egressd {}", env!("CARGO_PKG_VERSION"))?),
            Command::Completions { shell } => {
                let mut script = Vec::new();
                clap_complete::generate(shell, &mut Self::command(), "egressd", &mut script);
                Ok(out.write_all(&script)?)
            }
            Command::Man { directory: None } => Ok(man::print(out)?),
            Command::Man { directory: Some(directory) } => man::write(&directory),
        }
    }
}

/// One thread does all: the loop is the only place where anything is decided.
pub fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(line: &str) -> String {
        Cli::try_parse_from(line.split(' ')).map(drop).unwrap_err().to_string()
    }

    #[test]
    fn options_ahead_of_the_command_are_read_as_if_they_stood_behind_it() {
        let ordered = |line: &str| -> Vec<OsString> { behind_the_command(line.split(' ').map(OsString::from)) };
        let expected: Vec<OsString> = "egressd run --state-dir /s --sysctl-root=/p --no-docker".split(' ').map(OsString::from).collect();
        assert_eq!(ordered("egressd --state-dir /s --sysctl-root=/p run --no-docker"), expected);
        assert_eq!(ordered("egressd --help"), ["egressd", "--help"]);
        assert!(Cli::try_parse_from(ordered("egressd --state-dir /s run --no-docker")).is_ok());
    }

    #[test]
    fn the_commands_are_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn options_that_do_not_fit_together_are_refused_by_name() {
        for option in ["--kubeconfig /x", "--allow-raw-exits", "--daemonset egressd"] {
            assert!(refused(&format!("egressd run {option}")).contains("--kubernetes"), "{option}");
            assert!(Cli::try_parse_from(format!("egressd run --kubernetes --node-name n {option}").split(' ')).is_ok(), "{option}");
        }
        assert!(refused("egressd run --no-metrics --metrics-address 127.0.0.1:1").contains("cannot be used with"));
        assert!(refused("egressd run --no-docker --docker-socket /x").contains("cannot be used with"));
        assert!(refused("egressd crd --state-dir /x").contains("--state-dir"), "it uses none");
        assert!(refused("egressd guard").contains("--boot-guard"));
    }

    #[test]
    fn every_option_of_the_daemon_can_be_a_variable() {
        let command = Cli::command();
        let run = command.find_subcommand("run").unwrap();
        let without = run.get_arguments().filter(|argument| argument.get_env().is_none()).map(|argument| argument.get_id().as_str());
        assert_eq!(without.collect::<Vec<_>>(), ["dry_run"]);
    }
}
