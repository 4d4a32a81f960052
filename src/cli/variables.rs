//! Variables that something else overrules. clap takes a variable for given whatever it says, and refuses it beside what it does not go with.

use std::ffi::OsString;

use clap::builder::{BoolishValueParser, TypedValueParser};
use clap::error::{ContextKind, ContextValue};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};

/// The command without the variables that count for nothing: of a flag, one that says `false`; and any that does not go with a flag which is given.
pub fn without_overruled(command: Command, arguments: &[OsString]) -> Command {
    let Ok(given) = command.clone().ignore_errors(true).try_get_matches_from(arguments) else { return command };
    let Some((name, given)) = given.subcommand() else { return command };
    let Some(subcommand) = command.find_subcommand(name) else { return command };
    let overruled = subcommand.get_arguments().filter(|argument| is_overruled(subcommand, argument, given));
    let overruled: Vec<_> = overruled.map(|argument| argument.get_id().clone()).collect();
    overruled.into_iter().fold(command, |command, id| command.mut_subcommand(name, |sub| sub.mut_arg(id, |argument| argument.env(None))))
}

fn is_overruled(command: &Command, argument: &Arg, given: &ArgMatches) -> bool {
    let against = against(command, argument);
    let by_flag = || against.iter().any(|other| source(given, other) == Some(ValueSource::CommandLine));
    source(given, argument) == Some(ValueSource::EnvVariable) && !against.is_empty() && (says_no(argument) || by_flag())
}

/// The variable of a flag says no. What is neither yes nor no is left to be refused.
pub fn says_no(argument: &Arg) -> bool {
    let said = argument.get_env().filter(|_| matches!(argument.get_action(), ArgAction::SetTrue)).and_then(std::env::var_os);
    let read = |said: OsString| BoolishValueParser::new().parse_ref(&Command::new(""), None, &said).ok();
    said.and_then(read) == Some(false)
}

/// The variable that the value is from which an error is about, with its option: clap names the option alone.
pub fn blamed(command: &Command, arguments: &[OsString], error: &clap::Error) -> Option<(String, String)> {
    let Some(ContextValue::String(option)) = error.get(ContextKind::InvalidArg) else { return None };
    let name = option.split(' ').next()?.strip_prefix("--")?;
    let given = |text: &str| text.strip_prefix("--").is_some_and(|text| text.split('=').next() == Some(name));
    if arguments.iter().any(|argument| argument.to_str().is_some_and(given)) {
        return None;
    }
    let subcommands = command.get_subcommands().filter(|sub| arguments.iter().any(|argument| *argument == *sub.get_name()));
    let mut options = subcommands.flat_map(Command::get_arguments).filter(|argument| argument.get_long() == Some(name));
    let variable = options.find_map(|argument| argument.get_env().filter(|variable| std::env::var_os(variable).is_some()))?;
    Some((variable.to_string_lossy().into_owned(), format!("--{name}")))
}

/// The options that do not go with one.
pub fn against<'a>(command: &'a Command, argument: &Arg) -> Vec<&'a Arg> {
    let names = |one: &Arg, other: &Arg| command.get_arg_conflicts_with(one).iter().any(|named| named.get_id() == other.get_id());
    command.get_arguments().filter(|other| names(other, argument) || names(argument, other)).collect()
}

/// Where an option was given, if it was.
pub fn source(given: &ArgMatches, argument: &Arg) -> Option<ValueSource> {
    let id = argument.get_id().as_str();
    given.try_contains_id(id).ok().and_then(|_| given.value_source(id))
}
