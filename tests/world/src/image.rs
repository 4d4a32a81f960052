//! Images for container engines, made from the machine's static busybox: nothing is fetched.

use std::{fs, io, os::unix::fs::symlink, path::Path};

use serde_json::json;

use crate::{FOLDER, command};

/// Port of an image's web server.
pub const WEB_PORT: u16 = 8080;
/// Command: a web server on [`WEB_PORT`], whose page [`crate::s1::ASK`] asks a server outside which address it sees.
pub const WEB_SERVER: [&str; 6] = ["httpd", "-f", "-p", "8080", "-h", "/www"];
/// Command: does nothing until it is killed.
pub const IDLE: [&str; 3] = ["tail", "-f", "/dev/null"];

/// Makes a tar as `docker save` does, with images that all have busybox and these programs in `/`, and differ in name (with a tag) and
/// command. Returns its path.
pub fn archive(images: &[(&str, &[&str])], programs: &[&str]) -> String {
    let folder = Path::new(FOLDER).join("images");
    let tar = format!("{FOLDER}/images.tar");
    write(&folder, images, programs).expect("/run is ours");
    let folder = folder.to_string_lossy();
    command::run(&["tar", "-C", &folder, "--exclude=./root", "-cf", &tar, "."]);
    fs::remove_dir_all(&*folder).expect("/run is ours");
    tar
}

fn write(folder: &Path, images: &[(&str, &[&str])], programs: &[&str]) -> io::Result<()> {
    let root = folder.join("root");
    fill(&root)?;
    for program in programs {
        fs::copy(program, root.join(Path::new(program).file_name().expect("it is a file")))?;
    }
    let layer = folder.join("layer.tar").to_string_lossy().into_owned();
    command::run(&["tar", "-C", &root.to_string_lossy(), "-cf", &layer, "."]);
    let hash = sha256(&layer);
    let mut manifest = Vec::new();
    for (number, (name, command)) in images.iter().enumerate() {
        let file = format!("{number}.json");
        let config = json!({
            "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
            "os": "linux",
            "config": { "Cmd": command, "Env": ["PATH=/bin"] },
            "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{hash}")] },
        });
        fs::write(folder.join(&file), config.to_string())?;
        manifest.push(json!({ "Config": file, "RepoTags": [name], "Layers": ["layer.tar"] }));
    }
    fs::write(folder.join("manifest.json"), json!(manifest).to_string())
}

fn fill(root: &Path) -> io::Result<()> {
    let busybox = ["/usr/bin/busybox", "/bin/busybox"].into_iter().find(|path| Path::new(path).exists());
    let busybox = busybox.expect("there is no busybox: install the package busybox-static");
    for folder in ["bin", "www/cgi-bin", "etc", "tmp"] {
        fs::create_dir_all(root.join(folder))?;
    }
    fs::copy(busybox, root.join("bin/busybox"))?;
    for applet in command::run(&[busybox, "--list"]).lines().filter(|applet| *applet != "busybox") {
        symlink("busybox", root.join("bin").join(applet))?;
    }
    let page = root.join("www/cgi-bin/ask");
    fs::write(&page, ASK)?;
    command::run(&["chmod", "755", &page.to_string_lossy()]);
    Ok(())
}

fn sha256(file: &str) -> String {
    let printed = command::run(&["sha256sum", file]);
    printed.split(' ').next().unwrap_or_default().to_owned()
}

/// A page that asks a server outside which address it sees: `/cgi-bin/ask?198.51.100.10+8000`.
const ASK: &str = "#!/bin/sh
echo 'Content-Type: text/plain'
echo
nc -w 3 $(echo \"$QUERY_STRING\" | tr + ' ') </dev/null
";
