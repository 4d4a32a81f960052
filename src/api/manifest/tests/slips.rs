//! Words that turn wrong: whoever was bound by them is held, and nobody else.

use super::super::*;
use crate::model::binding::Selector;

const RED: &str = "apiVersion: egressd.dev/v1alpha1\nkind: EgressBinding\nmetadata: { name: red }\n\
                   spec: { networkNamespaces: [red, green], exits: [{ address: 172.31.0.8 }] }\n";

/// Readings of a folder that follow one another.
#[derive(Default)]
struct Folder(LastRight);

impl Folder {
    fn read(&mut self, files: &[(&str, &str)]) -> Manifests {
        let read: Vec<_> = files.iter().map(|(name, text)| (*name, Content::read(text.as_bytes()))).collect();
        let (manifests, right) = assemble(read.iter().map(|(name, content)| File { name, content, unread: None }), &self.0);
        self.0 = right;
        manifests
    }

    /// What the next start knows.
    fn restart(&mut self) {
        let kept: Vec<String> = self.0.needed().map(|(_, text)| text).collect();
        self.0 = LastRight::recall(kept.iter().map(String::as_str));
    }
}

/// Each binding: its name, whom it names, and whether it holds them.
fn told(manifests: &Manifests) -> Vec<String> {
    let named = |selector: &Selector| match selector {
        Selector::Namespaces(names) => names.join(","),
        Selector::Containers { match_labels, .. } => format!("{match_labels:?}"),
        other => format!("{other:?}"),
    };
    let all = manifests.bindings.iter();
    all.map(|b| format!("{} {} {}", b.name.name, named(&b.selector), if b.errors.is_empty() { "bound" } else { "held" })).collect()
}

#[test]
fn who_was_bound_by_a_selector_that_turns_wrong_is_held() {
    for wrong in [
        RED.replace("[red, green]", "[red/, green/]"),
        RED.replace("[red, green]", "7"),
        RED.replace("networkNamespaces", "networkNamespace"),
        RED.replace("networkNamespaces: [red, green], ", ""),
        RED.replace("networkNamespaces: [red, green]", "hostSelector: { user: [crawler] }"),
        RED.replace("networkNamespaces: [red, green]", "containerSelector: { matchLabel: { a: b } }"),
        RED.replace("networkNamespaces: [red, green]", "addresses: [10.0.0.0/33]"),
        RED.replace("spec: {", "spec: 7 # {"),
        RED.split("spec").next().expect("a head").to_owned(),
    ] {
        let mut folder = Folder::default();
        folder.read(&[("red.yaml", RED)]);
        for _ in 0..2 {
            let read = folder.read(&[("red.yaml", &wrong)]);
            assert_eq!(told(&read), ["default/red red,green held"], "{wrong}");
            assert!(read.bindings[0].errors.iter().all(|error| error.field.starts_with("spec")), "{:?}", read.bindings[0].errors);
            folder.restart();
        }
        assert_eq!(told(&folder.read(&[("red.yaml", RED)])), ["default/red red,green bound"]);
        assert_eq!(folder.0.needed().count(), 0, "the file says it again");
        folder.read(&[("red.yaml", &wrong)]);
        assert_eq!(told(&folder.read(&[])), Vec::<String>::new(), "a file that is removed says something");
        assert_eq!(told(&folder.read(&[("red.yaml", &wrong)])), Vec::<String>::new(), "nobody is bound by it");
    }
}

#[test]
fn who_was_bound_is_held_beside_whom_the_wrong_words_name() {
    let mut folder = Folder::default();
    folder.read(&[("red.yaml", RED)]);
    let half = RED.replace("[red, green]", "[blue, green/]");
    let both = ["default/red blue held", "default/red (before) red,green held"];
    assert_eq!(told(&folder.read(&[("red.yaml", &half)])), both);
    assert_eq!(told(&folder.read(&[("red.yaml", &half)])), both, "and stays so");
    folder.restart();
    assert_eq!(told(&folder.read(&[("red.yaml", &half)])), both, "through a restart");
    assert_eq!(told(&folder.read(&[("red.yaml", &RED.replace("[red, green]", "[blue]"))])), ["default/red blue bound"]);
}

#[test]
fn a_binding_whose_name_cannot_be_told_stays_in_force_and_its_neighbour_goes_on() {
    let blue = RED.replace("red", "blue");
    for wrong in [
        RED.replace("name: red", "name: Red!"),
        RED.replace("name: red", "nam: red"),
        RED.replace("EgressBinding", "EgressBindin"),
        RED.replace("metadata", "metadate"),
        "[]\n".to_owned(),
    ] {
        let mut folder = Folder::default();
        folder.read(&[("both.yaml", &format!("{blue}---\n{RED}"))]);
        for _ in 0..2 {
            let read = folder.read(&[("both.yaml", &format!("{blue}---\n{wrong}"))]);
            assert_eq!(told(&read), ["default/blue blue,green bound", "default/red red,green bound"], "{wrong}");
            assert!(read.errors.iter().any(|error| error.object == "EgressBinding default/red"), "{:?}", read.errors);
            assert!(read.errors.iter().any(|error| error.object == "both.yaml#2"), "{:?}", read.errors);
            folder.restart();
        }
        assert_eq!(told(&folder.read(&[("both.yaml", &blue)])), ["default/blue blue,green bound"], "it is gone for certain");
    }
}

#[test]
fn of_two_documents_of_one_name_the_one_in_force_is_used_and_whom_the_other_names_is_held() {
    let other = RED.replace("[red, green]", "[blue]").replace("172.31.0.8", "172.31.0.14");
    let mut folder = Folder::default();
    folder.read(&[("m.yaml", RED)]);
    for (files, place) in [
        (vec![("a.yaml", other.as_str()), ("m.yaml", RED)], "a.yaml"),
        (vec![("m.yaml", RED), ("z.yaml", other.as_str())], "z.yaml"),
        (vec![("m.yaml", &*format!("{other}---\n{RED}"))], "m.yaml#1"),
    ] {
        for _ in 0..2 {
            let read = folder.read(&files);
            let mut told = told(&read);
            told.sort();
            assert_eq!(told, [format!("default/red ({place}) blue held"), "default/red red,green bound".to_owned()]);
            assert_eq!(read.errors.len(), 1);
            folder.restart();
        }
    }
    // It is edited where it stands.
    folder.read(&[("a.yaml", &other), ("m.yaml", RED)]);
    let read = folder.read(&[("a.yaml", &other), ("m.yaml", &RED.replace("172.31.0.8", "172.31.0.9"))]);
    assert_eq!(told(&read), ["default/red (a.yaml) blue held", "default/red red,green bound"]);
    // And once it is gone the other one is used.
    assert_eq!(told(&folder.read(&[("a.yaml", &other)])), ["default/red blue bound"]);
}

#[test]
fn who_is_bound_is_held_when_his_binding_takes_a_name_that_another_has() {
    let blue = RED.replace("red", "blue").replace("spec: {", "spec: { priority: 7,");
    let mut folder = Folder::default();
    folder.read(&[("a.yaml", RED), ("b.yaml", &blue)]);
    let read = folder.read(&[("a.yaml", RED), ("b.yaml", &blue.replace("name: blue", "name: red"))]);
    assert_eq!(told(&read), ["default/red red,green bound", "default/red (b.yaml) blue,green held"]);
    assert_eq!(read.bindings[1].priority, 0, "it takes nobody from the one that is used");
}

#[test]
fn exits_and_ports_of_a_binding_with_errors_are_what_they_were() {
    let serves = RED.replace("spec: {", "spec: { inbound: [{ protocol: TCP, port: 80 }],");
    let mut folder = Folder::default();
    let wrong = serves.replace("port: 80", "port: 81, endPort: 7").replace("172.31.0.8", "172.31.0.9");
    let first = folder.read(&[("red.yaml", &wrong)]);
    assert_eq!((first.bindings[0].inbound.len(), first.bindings[0].stands()), (0, false), "it has served nothing");
    let before = folder.read(&[("red.yaml", &serves)]);
    for wrong in [wrong, serves.replace("[red, green]", "[red/]"), serves.replace("port: 80", "prot: 80")] {
        let read = folder.read(&[("red.yaml", &wrong)]);
        let (then, now) = (&before.bindings[0], &read.bindings[0]);
        assert!(!now.is_accepted() && now.stands() && now.inbound == then.inbound && now.exits == then.exits, "{now:?}");
    }
}

#[test]
fn a_pool_that_turns_wrong_is_in_force_as_it_was() {
    let pool = "apiVersion: egressd.dev/v1alpha1\nkind: EgressPool\nmetadata: { name: web }\n\
                spec: { blocks: [{ start: 10.0.1.94, end: 10.0.1.95 }], cloud: { aws: { deviceIndex: 1 } } }\n";
    let names = |read: &Manifests| read.pools.iter().map(|pool| format!("{} {}", pool.name, pool.addresses.len())).collect::<Vec<_>>();
    for wrong in [pool.replace("deviceIndex", "deviceindex"), pool.replace("10.0.1.95", "10.0.1.9"), pool.replace("{ name: web }", "{}")] {
        let mut folder = Folder::default();
        assert_eq!(names(&folder.read(&[("cloud.yaml", pool)])), ["web 2"]);
        for _ in 0..2 {
            let read = folder.read(&[("cloud.yaml", &wrong)]);
            assert_eq!(names(&read), ["web 2"], "{wrong}");
            assert!(!read.errors.is_empty(), "{wrong}");
        }
        assert_eq!(names(&folder.read(&[])), Vec::<String>::new(), "it is gone");
        assert_eq!(names(&folder.read(&[("cloud.yaml", &wrong)])), Vec::<String>::new(), "nobody knows what it said");
    }
}
