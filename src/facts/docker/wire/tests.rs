//! Answers of engines that are newer, older, or not well.

use super::*;

fn containers(body: &str) -> List<Container> {
    list(body.as_bytes()).unwrap()
}

#[test]
fn a_state_that_no_release_had_so_far_harms_nobody() {
    let list = containers(r#"[{"Id":"a","State":"hibernating"},{"Id":"b","State":"running"}]"#);
    assert_eq!(list.entries.iter().map(|one| one.state.as_str()).collect::<Vec<_>>(), ["hibernating", "running"]);
    assert_eq!(list.broken, []);
}

#[test]
fn an_entry_that_cannot_be_read_is_named_and_the_others_are_read() {
    let list = containers(r#"[{"Id":"a","Names":["/odd"],"Labels":[1]},{"Id":"b"},{"Names":"x"},7]"#);
    assert_eq!(list.entries.len(), 1);
    let named: Vec<_> = list.broken.iter().map(|one| (one.id.as_str(), one.name.as_str())).collect();
    assert_eq!(named, [("a", "odd"), ("", "without a name"), ("", "without a name")]);
}

#[test]
fn what_is_missing_null_or_unknown_is_as_if_it_were_empty() {
    let list = containers(
        r#"[{"Id":"a","Names":null,"Labels":null,"HostConfig":null,"Created":"yesterday","State":null,"New":{"x":1},
            "NetworkSettings":{"Networks":{"shop":null,"other":{"NetworkID":null,"IPAddress":"10.0.0.2","GwPriority":null,"IPAMConfig":null}}}}]"#,
    );
    assert_eq!(list.broken, []);
    let networks = &list.entries[0].network_settings.networks;
    assert!(networks["shop"].is_none());
    assert_eq!(networks["other"].as_ref().unwrap().address, "10.0.0.2");
    assert!(containers("null").entries.is_empty());
    assert!(super::list::<Container>(b"{}").is_err(), "it is no list");
}

#[test]
fn a_network_without_options_and_with_an_odd_container_is_read() {
    let network =
        r#"{"Id":"n","Name":"shop","Options":null,"IPAM":{"Config":null},"Containers":{"a":7,"b":{"IPv4Address":"10.0.0.2/24"}}}"#;
    let network: Network = serde_json::from_str(network).unwrap();
    assert_eq!(network.containers.keys().collect::<Vec<_>>(), ["b"]);
}

#[test]
fn long_names_and_ten_thousand_labels_are_read() {
    let labels: BTreeMap<_, _> = (0..10_000).map(|n| (format!("label-{n}"), "x".repeat(30))).collect();
    let body = serde_json::json!([{ "Id": "a", "Names": [format!("/{}", "n".repeat(253))], "Labels": labels }]).to_string();
    let list = containers(&body);
    assert_eq!((list.entries[0].labels.len(), list.entries[0].names[0].len()), (10_000, 254));
}
