//! Each manifest, Compose file and file of options in the documents is taken by the product's own parser, without error or warning.

use std::{collections::BTreeMap, ffi::OsString, fs};

use egressd::{
    api::{labels, manifest, object},
    cli,
    model::facts::Container,
};
use kube::core::DynamicObject;
use serde_json::Value;

use crate::{in_all_pages, page::Block};

#[test]
fn every_yaml_block_is_taken_by_the_product() {
    in_all_pages(10, |page, found| {
        for block in page.blocks().iter().filter(|block| block.language == "yaml") {
            found(block.line, taken(block));
        }
    });
}

fn taken(block: &Block) -> Result<(), String> {
    if block.text.starts_with("# /etc/egressd/config.yaml\n") {
        return options(&block.text);
    }
    block.text.split("\n---\n").try_for_each(|document| {
        let value: Value = serde_saphyr::from_str(document).map_err(|error| error.to_string())?;
        match (value["kind"].as_str(), &value["spec"], &value["services"]) {
            // What a host's `egressd-cloud` reads says nothing of nodes.
            (Some("EgressPool"), spec, _) if spec["cloud"].is_null() || !spec["assignment"].is_null() => pool(value),
            (Some("EgressBinding"), spec, _) if !spec["podSelector"].is_null() => binding(value),
            (Some("EgressProxy"), spec, _) if !spec["listen"]["podSelector"].is_null() => proxy(value),
            (Some(_), ..) => file(document),
            (None, Value::Object(_), _) => {
                file(&format!("apiVersion: {}\nkind: EgressBinding\nmetadata: {{ name: x }}\n{document}", manifest::API_VERSION))
            }
            (None, _, Value::Object(services)) => services.values().try_for_each(compose),
            _ => Err("is neither a manifest nor a Compose file; a file of options begins with `# /etc/egressd/config.yaml`".to_owned()),
        }
    })
}

fn none<T: std::fmt::Debug>(what: &[T]) -> Result<(), String> {
    if what.is_empty() { Ok(()) } else { Err(format!("{what:?}")) }
}

/// A document of a folder of manifests.
fn file(document: &str) -> Result<(), String> {
    let read = manifest::parse([("docs.yaml", document.as_bytes())]);
    none(&read.errors)?;
    read.bindings.iter().try_for_each(|binding| none(&binding.errors).and(none(&binding.warnings)))
}

fn dynamic(value: Value) -> Result<DynamicObject, String> {
    serde_json::from_value(value).map_err(|error| error.to_string())
}

fn pool(value: Value) -> Result<(), String> {
    none(&object::pool(&object::egress_pool(dynamic(value)?)).errors)
}

/// A binding of a cluster.
fn binding(value: Value) -> Result<(), String> {
    let read = object::binding(&object::egress_binding(dynamic(value)?)).map_err(|errors| format!("{errors:?}"))?;
    none(&read.binding.errors).and(none(&read.binding.warnings))
}

/// A proxy of a cluster.
fn proxy(value: Value) -> Result<(), String> {
    object::proxy(&dynamic(value)?).map(drop).map_err(|errors| format!("{errors:?}"))
}

fn compose(service: &Value) -> Result<(), String> {
    let labels = serde_json::from_value(service["labels"].clone()).map_err(|error| error.to_string())?;
    container(labels)
}

/// A container with these labels is bound, with nothing wrong.
pub fn container(labels: BTreeMap<String, String>) -> Result<(), String> {
    let text = String::new;
    let container = Container {
        id: text(),
        name: text(),
        labels,
        network_mode: "x".to_owned(),
        running: true,
        created: 0,
        attachments: vec![],
        published: vec![],
        asked: None,
    };
    let asked = labels::parse(&container).ok_or("bears no label of egressd's")?;
    none(&asked.placement.errors)?;
    let binding = asked.binding.ok_or("asks for no exit")?;
    none(&binding.errors).and(none(&binding.warnings))
}

fn options(text: &str) -> Result<(), String> {
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let file = folder.path().join("config.yaml");
    fs::write(&file, text).map_err(|error| error.to_string())?;
    let line: [OsString; 4] = ["egressd".into(), "run".into(), "--config".into(), file.into()];
    cli::parse(line).map(drop).map_err(|error| format!("{error:#}"))
}

#[test]
fn what_is_wrong_is_found() {
    let block = |text: &str| Block { line: 1, language: "yaml".to_owned(), text: text.to_owned() };
    assert_eq!(taken(&block("spec: { addresses: [10.0.0.0/24], exits: [{ address: 10.0.1.94 }] }")), Ok(()));
    for wrong in [
        "spec: { addresses: [10.0.0.0/24], exits: [{ adress: 10.0.1.94 }] }",
        "services: { web: { labels: { egress.ip: 172.31.0.14/33 } } }",
        "# /etc/egressd/config.yaml\nmanifest: /etc/egressd\n",
        "kind: Other\nspec: {}",
        "just: text",
    ] {
        assert!(taken(&block(wrong)).is_err(), "{wrong}");
    }
}
