//! `egressd install` and `egressd uninstall`: this binary as services of systemd, where no package brought it.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use crate::facts::whole;

/// The units. Each names the program by the path that it gets.
const UNITS: [(&str, &str); 2] = [
    ("egressd.service", include_str!("../../examples/systemd/egressd.service")),
    ("egressd-guard.service", include_str!("../../examples/systemd/egressd-guard.service")),
];
/// Stands first in units that this wrote, so that they may be replaced and removed.
const WRITTEN: &str = "# Written by `egressd install`. Put changes into a drop-in: systemctl edit ";
const PROGRAM: &str = "usr/local/sbin/egressd";
const UNIT_FOLDER: &str = "etc/systemd/system";
/// Where packages have theirs.
const PACKAGED: [&str; 2] = ["usr/lib/systemd/system/egressd.service", "lib/systemd/system/egressd.service"];
const MANIFESTS: &str = "etc/egressd";
/// The file of the boot guard that the units name.
pub const BOOT_GUARD: &str = "/var/lib/egressd/guard.json";
/// There while systemd is the init of the system.
const BOOTED: &str = "run/systemd/system";

/// The system that it is installed in.
pub struct System<'a> {
    root: &'a Path,
    /// Runs `systemctl`.
    systemctl: &'a dyn Fn(&[&str]) -> anyhow::Result<()>,
}

impl<'a> System<'a> {
    /// The one below a folder; `/` is this one.
    pub fn at(root: &'a Path) -> Self {
        Self { root, systemctl: &|arguments| systemctl(arguments) }
    }

    /// Installs a program with its units, and says of each thing what was done. Enables both; `start` starts the daemon, or restarts it: bound
    /// workloads notice nothing of that.
    ///
    /// # Errors
    /// When systemd does not run, a package has brought egressd already, somebody else wrote one of the units, or a file cannot be written.
    pub fn install(&self, program: &Path, start: bool) -> anyhow::Result<Vec<String>> {
        self.needs_systemd()?;
        if let Some(unit) = PACKAGED.into_iter().map(|unit| self.root.join(unit)).find(|unit| unit.exists()) {
            bail!("a package installed {}; upgrade that, or remove it first", unit.display());
        }
        let units = UNITS.map(|(name, text)| (self.unit(name), format!("{WRITTEN}{name}\n{}", without_advice(text))));
        for (file, _) in &units {
            if file.exists() && !is_ours(file)? {
                bail!("{} was written by somebody else; move your changes into a drop-in (systemctl edit), and remove it", file.display());
            }
        }
        let mut said = vec![self.copy(program)?];
        for (file, text) in units {
            said.push(write(&file, text.as_bytes(), 0o644)?);
        }
        fs::create_dir_all(self.root.join(MANIFESTS)).with_context(|| format!("failed to make {}", self.root.join(MANIFESTS).display()))?;
        self.enabled("enable")?;
        if start && self.is_this() {
            (self.systemctl)(&["daemon-reload"])?;
            (self.systemctl)(&["restart", "egressd.service"])?;
            said.push("egressd.service runs, now and from each boot on".to_owned());
        } else {
            said.push("egressd.service starts at the next boot; now: systemctl start egressd".to_owned());
        }
        Ok(said)
    }

    /// Stops what was installed, runs `cleanup`, which takes the rules out of the kernel, and removes the files. What the user wrote stays.
    ///
    /// # Errors
    /// When it was not installed so, or something cannot be stopped or removed.
    pub fn uninstall(&self, cleanup: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<Vec<String>> {
        let mut ours = Vec::new();
        for (name, _) in UNITS {
            let file = self.unit(name);
            if file.exists() && is_ours(&file)? {
                ours.push(file);
            }
        }
        if ours.is_empty() {
            bail!(
                "{} has no unit that `egressd install` wrote; remove a package with its package manager",
                self.root.join(UNIT_FOLDER).display()
            );
        }
        self.needs_systemd()?;
        self.enabled("disable")?;
        if self.is_this() {
            (self.systemctl)(&["stop", "egressd.service", "egressd-guard.service"])?;
            cleanup()?;
        }
        let mut said = Vec::new();
        for file in ours.into_iter().chain([self.root.join(PROGRAM)]) {
            match fs::remove_file(&file) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                removed => {
                    removed.with_context(|| format!("failed to remove {}", file.display()))?;
                    said.push(format!("removed {}", file.display()));
                }
            }
        }
        if self.is_this() {
            (self.systemctl)(&["daemon-reload"])?;
        }
        said.push(format!("left as it is: {}, with your manifests and options", self.root.join(MANIFESTS).display()));
        Ok(said)
    }

    fn unit(&self, name: &str) -> PathBuf {
        self.root.join(UNIT_FOLDER).join(name)
    }

    fn is_this(&self) -> bool {
        self.root == Path::new("/")
    }

    fn needs_systemd(&self) -> anyhow::Result<()> {
        if self.is_this() && !self.root.join(BOOTED).exists() {
            bail!("systemd does not run here; start `egressd run` with your own init, before Docker");
        }
        Ok(())
    }

    fn enabled(&self, how: &str) -> anyhow::Result<()> {
        let root = format!("--root={}", self.root.display());
        let [(daemon, _), (guard, _)] = UNITS;
        if self.is_this() { (self.systemctl)(&[how, daemon, guard]) } else { (self.systemctl)(&[&root, how, daemon, guard]) }
    }

    /// Puts the program where the units look for it. A running one keeps its own file.
    fn copy(&self, program: &Path) -> anyhow::Result<String> {
        let bytes = fs::read(program).with_context(|| format!("failed to read {}", program.display()))?;
        write(&self.root.join(PROGRAM), &bytes, 0o755)
    }
}

/// The unit without the line that says how to install it by hand.
fn without_advice(unit: &str) -> &str {
    unit.strip_prefix("# Copy to ").and_then(|rest| rest.split_once('\n')).map_or(unit, |(_, rest)| rest)
}

fn is_ours(unit: &Path) -> anyhow::Result<bool> {
    let text = fs::read_to_string(unit).with_context(|| format!("failed to read {}", unit.display()))?;
    Ok(text.starts_with(WRITTEN))
}

/// Writes a file that is whole at each moment.
fn write(file: &Path, bytes: &[u8], mode: u32) -> anyhow::Result<String> {
    if fs::read(file).is_ok_and(|there| there == bytes) {
        return Ok(format!("{} is up to date", file.display()));
    }
    let failed = || format!("failed to write {}; are you root?", file.display());
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder).with_context(failed)?;
    }
    whole::write(file, bytes, |new| new.set_permissions(Permissions::from_mode(mode))).with_context(failed)?;
    Ok(format!("wrote {}", file.display()))
}

fn systemctl(arguments: &[&str]) -> anyhow::Result<()> {
    let failed = || format!("failed to run systemctl {}", arguments.join(" "));
    let status = Command::new("systemctl").arg(OsStr::new("--quiet")).args(arguments).status().with_context(failed)?;
    if !status.success() {
        bail!("systemctl {} failed: {status}", arguments.join(" "));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    /// A root with a program to be installed, and what systemctl was told there.
    fn in_a_root(check: impl FnOnce(&System<'_>, &Path, &RefCell<Vec<String>>)) {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("egressd");
        fs::write(&program, "the program").unwrap();
        let root = folder.path().join("root");
        let told = RefCell::new(Vec::new());
        let systemctl = |arguments: &[&str]| {
            told.borrow_mut().push(arguments.join(" ").replace(&root.display().to_string(), "ROOT"));
            Ok(())
        };
        check(&System { root: &root, systemctl: &systemctl }, &program, &told);
    }

    #[test]
    fn it_is_installed_once_and_again_and_goes_but_for_what_the_user_wrote() {
        in_a_root(|system, program, told| {
            let said = system.install(program, true).unwrap();
            assert!(said[0].starts_with("wrote ") && said[0].ends_with("/usr/local/sbin/egressd"), "{said:?}");
            let mode = fs::metadata(system.root.join(PROGRAM)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o755);
            let unit = fs::read_to_string(system.unit("egressd.service")).unwrap();
            assert!(unit.starts_with(WRITTEN) && unit.contains("ExecStart=/usr/local/sbin/egressd run"), "{unit}");
            assert!(!unit.contains("Copy to"), "it is not by hand: {unit}");
            assert!(UNITS.iter().all(|(_, unit)| unit.contains(BOOT_GUARD)), "what is removed is what the units name");
            let said = system.install(program, true).unwrap();
            assert!(said[..3].iter().all(|line| line.ends_with("is up to date")), "{said:?}");
            fs::write(program, "a newer one").unwrap();
            assert!(system.install(program, true).unwrap()[0].starts_with("wrote "));
            let manifest = system.root.join(MANIFESTS).join("mine.yaml");
            fs::write(&manifest, "mine").unwrap();
            told.borrow_mut().clear();
            let said = system.uninstall(|| unreachable!("the rules are another system's")).unwrap();
            assert_eq!(*told.borrow(), ["--root=ROOT disable egressd.service egressd-guard.service"]);
            assert_eq!(said.iter().filter(|line| line.starts_with("removed ")).count(), 3, "{said:?}");
            assert!(manifest.exists() && !system.root.join(PROGRAM).exists());
            let error = system.uninstall(|| Ok(())).unwrap_err().to_string();
            assert!(error.contains("has no unit that `egressd install` wrote"), "{error}");
        });
    }

    #[test]
    fn what_others_wrote_is_left_alone() {
        in_a_root(|system, program, told| {
            let unit = system.unit("egressd-guard.service");
            fs::create_dir_all(unit.parent().unwrap()).unwrap();
            fs::write(&unit, "[Service]\nExecStart=/opt/egressd guard\n").unwrap();
            let error = system.install(program, true).unwrap_err().to_string();
            assert!(error.contains("egressd-guard.service was written by somebody else"), "{error}");
            assert!(!system.root.join(PROGRAM).exists() && told.borrow().is_empty(), "nothing was begun");
            fs::remove_file(&unit).unwrap();
            let packaged = system.root.join(PACKAGED[0]);
            fs::create_dir_all(packaged.parent().unwrap()).unwrap();
            fs::write(&packaged, "").unwrap();
            let error = system.install(program, true).unwrap_err().to_string();
            assert!(error.contains("a package installed"), "{error}");
        });
    }
}
