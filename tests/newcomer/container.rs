//! egressd in a container, by the very commands of docs/installation.md and docs/upgrade.md.

use std::{fs, path::Path};

use world::{
    Docker, Engine, FOLDER, Nic, Scenario, World,
    command::run,
    egressd::{manifests, program},
    s1,
    status::until,
};

use crate::page::text_of;

pub fn scenarios() -> Vec<Scenario> {
    vec![Scenario::new("egressd runs in a container, and is uninstalled, as the documents say", in_a_container)]
}

fn in_a_container() {
    let world = World::builder().build();
    let docker = world.docker(Engine::Debian);
    import(&docker);
    fs::create_dir_all(manifests()).expect("/run is ours");
    s1::create_network(&world, &docker);
    let [_, crawler] = s1::CRAWLERS;
    crawler.run(&world, &docker);
    crawler.leaves(&world, &docker).expect_err("without egressd it leaves by eth0");
    docker.remove(crawler.name);

    let installation = text_of("installation.md").replace("\\\n", " ");
    let typed = installation.lines().filter(|line| line.starts_with("docker run --detach"));
    let [start] = typed.collect::<Vec<_>>()[..] else { panic!("the page has one command that starts it") };
    cli(&docker, start);
    until("egressd answers in its container", || docker.try_cli(&["exec", "egressd", "egressd", "status"]).map(drop));
    crawler.run(&world, &docker);
    until("it is bound", || crawler.leaves(&world, &docker));
    crawler.is_reached(&world).unwrap_or_else(|error| panic!("{error}"));
    let checked = docker.try_cli(&["exec", "egressd", "egressd", "check"]).unwrap_or_else(|said| said);
    assert!(checked.contains("/proc/sys writable") && !checked.contains("read-only"), "{checked}");

    let upgrade = text_of("upgrade.md");
    let row = upgrade.lines().find(|line| line.contains("cleanup --sysctl-root")).expect("the page says how it is uninstalled");
    for command in row.split('`').nth(1).expect("a command").split(" && ") {
        cli(&docker, command);
    }
    world.leaves_by(&docker.netns(crawler.name), Nic::Eth0).expect("Docker masquerades it again");
    let tables = world.host.run(&["nft", "list", "tables"]);
    assert!(!tables.contains("egressd"), "{tables}");
}

/// A command line of the documents. The machine's own /etc stays out of it.
fn cli(docker: &Docker, line: &str) {
    let line = line.replace("/etc/egressd:/etc/egressd", &format!("{}:/etc/egressd", manifests().display()));
    let words: Vec<_> = line.split_whitespace().collect();
    assert_eq!(words[0], "docker", "{line}");
    docker.cli(&words[1..]);
}

/// An image as `make image` makes it, but of the program under test, with the libraries that it is linked to.
fn import(docker: &Docker) {
    let root = Path::new(FOLDER).join("image");
    let put = |from: &str, to: &str| {
        let to = root.join(to.trim_start_matches('/'));
        fs::create_dir_all(to.parent().expect("a file is in a folder")).expect("/run is ours");
        fs::copy(from, &to).unwrap_or_else(|error| panic!("{from}: {error}"));
        to
    };
    let program = program();
    let installed = put(&program.to_string_lossy(), "/bin/egressd");
    run(&["strip", &installed.to_string_lossy()]);
    for library in run(&["ldd", &program.to_string_lossy()]).split_whitespace().filter(|word| word.starts_with('/')) {
        put(library, library);
    }
    let archive = format!("{FOLDER}/image.tar");
    run(&["tar", "--create", "--file", &archive, "--directory", &root.to_string_lossy(), "."]);
    docker.cli(&["import", "--change", "ENTRYPOINT [\"/bin/egressd\"]", &archive, "egressd:0.1.0"]);
}
