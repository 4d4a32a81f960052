//! The Debian package: reproducible, installed in a clean Debian, used there, upgraded, removed and purged.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;
use world::{
    FOLDER, Scenario, built,
    command::{run, try_run},
    egressd::program,
    status::until,
};

/// Manifests and options of the user's own.
const MANIFEST: &str = "etc/egressd/mine.yaml";
const OPTIONS: &str = "etc/egressd/config.yaml";
/// Who routes in by `lan0` leaves by `eth0`'s address.
const BINDING: &str = "apiVersion: egressd.dev/v1alpha1
kind: EgressBinding
metadata: { name: lan }
spec:
  addresses: [{ cidr: 10.9.0.0/24, interface: lan0 }]
  exits: [{ address: 172.31.0.14 }]
";

pub fn scenarios() -> Vec<Scenario> {
    vec![Scenario::new(
        "a clean Debian: the package installs, starts nothing, works, keeps what the user wrote, and goes without a trace",
        package,
    )]
}

fn package() {
    let deb = reproducible();
    let debian = Debian::new();
    let before = debian.files();
    debian.run(&["egressd", "--version"]).expect_err("it is not installed yet");
    debian.refuses_what_it_has_not(&deb);

    debian.install(&deb).expect("the package installs");
    assert!(debian.run(&["egressd", "--version"]).expect("it runs").starts_with("egressd 0."));
    assert!(debian.run(&["kubectl-egress", "--version"]).is_ok());
    let checked = debian.prints(&["egressd", "check"]);
    assert!(checked.contains("kernel: Linux") && checked.contains("no daemon runs"), "it starts nothing:\n{checked}");
    for file in [
        "usr/lib/systemd/system/egressd.service",
        "usr/lib/systemd/system/egressd-guard.service",
        "usr/share/man/man8/egressd-run.8.gz",
        "usr/share/man/man1/kubectl-egress.1.gz",
        "usr/share/bash-completion/completions/egressd",
        "usr/share/doc/egressd/egressd.cdx.json",
        "usr/share/doc/egressd/docs/installation.md",
    ] {
        assert!(debian.0.join(file).exists(), "there is {file}");
    }
    let unit = debian.read("usr/lib/systemd/system/egressd.service");
    assert!(unit.contains("ExecStart=/usr/sbin/egressd run"), "the unit starts what is installed:\n{unit}");
    assert!(!debian.files().iter().any(|file| file.contains(".wants/egressd")), "no unit is enabled");

    debian.write(MANIFEST, BINDING);
    debian.write(OPTIONS, "no-docker: true\n");
    debian.install(&deb).expect("an upgrade");
    assert_eq!(debian.read(OPTIONS), "no-docker: true\n", "an upgrade keeps the user's options");

    // A killed daemon leaves its rules in place. A removal takes them out: nothing else could, once the program is gone.
    debian.leave_rules();
    debian.run(&["dpkg", "--purge", "egressd"]).expect("it can be purged");
    assert!(!tables().contains("egressd"), "{}", tables());
    let left: BTreeSet<_> = debian.files().difference(&before).cloned().collect();
    assert_eq!(left, BTreeSet::from(["/etc/egressd".to_owned(), format!("/{MANIFEST}")]), "but for what the user wrote");
}

/// Builds the package twice of the same programs, the second time by somebody with other habits. The bytes are the same.
fn reproducible() -> PathBuf {
    let programs = PathBuf::from(FOLDER).join("programs");
    fs::create_dir_all(&programs).expect("a folder");
    for name in ["egressd", "kubectl-egress"] {
        let built = program().with_file_name(name);
        run(&["strip", "-o", &programs.join(name).to_string_lossy(), &built.to_string_lossy()]);
    }
    let build = |folder: &str, habits: &str| {
        let out = PathBuf::from(FOLDER).join(folder);
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/build.sh");
        let line = format!("{habits}; exec {script} {} {}", programs.display(), out.display());
        let files: Vec<_> = run(&["bash", "-c", &line]).lines().map(PathBuf::from).collect();
        assert_eq!(files.len(), 5, "a package, a tarball, a bill of materials, a plugin and its manifest: {files:?}");
        files
    };
    let first = build("first", "umask 022");
    let second = build("second", "umask 077; export TZ=Asia/Tokyo LC_ALL=C.UTF-8 TMPDIR=/var/tmp");
    for (one, other) in first.iter().zip(&second) {
        assert!(fs::read(one).expect("built") == fs::read(other).expect("built"), "{} and {} differ", one.display(), other.display());
    }
    // They would differ if a time of the build were in them.
    let contents = run(&["dpkg-deb", "--contents", &first[0].to_string_lossy()]);
    let times: BTreeSet<_> = contents.lines().filter_map(|line| line.split_whitespace().nth(4)).collect();
    assert_eq!(times.len(), 1, "all is of the commit's time: {times:?}");
    plugin(&first[3], &first[4]);
    first[0].clone()
}

/// krew takes the manifest by its name, the tarball by its sum, and of that the files that the manifest names.
fn plugin(archive: &Path, manifest: &Path) {
    let plugin: Value = serde_saphyr::from_str(&fs::read_to_string(manifest).expect("built")).expect("YAML");
    assert_eq!(manifest.file_stem().and_then(|name| name.to_str()), plugin["metadata"]["name"].as_str());
    assert_eq!(plugin["spec"]["version"], concat!("v", env!("CARGO_PKG_VERSION")));
    let platform = &plugin["spec"]["platforms"][0];
    let (name, archive) = (archive.file_name().and_then(|name| name.to_str()).expect("a name"), archive.to_string_lossy());
    assert_eq!(platform["uri"], format!("https://releases.egressd.example/{name}"));
    let sum = run(&["sha256sum", &archive]);
    assert_eq!(platform["sha256"].as_str(), sum.split(' ').next(), "{sum}");
    let folder = format!("{FOLDER}/plugin");
    fs::create_dir_all(&folder).expect("a folder");
    run(&["tar", "--extract", "--gzip", "--file", &archive, "--directory", &folder]);
    for file in platform["files"].as_array().expect("files") {
        let from = file["from"].as_str().expect("a file");
        assert!(Path::new(&folder).join(from).is_file(), "{from} is in the tarball");
    }
    let program = format!("{folder}/{}", platform["bin"].as_str().expect("a program"));
    assert_eq!(run(&[&program, "--version"]).trim(), concat!("kubectl egress ", env!("CARGO_PKG_VERSION")));
}

fn tables() -> String {
    run(&["nft", "list", "tables"])
}

/// A clean Debian, in a folder that goes with the scenario.
struct Debian(PathBuf);

impl Debian {
    fn new() -> Self {
        let archive = built("tmp/debian.tar");
        assert!(archive.exists(), "there is no {}: make debian", archive.display());
        let root = PathBuf::from(FOLDER).join("debian");
        fs::create_dir_all(&root).expect("a folder");
        let path = |name: &str| root.join(name).to_string_lossy().into_owned();
        run(&["tar", "--extract", "--file", &archive.to_string_lossy(), "--directory", &path("")]);
        run(&["mount", "-t", "proc", "proc", &path("proc")]);
        run(&["mount", "--bind", "/dev", &path("dev")]);
        Self(root)
    }

    /// Runs a program there; what it prints, or how it fails.
    fn run(&self, arguments: &[&str]) -> Result<String, String> {
        let root = self.0.to_string_lossy();
        // By its path: chroot looks for it where this process does, and not where the Debian has it.
        try_run(&[&["chroot", &root, "/usr/bin/env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"], arguments].concat())
    }

    /// What a program prints there, however it ends.
    fn prints(&self, arguments: &[&str]) -> String {
        self.run(&[&["sh", "-c", "\"$@\" || true", "-"], arguments].concat()).expect("a shell runs")
    }

    fn install(&self, deb: &Path) -> Result<String, String> {
        fs::copy(deb, self.0.join("tmp/egressd.deb")).expect("copied");
        let done = self.run(&["dpkg", "--install", "/tmp/egressd.deb"]);
        fs::remove_file(self.0.join("tmp/egressd.deb")).expect("it is there");
        done
    }

    /// The control of the dependencies: the same package does not install when it needs a C library that nobody has.
    fn refuses_what_it_has_not(&self, deb: &Path) {
        let folder = PathBuf::from(FOLDER).join("unpacked");
        let (from, to) = (deb.to_string_lossy(), folder.to_string_lossy());
        run(&["dpkg-deb", "--raw-extract", &from, &to]);
        let control = folder.join("DEBIAN/control");
        let text = fs::read_to_string(&control).expect("a control file");
        assert!(text.contains("libc6 (>= 2."), "{text}");
        fs::write(&control, text.replace("libc6 (>= 2.", "libc6 (>= 99.")).expect("written");
        let broken = format!("{FOLDER}/broken.deb");
        run(&["dpkg-deb", "-Znone", "--build", &to, &broken]);
        self.install(Path::new(&broken)).expect_err("it depends on what is not there");
        self.run(&["dpkg", "--purge", "egressd"]).expect("it goes again");
    }

    /// Runs the daemon until its tables are there, and kills it.
    fn leave_rules(&self) {
        for (nic, address) in [("lan0", "10.9.0.1/24"), ("eth0", "172.31.0.14/20")] {
            run(&["ip", "link", "add", nic, "type", "veth", "peer", "name", &format!("{nic}-peer")]);
            run(&["ip", "link", "set", &format!("{nic}-peer"), "up"]);
            run(&["ip", "address", "add", address, "dev", nic]);
            run(&["ip", "link", "set", nic, "up"]);
        }
        run(&["ip", "route", "add", "default", "via", "172.31.0.1"]);
        let mut daemon = Command::new("chroot");
        daemon.arg(&self.0).args(["/usr/sbin/egressd", "run", "--no-metrics", "--manifests", "/etc/egressd"]);
        let mut daemon = daemon.spawn().expect("it starts");
        until("the daemon makes its tables", || {
            let tables = tables();
            if tables.contains("egressd") { Ok(()) } else { Err(tables) }
        });
        daemon.kill().and_then(|()| daemon.wait()).expect("it runs");
        assert!(tables().contains("egressd"), "they outlive it");
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.0.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
    }

    fn write(&self, file: &str, text: &str) {
        fs::write(self.0.join(file), text).unwrap_or_else(|error| panic!("{file}: {error}"));
    }

    /// All files and folders, but for dpkg's own records and what is mounted.
    fn files(&self) -> BTreeSet<String> {
        let root = self.0.to_string_lossy();
        let all = run(&["find", &root, "-xdev", "-path", &format!("{root}/var/l*/dpkg*"), "-prune", "-o", "-printf", "/%P\n"]);
        all.lines().map(str::to_owned).collect()
    }
}
