//! The next version: one command changes the tree, and prints the notes.

use std::{
    fs,
    path::{Path, PathBuf},
};

use world::{
    FOLDER, Scenario,
    command::{run, try_run},
};

pub fn scenarios() -> Vec<Scenario> {
    vec![Scenario::new("one command makes the tree a new version's, all of it, and prints the notes", release)]
}

/// A clone of what is committed.
struct Tree(PathBuf);

impl Tree {
    fn new() -> Self {
        let tree = Path::new(FOLDER).join("tree");
        run(&[
            "git",
            "-c",
            "safe.directory=*",
            "clone",
            "--quiet",
            "--depth=1",
            concat!("file://", env!("CARGO_MANIFEST_DIR")),
            &text(&tree),
        ]);
        Self(tree)
    }

    fn release(&self, version: &str) -> Result<String, String> {
        try_run(&[&text(&self.0.join("packaging/release.sh")), version])
    }

    fn git(&self, arguments: &[&str]) -> String {
        run(&[&["git", "-C", &text(&self.0)], arguments].concat())
    }
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn release() {
    let tree = Tree::new();
    for (version, why) in
        [("next", "is no version"), ("01.2.0", "is no version"), ("0.1.0", "is not later than"), ("0.0.9", "is not later than")]
    {
        let refused = tree.release(version).expect_err("it is wrong");
        assert!(refused.contains(why) && refused.contains(version), "{refused}");
    }
    assert_eq!(tree.git(&["status", "--porcelain"]), "", "what is refused changes nothing");
    let changelog = tree.0.join("CHANGELOG.md");
    let before = fs::read_to_string(&changelog).expect("it is committed");
    let first = before
        .split("\n## Unreleased\n")
        .nth(1)
        .and_then(|rest| rest.lines().find(|line| line.starts_with("- ")))
        .expect("something is new");

    let notes = tree.release("7.8.9").expect("it is later, and nothing is changed");
    assert!(notes.contains(first) && !notes.contains("\n## "), "{notes}");
    let after = fs::read_to_string(&changelog).expect("it is there");
    assert!(after.contains("\n## Unreleased\n\n## 7.8.9 - 20"), "{after}");
    let changed = tree.git(&["diff", "--name-only"]);
    for file in ["Cargo.toml", "src/cloud/Cargo.toml", "Cargo.lock", "charts/egressd/Chart.yaml", "docs/api.json", "docs/installation.md"] {
        assert!(changed.lines().any(|line| line == file), "{file}: {changed}");
    }
    let old = r#"egressd:0\.|^(version|appVersion): 0\.|^version = "0\.1\.0"$"#;
    let files = ["*.toml", "*.yaml", "*.md", "Dockerfile"];
    let left = try_run(&[&["git", "-C", &text(&tree.0), "grep", "-nE", old, "--"], &files[..]].concat());
    left.expect_err("grep fails where it finds nothing");
    // Cargo would change the lock file if it did not fit.
    run(&[
        env!("CARGO"),
        "metadata",
        "--offline",
        "--locked",
        "--no-deps",
        "--format-version=1",
        "--manifest-path",
        &text(&tree.0.join("Cargo.toml")),
    ]);
    let refused = tree.release("7.9.0").expect_err("nobody has looked at the changes yet");
    assert!(refused.contains("not committed"), "{refused}");
}
