//! Options in a file: each by its long name, as `no-docker: true`. A flag or a variable says otherwise, and wins.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};
use serde_json::Value;

use crate::api::nearest::nearest;

/// Where it is, unless the option or the variable named with it says otherwise.
pub const FILE: &str = "/etc/egressd/config.yaml";

/// The arguments with those that a file adds, and the options that these are.
#[derive(Debug, PartialEq, Eq)]
pub struct Completed {
    pub arguments: Vec<OsString>,
    pub added: Vec<String>,
}

/// Completes the arguments of a command by what the file says of its options. Where none is named, the usual one may be missing.
///
/// # Errors
/// When the file cannot be read, or has something else than options of `command`'s subcommands.
pub fn complete(command: &Command, mut arguments: Vec<OsString>) -> anyhow::Result<Completed> {
    let mut added = Vec::new();
    let Some((given, file)) = looked_up(command, &arguments) else { return Ok(Completed { arguments, added }) };
    let (Some(subcommand), Some((_, given))) = (given.subcommand_name().and_then(|name| command.find_subcommand(name)), given.subcommand())
    else {
        return Ok(Completed { arguments, added });
    };
    for (name, values) in read(command, &file)? {
        let of = subcommand.get_arguments().find(|argument| argument.get_long() == Some(&name));
        if let Some(argument) = of.filter(|argument| !is_decided(subcommand, argument, given)) {
            arguments.extend(values.into_iter().map(OsString::from));
            added.push(format!("--{}", argument.get_long().unwrap_or_default()));
        }
    }
    Ok(Completed { arguments, added })
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
    let says = |argument: &Arg| {
        let source = given.try_contains_id(argument.get_id().as_str()).ok().and_then(|_| given.value_source(argument.get_id().as_str()));
        matches!(source, Some(ValueSource::CommandLine | ValueSource::EnvVariable))
    };
    let against = command.get_arguments().filter(|other| {
        command.get_arg_conflicts_with(other).iter().any(|one| one.get_id() == argument.get_id())
            || command.get_arg_conflicts_with(argument).iter().any(|one| one.get_id() == other.get_id())
    });
    says(argument) || against.into_iter().any(says)
}

/// What the file says, as arguments of each option.
fn read(command: &Command, file: &Path) -> anyhow::Result<Vec<(String, Vec<String>)>> {
    let shown = file.display();
    let text = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            bail!("{shown} does not exist; write it, or name another file by --config")
        }
        Err(error) => return Err(error).with_context(|| format!("failed to read {shown}")),
    };
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let content: Value = serde_saphyr::from_str(&text).with_context(|| format!("failed to read {shown}, which has to be YAML"))?;
    let options = match content {
        Value::Object(options) => options,
        Value::Null => return Ok(Vec::new()),
        _ => bail!("{shown} has to name options, as `no-docker: true`"),
    };
    if options.contains_key("kind") {
        bail!("{shown} is for egressd's options, as `no-docker: true`; put the manifest that is there into a file of another name");
    }
    options
        .into_iter()
        .map(|(name, value)| Ok((name.clone(), arguments(command, &name, &value).with_context(|| shown.to_string())?)))
        .collect()
}

/// An option of the file as arguments.
fn arguments(command: &Command, name: &str, value: &Value) -> anyhow::Result<Vec<String>> {
    // What can be no variable is asked for each time: a dry run, a form of output.
    let all =
        || command.get_subcommands().flat_map(Command::get_arguments).filter(|one| one.get_env().is_some() && one.get_id() != "config");
    let Some(argument) = all().find(|one| one.get_long() == Some(name)) else {
        let meant = nearest(name, all().filter_map(Arg::get_long)).map_or_else(String::new, |meant| format!("; did you mean {meant}?"));
        bail!("{name}: no such option; see `egressd run --help`{meant}");
    };
    let flag = matches!(argument.get_action(), ArgAction::SetTrue);
    let one = |value: &Value| match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        _ => bail!("{name}: has to be a text, as `{name}: ...`"),
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
