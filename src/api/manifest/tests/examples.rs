//! The examples are right.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use super::{errors, parse};
use crate::api::labels;
use crate::model::facts::Container;

#[test]
fn every_example_of_manifests_is_right() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/files");
    let mut documents = 0;
    for entry in std::fs::read_dir(folder).expect("examples") {
        let path = entry.expect("an entry").path();
        let bytes = std::fs::read(&path).expect("read");
        let read = parse([("example.yaml", bytes.as_slice())]);
        assert_eq!(errors(&read), Vec::<String>::new(), "{}", path.display());
        for binding in &read.bindings {
            assert_eq!((&binding.errors, &binding.warnings), (&Vec::new(), &Vec::new()), "{}", path.display());
        }
        documents += read.bindings.len() + read.networks.len() + read.proxies.len();
    }
    assert_eq!(documents, 16);
}

#[test]
fn every_label_of_the_compose_example_and_the_readme_is_right() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let compose = std::fs::read_to_string(folder.join("compose/docker-compose.yaml")).expect("read");
    let compose: Value = serde_saphyr::from_str(&compose).expect("YAML");
    let labels_of = |object: &Value| -> BTreeMap<String, String> { serde_json::from_value(object["labels"].clone()).expect("labels") };
    let mut all: Vec<_> = compose["services"].as_object().expect("services").values().map(labels_of).collect();
    let network = labels::parse_network(&labels_of(&compose["networks"]["eip_bridge"]));
    assert_eq!((network.guard, network.errors, network.warnings), (Some(true), vec![], vec![]));
    let readme = std::fs::read_to_string(folder.join("README.md")).expect("read");
    let makes = |line: &&str| line.starts_with("docker run") || line.starts_with("docker create");
    for line in readme.lines().filter(makes) {
        let pairs = line.split("--label ").skip(1).filter_map(|rest| rest.split(' ').next()?.split_once('='));
        all.push(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect());
    }
    assert_eq!(all.len(), 5);
    for labels in all {
        let container = Container {
            id: String::new(),
            name: String::new(),
            labels,
            network_mode: "eip_bridge".to_owned(),
            running: true,
            created: 0,
            attachments: Vec::new(),
            published: Vec::new(),
            asked: None,
        };
        let asked = labels::parse(&container).expect("asked");
        let binding = asked.binding.expect("a binding");
        assert_eq!((binding.errors, binding.warnings, asked.placement.errors), (vec![], vec![], vec![]));
    }
}
