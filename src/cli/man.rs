//! `egressd man`: manual pages, made of the definitions of the arguments.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use anyhow::Context;
use clap::{Command, CommandFactory};
use clap_mangen::Man;

use super::Cli;
use super::kubectl::Kubectl;

/// Programs that administer the machine, as man(1) numbers them.
const ADMINISTRATION: &str = "8";
/// Programs that anybody runs.
const USERS: &str = "1";

/// Prints the page of `egressd` itself.
pub(super) fn print(out: &mut impl Write) -> io::Result<()> {
    Man::new(Cli::command()).section(ADMINISTRATION).render(out)
}

/// Writes a page for each command into `directory`, which is made when it is not there: `egressd.8`, `egressd-run.8`, `kubectl-egress.1` and
/// so on.
///
/// # Errors
/// When the folder or a page cannot be written.
pub(super) fn write(directory: &Path) -> anyhow::Result<()> {
    let failed = || format!("failed to write manual pages to {}", directory.display());
    fs::create_dir_all(directory).with_context(failed)?;
    for page in pages(Cli::command(), ADMINISTRATION).chain(pages(Kubectl::command().name("kubectl-egress"), USERS)) {
        page.generate_to(directory).with_context(failed)?;
    }
    Ok(())
}

/// The pages of a program and of each of its commands. Each is built as part of the whole, so that it has the options of all.
fn pages(command: Command, section: &'static str) -> impl Iterator<Item = Man> {
    let mut command = command.disable_help_subcommand(true);
    command.build();
    let below: Vec<_> = command.get_subcommands().filter(|below| !below.is_hide_set()).cloned().collect();
    below.into_iter().chain([command]).map(move |command| Man::new(command).section(section))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_command_has_a_page_of_its_own() {
        let folder = tempfile::tempdir().expect("a folder");
        let pages = folder.path().join("man");
        write(&pages).expect("written");
        let read = |name: &str| fs::read_to_string(pages.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(read("egressd.8").contains("egressd\\-run(8)"), "it names the others");
        assert!(read("egressd-run.8").contains("\\-\\-manifests"));
        assert!(read("kubectl-egress-status.1").contains("\\-\\-kubeconfig"), "with the options of all commands");
        let count = fs::read_dir(&pages).expect("a folder").count();
        assert_eq!(count, Cli::command().get_subcommands().count() + 1 + Kubectl::command().get_subcommands().count() + 1);
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_named() {
        let error = write(Path::new("/proc/nothing")).expect_err("nobody writes there");
        assert!(format!("{error:#}").contains("failed to write manual pages to /proc/nothing"), "{error:#}");
    }
}
