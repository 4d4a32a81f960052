//! Options in a file: each by its long name, as `no-docker: true`, for all commands that have it, or below a command's name for that one. A flag
//! or a variable says otherwise, and wins.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::error::{ContextKind, ContextValue};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};
use serde_json::Value;

use super::variables::{against, says_no, source};
use crate::api::document::{Documents, MAX_FILE};
use crate::api::nearest::nearest;

/// Where it is, unless the option or the variable named with it says otherwise.
pub const FILE: &str = "/etc/egressd/config.yaml";

/// The arguments with those that a file adds, and the options that these are.
#[derive(Debug, PartialEq, Eq)]
pub struct Completed {
    pub arguments: Vec<OsString>,
    pub added: Vec<String>,
    /// The file that they are from.
    pub file: PathBuf,
}

impl Completed {
    /// What is wrong with the value of an option that the file added, in one line; `None`: the error is not about such a value.
    pub fn fault(&self, error: &clap::Error) -> Option<String> {
        let text = |kind| match error.get(kind) {
            Some(ContextValue::String(text)) => Some(text.as_str()),
            _ => None,
        };
        // With what stands for its value: `--inside <CIDR>`.
        let option = text(ContextKind::InvalidArg)?.split(' ').next()?;
        let name = option.strip_prefix("--").filter(|_| self.added.iter().any(|added| added == option))?;
        let why = match (error.get(ContextKind::ValidValue), std::error::Error::source(error)) {
            (Some(ContextValue::Strings(all)), _) => format!("has to be one of {}", all.join(", ")),
            (_, Some(source)) => source.to_string(),
            _ => return None,
        };
        let value = format!("`{}`", text(ContextKind::InvalidValue).unwrap_or_default());
        let why = if why.contains(&value) { why } else { format!("{value} cannot be read: {why}") };
        let command = self.arguments.get(1).map_or_else(|| "run".into(), |command| command.to_string_lossy());
        Some(format!("{}: {name}: {why}; see `egressd {command} --help`", self.file.display()))
    }
}

/// Completes the arguments of a command by what the file says of its options. Where none is named, the usual one may be missing. The
/// file is not read for a command that has no option which may stand in it: a slip must not keep anybody from `egressd version`.
///
/// # Errors
/// When the file cannot be read, or has something else than options of `command`'s subcommands.
pub fn complete(command: &Command, mut arguments: Vec<OsString>) -> anyhow::Result<Completed> {
    let mut added = Vec::new();
    let Some((given, file)) = looked_up(command, &arguments) else { return Ok(Completed { arguments, added, file: PathBuf::new() }) };
    let subcommand = given.subcommand().and_then(|(name, given)| Some((command.find_subcommand(name)?, given)));
    let Some((subcommand, given)) = subcommand.filter(|(subcommand, _)| may_be_in_a_file(subcommand).next().is_some()) else {
        return Ok(Completed { arguments, added, file });
    };
    // Right behind the command: what follows may be the arguments of another program.
    let behind = arguments.iter().position(|argument| *argument == *subcommand.get_name()).map_or(arguments.len(), |at| at + 1);
    let mut more: Vec<OsString> = Vec::new();
    for (name, values) in read(command, subcommand, &file)? {
        let of = may_be_in_a_file(subcommand).find(|argument| argument.get_long() == Some(&name));
        if let Some(argument) = of.filter(|argument| !is_decided(subcommand, argument, given)) {
            more.extend(values.into_iter().map(OsString::from));
            added.push(format!("--{}", argument.get_long().unwrap_or_default()));
        }
    }
    arguments.splice(behind..behind, more);
    Ok(Completed { arguments, added, file })
}

/// The arguments as far as they can be read, and the file to look into; `None` when there is none.
fn looked_up(command: &Command, arguments: &[OsString]) -> Option<(ArgMatches, PathBuf)> {
    let given = command.clone().ignore_errors(true).try_get_matches_from(arguments).ok()?;
    let (_, of) = given.subcommand()?;
    let file = of.try_get_one::<PathBuf>("config").ok()??.clone();
    let is_usual = of.value_source("config") == Some(ValueSource::DefaultValue);
    (!is_usual || file.exists()).then_some((given, file))
}

/// A flag or a variable says it, or says something that does not go with it.
fn is_decided(command: &Command, argument: &Arg, given: &ArgMatches) -> bool {
    let says = |argument: &Arg| matches!(source(given, argument), Some(ValueSource::CommandLine | ValueSource::EnvVariable));
    says(argument) || against(command, argument).into_iter().any(|other| says(other) && !says_no(other))
}

/// What the file says, as arguments of each option. What stands below a command's name is for that one, and wins there.
fn read(command: &Command, subcommand: &Command, file: &Path) -> anyhow::Result<BTreeMap<String, Vec<String>>> {
    let shown = file.display();
    let options = load(file)?;
    if options.contains_key("kind") {
        bail!("{shown} is for egressd's options, for example `no-docker: true`; move the manifest in it to a file of another name");
    }
    let (mut of_all, mut own) = (BTreeMap::new(), BTreeMap::new());
    for (name, value) in options {
        match (command.find_subcommand(&name), value) {
            (Some(section), Value::Object(options)) => {
                for (name, value) in options {
                    let arguments = arguments(&[section], &name, &value).with_context(|| format!("{shown}: {}", section.get_name()))?;
                    if is_of(section.get_name(), subcommand.get_name()) {
                        own.insert(name, arguments);
                    }
                }
            }
            (_, value) => {
                let all: Vec<&Command> = command.get_subcommands().collect();
                let arguments = arguments(&all, &name, &value).with_context(|| shown.to_string())?;
                if let Some(one) = all.iter().find(|one| has(one, &name)).filter(|_| differs(&all, &name)) {
                    let below = one.get_name();
                    bail!(
                        "{shown}: {name}: commands differ in it; write it below a command's name, for example `{below}: {{ {name}: ... }}`"
                    );
                }
                of_all.insert(name, arguments);
            }
        }
    }
    of_all.extend(own);
    Ok(of_all)
}

/// Whether a section is for a command. `egressd proxies` asks the process that `egressd proxy` is, by that one's options.
fn is_of(section: &str, command: &str) -> bool {
    section == command || (section == "proxy" && command == "proxies")
}

fn has(command: &Command, name: &str) -> bool {
    may_be_in_a_file(command).any(|option| option.get_long() == Some(name))
}

/// Whether commands have an option of this name by default with different values: a port, which one of them alone can have.
fn differs(commands: &[&Command], name: &str) -> bool {
    let options = commands.iter().flat_map(|command| may_be_in_a_file(command)).filter(|one| one.get_long() == Some(name));
    let values = options.map(Arg::get_default_values).filter(|values| !values.is_empty());
    values.collect::<BTreeSet<_>>().len() > 1
}

/// The one document of the file.
fn load(file: &Path) -> anyhow::Result<serde_json::Map<String, Value>> {
    let shown = file.display();
    let about = match fs::metadata(file) {
        Ok(about) => about,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            bail!("{shown} does not exist; create it, or name another file with --config")
        }
        Err(error) => return Err(error).with_context(|| format!("failed to read {shown}")),
    };
    // Nobody may ever write into a pipe; `/dev/null` is a usual name for nothing.
    if !about.is_file() && !about.file_type().is_char_device() {
        bail!("{shown} is not a regular file; write options into one, or name another file with --config");
    }
    let mut bytes = Vec::new();
    let opened = fs::File::open(file).and_then(|file| file.take(MAX_FILE as u64 + 1).read_to_end(&mut bytes));
    opened.with_context(|| format!("failed to read {shown}"))?;
    let Documents { good, faults } = Documents::read(&bytes);
    if let Some((_, fault)) = faults.into_iter().next() {
        bail!("{shown}: {fault}");
    }
    let mut documents = good.into_iter().map(|(_, document)| document).filter(|document| !document.is_null());
    match (documents.next(), documents.next()) {
        (None, _) => Ok(serde_json::Map::new()),
        (Some(Value::Object(options)), None) => Ok(options),
        (Some(_), None) => bail!("{shown} has to name options, for example `no-docker: true`"),
        (Some(_), Some(_)) => bail!("{shown} has several documents; write all options into one"),
    }
}

/// Options that may stand in the file: those that can be variables. What can be no variable is asked for each time: a dry run, a form of output.
fn may_be_in_a_file(command: &Command) -> impl Iterator<Item = &Arg> {
    command.get_arguments().filter(|argument| argument.get_env().is_some() && argument.get_id() != "config")
}

/// An option of the file, which has to be one of these commands', as arguments.
fn arguments(commands: &[&Command], name: &str, value: &Value) -> anyhow::Result<Vec<String>> {
    let all = || commands.iter().flat_map(|command| may_be_in_a_file(command));
    let Some(argument) = all().find(|one| one.get_long() == Some(name)) else {
        let meant = nearest(name, all().filter_map(Arg::get_long)).map_or_else(String::new, |meant| format!("; did you mean {meant}?"));
        let help = if let [one] = commands { one.get_name() } else { "run" };
        bail!("{name}: no such option; see `egressd {help} --help`{meant}");
    };
    let flag = matches!(argument.get_action(), ArgAction::SetTrue);
    let one = |value: &Value| match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        _ => bail!("{name}: has to be a text, for example `{name}: ...`"),
    };
    let with = |value: String| format!("--{name}={value}");
    match value {
        Value::Bool(true) if flag => Ok(vec![format!("--{name}")]),
        Value::Bool(false) if flag => Ok(Vec::new()),
        _ if flag => bail!("{name}: has to be true or false"),
        Value::Array(list) if matches!(argument.get_action(), ArgAction::Append) => list.iter().map(|value| one(value).map(with)).collect(),
        Value::Array(_) => bail!("{name}: is one value, not a list"),
        value => Ok(vec![with(one(value)?)]),
    }
}

#[cfg(test)]
mod tests;
