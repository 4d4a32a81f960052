//! Variables that something else overrules. clap takes a variable for given whatever it says, and refuses it beside what it does not go with.

use std::ffi::OsString;

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
    let id = argument.get_id().as_str();
    let against = against(command, argument);
    let says_yes = || given.try_get_one::<bool>(id).is_ok_and(|says| says == Some(&true));
    let says_no = matches!(argument.get_action(), ArgAction::SetTrue) && !says_yes();
    let by_flag = || against.iter().any(|other| source(given, other) == Some(ValueSource::CommandLine));
    source(given, argument) == Some(ValueSource::EnvVariable) && !against.is_empty() && (says_no || by_flag())
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
