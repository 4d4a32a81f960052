//! Bad input: one clear error that names the object, the field and the cure. Whoever is meant by it is held, all others go on.

use std::process::{Command, ExitCode};

use world::{Binding, FOLDER, Nic, Scenario, Subnets, World, egressd, status::until};

fn main() -> ExitCode {
    let mut scenarios = Vec::new();
    for subnets in [Subnets::One, Subnets::Two] {
        scenarios
            .push(Scenario::new(format!("{subnets:?}: a bad binding holds its workloads, the good one beside it goes on"), move || {
                a_bad_binding_holds_its_workloads(subnets)
            }));
    }
    scenarios.push(Scenario::new("what is no manifest is named, and the good binding goes on", what_is_no_manifest_is_named));
    scenarios.push(Scenario::new(
        "of two bindings that claim one workload the loser's status names the winner",
        overlapping_claims_have_one_winner,
    ));
    scenarios
        .push(Scenario::new("whom a binding named before its selector turned bad is held, through a restart", a_selector_that_turns_bad));
    scenarios.push(Scenario::new("of two manifests of one name the one in force stays, and whom the other one names is held", doubled));
    scenarios.push(Scenario::new("a binding that turns bad never turns into masquerade", a_binding_that_turns_bad_is_held));
    scenarios.push(Scenario::new("a flag wins over a variable, and one that says false is none", variables_that_count_for_nothing));
    world::harness::main_of_waiting(scenarios)
}

/// Flags, and variables beside them.
type Options<'a> = (&'a [&'a str], &'a [(&'a str, &'a str)]);

fn variables_that_count_for_nothing() {
    let _world = World::builder().build();
    let run = |flags: &[&str], variables: &[(&str, &str)]| {
        let mut command = Command::new(egressd::program());
        command.args(["run", "--dry-run", "--manifests", FOLDER]).args(flags).envs(variables.iter().copied());
        let output = command.output().expect("it starts");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (none, docker) = (["--no-docker"], ["--docker-socket", "/run/none.sock"]);
    let taken: [Options<'_>; 4] = [
        (&none, &[("EGRESSD_NO_METRICS", "false"), ("EGRESSD_METRICS_ADDRESS", "127.0.0.1:1")]),
        (&["--no-docker", "--no-metrics"], &[("EGRESSD_METRICS_ADDRESS", "127.0.0.1:1")]),
        (&none, &[("EGRESSD_DOCKER_SOCKET", "/run/none.sock")]),
        (&docker, &[("EGRESSD_NO_DOCKER", "true")]),
    ];
    for (flags, variables) in taken {
        let (code, said) = run(flags, variables);
        assert_eq!(code, Some(0), "{flags:?} {variables:?}: {said}");
    }
    let (code, said) = run(&["--no-docker", "--docker-socket", "/run/none.sock"], &[]);
    assert!(code == Some(2) && said.contains("cannot be used with"), "two flags that do not go together: {said}");
}

/// The rest of a spec for the namespace `red`, and what the error has to name: the field, and a word of the cure.
const BAD: [(&str, &str, &str); 14] = [
    ("exits: []", "spec.exits", "write for instance"),
    ("exits: [{address: ''}]", "spec.exits[0].address", "for instance"),
    ("exits: [{address: nonsense}]", "spec.exits[0].address", "nonsense"),
    ("exits: [{address: 172.31.0.300}]", "spec.exits[0].address", "172.31.0.300"),
    ("exits: [{address: 0.0.0.0}]", "spec.exits[0].address", "0.0.0.0"),
    ("exits: [{address: 172.31.0.14, gateway: 'fd31::1'}]", "spec.exits[0].gateway", "fd31::1"),
    ("exits: [{address: 172.31.0.14}, {address: 172.31.0.14}]", "spec.exits[1].address", "keep one"),
    ("exits: [{address: 172.31.0.14}], ports: [{protocol: TCP, port: 900, endPort: 80}]", "spec.ports[0].endPort", "900"),
    ("exits: [{address: 172.31.0.14}], ports: [{protocol: TCP, port: 70000}]", "spec.ports[0].port", "70000"),
    ("exits: [{address: 172.31.0.14}], to: [{cidr: 10.0.0.0/33}]", "spec.to[0].cidr", "10.0.0.0/33"),
    ("exits: [{address: 172.31.0.14}], to: [{cidr: 10.0.0.0/8, except: [192.168.0.0/16]}]", "spec.to[0].except[0]", "not inside"),
    ("exits: [{adress: 172.31.0.14}]", "spec.exits[0]", "address"),
    ("exits: [{address: 172.31.0.14}], whenUnavailible: Drop", "spec", "whenUnavailable"),
    ("exits: [{address: 172.31.0.14}], whenUnavailable: Explode", "spec.whenUnavailable", "Drop"),
];

fn a_bad_binding_holds_its_workloads(subnets: Subnets) {
    let world = World::builder().subnets(subnets).build();
    let bridge = world.bridge("plain0", 28);
    world.masquerade(&bridge);
    let good = world.container("good", &bridge, 10).netns;
    let red = world.container("red", &bridge, 11).netns;
    let free = world.container("free", &bridge, 12).netns;
    world.leaves_by(&good, Nic::Eth1).expect_err("it is not bound");
    world.sends_nothing_out(&red).expect_err("it is not held");
    world.bind(&Binding::of(&good).to(&world, Nic::Eth1));
    world.bind(&Binding::of(&red).to(&world, Nic::Eth0));
    let _egressd = world.egressd_alone();
    world.leaves_by(&good, Nic::Eth1).unwrap_or_else(|error| panic!("{error}"));
    for (fields, field, cure) in BAD {
        world.bind(&Binding::of(&red).with(fields));
        let named = |text: &str| text.contains("red") && text.contains(field) && text.contains(cure);
        until(&format!("status names {field} of `{fields}` and says {cure:?}"), || {
            let status = world.status();
            let told = told(&status);
            if told.iter().any(|line| named(line)) { Ok(()) } else { Err(told.join("\n")) }
        });
        world.await_state("netns/red", "Dropped");
        world.sends_nothing_out(&red).unwrap_or_else(|error| panic!("{fields}: {error}"));
        world.sends_nothing_out(&good).expect_err("it is bound as before");
        assert!(world.foreign().is_empty(), "{fields}: {}", world.foreign());
    }
    world.leaves_by(&good, Nic::Eth1).unwrap_or_else(|error| panic!("{error}"));
    world.leaves_by(&free, Nic::Eth0).unwrap_or_else(|error| panic!("{error}"));
}

/// All complaints of a status, each with the object that it is about.
fn told(status: &serde_json::Value) -> Vec<String> {
    let list = |value: &serde_json::Value| value.as_array().cloned().unwrap_or_default();
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let mut told: Vec<String> = list(&status["problems"]).iter().map(text).collect();
    for binding in list(&status["bindings"]) {
        told.extend(list(&binding["errors"]).iter().map(|error| format!("{}: {}", text(&binding["binding"]), text(error))));
    }
    told
}

/// File, content, and what the error has to name.
fn rubbish() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let head = "apiVersion: egressd.dev/v1alpha1\nkind: EgressBinding\nmetadata: {name: bad}\nspec: ";
    let bomb = (1..30).fold(String::from("a0: &a0 [x, x, x, x, x, x, x, x]\n"), |text, level| {
        let before = level - 1;
        text + &format!(
            "a{level}: &a{level} [*a{before}, *a{before}, *a{before}, *a{before}, *a{before}, *a{before}, *a{before}, *a{before}]\n"
        )
    });
    let deep = format!("{head}{}{}\n", "[".repeat(50_000), "]".repeat(50_000));
    let spec = |text: &str| format!("{head}{text}\n").into_bytes();
    vec![
        ("selector.yaml", spec("{containerSelector: {}, exits: [{address: 172.31.0.14}]}"), "spec.containerSelector"),
        ("nobody.yaml", spec("{exits: [{address: 172.31.0.14}]}"), "containerSelector"),
        ("none.yaml", spec("{networkNamespaces: [], exits: [{address: 172.31.0.14}]}"), "spec.networkNamespaces"),
        ("kind.yaml", b"apiVersion: egressd.dev/v1alpha1\nkind: EgressBindin\nmetadata: {name: bad}\n".to_vec(), "EgressBinding"),
        ("version.yaml", b"apiVersion: v9\nkind: EgressBinding\nmetadata: {name: bad}\nspec: {networkNamespaces: [nobody], exits: [{address: 172.31.0.14}]}\n".to_vec(), "apiVersion"),
        ("half.yaml", b"apiVersion: egressd.dev/v1alpha1\nkind: EgressBinding\nspec: {exits: [".to_vec(), "half.yaml"),
        ("large.yaml", vec![b'#'; 10 * 1024 * 1024], "large.yaml"),
        ("bomb.yaml", bomb.into_bytes(), "bomb.yaml"),
        ("deep.yaml", deep.into_bytes(), "deep.yaml"),
        ("binary.yaml", (0..=255).cycle().take(65_536).collect(), "binary.yaml"),
        ("number.json", b"12".to_vec(), "number.json"),
    ]
}

fn what_is_no_manifest_is_named() {
    let world = World::builder().build();
    let bridge = world.bridge("plain0", 28);
    world.masquerade(&bridge);
    let good = world.container("good", &bridge, 10).netns;
    world.leaves_by(&good, Nic::Eth1).expect_err("it is not bound");
    world.bind(&Binding::of(&good).to(&world, Nic::Eth1));
    let egressd = world.egressd_alone();
    for (file, content, named) in rubbish() {
        world.write_manifest(file, &content);
        until(&format!("status names {named} because of {file}"), || {
            let told = told(&world.status());
            if told.iter().any(|line| line.contains(named)) { Ok(()) } else { Err(told.join("\n")) }
        });
        for line in told(&world.status()) {
            assert!(line.len() < 1000, "{file}: an error is for people to read: {line}");
        }
        world.remove_manifest(file);
        world.leaves_by(&good, Nic::Eth1).unwrap_or_else(|error| panic!("{file}: {error}"));
    }
    let peak = egressd.memory("VmHWM");
    assert!(peak < 128 * 1024, "{peak} kB");
}

fn overlapping_claims_have_one_winner() {
    let world = World::builder().build();
    let bridge = world.bridge("plain0", 28);
    world.masquerade(&bridge);
    let blue = world.container("blue", &bridge, 10).netns;
    world.leaves_by(&blue, Nic::Eth1).expect_err("it is not bound");
    let claim = |name: &str, nic| Binding::new(name, "networkNamespaces: [blue]").to(&world, nic);
    world.bind(&claim("low", Nic::Eth0));
    world.bind(&claim("high", Nic::Eth1).with("priority: 7"));
    let _egressd = world.egressd_alone();
    world.leaves_by(&blue, Nic::Eth1).unwrap_or_else(|error| panic!("{error}"));
    let status = world.status();
    let bindings = status["bindings"].as_array().expect("a list");
    let low = bindings.iter().find(|binding| binding["binding"] == "file/default/low").expect("it is listed");
    let lost: Vec<&str> = low["lost"].as_array().into_iter().flatten().filter_map(serde_json::Value::as_str).collect();
    assert!(!lost.is_empty() && lost.iter().all(|lost| *lost == "netns/blue (file/default/high)"), "{status:#}");
    world.bind(&claim("low", Nic::Eth0).with("priority: 9"));
    until("the other one wins", || world.leaves_by(&blue, Nic::Eth0));
    world.unbind("low");
    until("the one that is left wins", || world.leaves_by(&blue, Nic::Eth1));
}

fn a_binding_that_turns_bad_is_held() {
    let world = World::builder().build();
    let bridge = world.bridge("plain0", 28);
    world.masquerade(&bridge);
    let blue = world.container("blue", &bridge, 10).netns;
    world.leaves_by(&blue, Nic::Eth1).expect_err("it is not bound");
    let good = Binding::of(&blue).to(&world, Nic::Eth1);
    world.bind(&good);
    let _egressd = world.egressd_alone();
    let ((), seen) = world.watch(|| {
        let trickle = world.trickle(&blue, true);
        for bad in [b"spec: {exits: [".as_slice(), b"\0\xff", b""] {
            world.write_manifest("blue.yaml", bad);
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
        world.write_manifest("blue.yaml", good.text().replace("exits", "exists").as_bytes());
        world.await_state("netns/blue", "Dropped");
        drop(trickle);
    });
    assert!(seen.by(Nic::Eth1) > 0 && seen.by(Nic::Eth0) == 0, "{seen}");
    world.bind(&good);
    world.await_nic("netns/blue", Nic::Eth1);
    world.leaves_by(&blue, Nic::Eth1).unwrap_or_else(|error| panic!("{error}"));
}

/// Of a good manifest for `blue`: what is written instead of what, and the field that status names.
const SLIPS: [(&str, &str, &str); 9] = [
    ("[blue]", "[blue/]", "spec.networkNamespaces[0]"),
    ("[blue]", "blue", "spec.networkNamespaces"),
    ("[blue]", "[]", "spec.networkNamespaces"),
    ("networkNamespaces", "networkNamespace", "did you mean `networkNamespaces`"),
    ("networkNamespaces: [blue]", "hostSelector: {user: [x]}", "spec.hostSelector"),
    ("networkNamespaces: [blue]", "containerSelector: {matchLabel: {a: b}}", "spec.containerSelector"),
    ("networkNamespaces: [blue]", "addresses: [10.0.0.0/33]", "spec.addresses[0]"),
    ("kind: EgressBinding", "kind: EgressBindin", "did you mean `EgressBinding`"),
    ("name: blue", "name: Blue!", "metadata.name"),
];

fn a_selector_that_turns_bad() {
    let world = World::builder().build();
    let bridge = world.bridge("plain0", 28);
    world.masquerade(&bridge);
    let (good, blue) = (world.container("good", &bridge, 10).netns, world.container("blue", &bridge, 11).netns);
    world.leaves_by(&blue, Nic::Eth1).expect_err("it is not bound");
    let text = Binding::of(&blue).to(&world, Nic::Eth1).text();
    let beside = Binding::of(&good).to(&world, Nic::Eth1).text();
    let both = |text: &str| format!("{beside}---\n{text}");
    // Nobody was bound before: it is only told.
    world.write_manifest("both.yaml", both(&text.replace("[blue]", "[blue/]")).as_bytes());
    let mut egressd = world.egressd_alone();
    world.leaves_by(&blue, Nic::Eth0).unwrap_or_else(|error| panic!("{error}"));
    for (from, to, field) in SLIPS {
        world.write_manifest("both.yaml", both(&text).as_bytes());
        world.await_nic("netns/blue", Nic::Eth1);
        let ((), seen) = world.watch(|| {
            let trickle = world.trickle(&blue, true);
            assert!(text.contains(from), "{from}: {text}");
            world.write_manifest("both.yaml", both(&text.replace(from, to)).as_bytes());
            until(&format!("status names {field} of `{to}`"), || {
                let told = told(&world.status());
                if told.iter().any(|line| line.contains(field)) { Ok(()) } else { Err(told.join("\n")) }
            });
            egressd.kill();
            egressd.start();
            world.await_handled();
            std::thread::sleep(std::time::Duration::from_millis(100));
            drop(trickle);
        });
        assert_eq!(seen.by(Nic::Eth0), 0, "{to}: {seen}");
        world.leaves_by(&good, Nic::Eth1).unwrap_or_else(|error| panic!("{to}: {error}"));
        assert!(world.foreign().is_empty(), "{to}: {}", world.foreign());
    }
    world.write_manifest("both.yaml", beside.as_bytes());
    until("it is unbound for certain", || world.leaves_by(&blue, Nic::Eth0));
}

fn doubled() {
    let world = World::builder().build();
    let bridge = world.bridge("plain0", 28);
    world.masquerade(&bridge);
    let (blue, red) = (world.container("blue", &bridge, 10).netns, world.container("red", &bridge, 11).netns);
    world.leaves_by(&blue, Nic::Eth1).expect_err("it is not bound");
    world.sends_nothing_out(&red).expect_err("it is not held");
    let of = |who: &str, nic| Binding::new("one", &format!("networkNamespaces: [{who}]")).to(&world, nic).text();
    world.write_manifest("m.yaml", of("blue", Nic::Eth1).as_bytes());
    let mut egressd = world.egressd_alone();
    for file in ["a.yaml", "z.yaml"] {
        world.write_manifest(file, of("red", Nic::Eth0).as_bytes());
        world.await_state("netns/red", "Dropped");
        for restart in [false, true] {
            if restart {
                egressd.kill();
                egressd.start();
                world.await_handled();
            }
            world.leaves_by(&blue, Nic::Eth1).unwrap_or_else(|error| panic!("{file}: {error}"));
            world.sends_nothing_out(&red).unwrap_or_else(|error| panic!("{file}: {error}"));
            let told = told(&world.status());
            assert!(told.iter().any(|line| line.contains("metadata.name") && line.contains("m.yaml") && line.contains(file)), "{told:?}");
        }
        world.remove_manifest(file);
        until("nobody names it", || world.leaves_by(&red, Nic::Eth0));
    }
}
