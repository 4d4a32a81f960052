//! What a container's story adds up to, whatever order events and answers come in.

use super::*;

fn book() -> Book {
    Book::new(Arc::new(|_| None))
}

fn listed(running: bool, address: Option<&str>) -> Listed {
    Listed {
        id: "c1".to_owned(),
        name: "web".to_owned(),
        labels: BTreeMap::from([("tier".to_owned(), "web".to_owned())]),
        network_mode: "shop".to_owned(),
        created: 1,
        running,
        attachments: vec![Attachment {
            network_id: String::new(),
            network: "shop".to_owned(),
            addresses: address.into_iter().map(ip).collect(),
            gateway_priority: 0,
        }],
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn connect(book: &mut Book) -> Endpoint {
    let event =
        Event::Connected { container: "c1".to_owned(), network: "n1".to_owned(), name: "shop".to_owned(), driver: "bridge".to_owned() };
    match book.event(event) {
        (None, Some(Ask::Addresses(endpoint))) => endpoint,
        other => panic!("not asked for addresses: {other:?}"),
    }
}

fn told(change: Option<EngineChange>) -> (bool, Vec<IpAddr>) {
    match change {
        Some(EngineChange::Container(one)) => (one.running, one.attachments.iter().flat_map(|a| a.addresses.clone()).collect()),
        other => panic!("no container: {other:?}"),
    }
}

#[test]
fn an_address_that_an_event_brought_outlives_a_list_that_lags() {
    let mut book = book();
    book.restart(vec![listed(false, None)]);
    let endpoint = connect(&mut book);
    let (change, ask) = book.addresses(&endpoint, Some(vec![ip("10.0.0.2")]));
    assert_eq!((told(change), ask), ((true, vec![ip("10.0.0.2")]), None));
    let era = book.era("c1");
    assert_eq!(book.relisted(listed(false, None), era), None);
}

#[test]
fn an_answer_that_is_older_than_the_end_says_nothing() {
    let mut book = book();
    book.restart(vec![listed(true, Some("10.0.0.2"))]);
    let (endpoint, era) = (connect(&mut book), book.era("c1"));
    assert_eq!(told(book.event(Event::Died("c1".to_owned())).0), (false, vec![]));
    let late = book.addresses(&endpoint, Some(vec![ip("10.0.0.2")]));
    assert_eq!(late, (None, Some(Ask::ContainerLater("c1".to_owned()))));
    assert_eq!(book.relisted(listed(true, Some("10.0.0.2")), era), None);
}

#[test]
fn a_container_whose_address_comes_before_its_labels_is_told_once_with_both() {
    let mut book = book();
    let endpoint = connect(&mut book);
    let early = book.addresses(&endpoint, Some(vec![ip("10.0.0.2")]));
    assert_eq!(early, (None, Some(Ask::Container("c1".to_owned()))));
    assert_eq!(told(book.relisted(listed(false, None), 0)), (true, vec![ip("10.0.0.2")]));
}

#[test]
fn labels_are_parsed_once_for_a_name() {
    let calls = Arc::new(std::sync::atomic::AtomicU32::new(0));
    let count = calls.clone();
    let mut book = Book::new(Arc::new(move |container| {
        assert_eq!(container.labels["tier"], "web");
        count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        None
    }));
    book.restart(vec![listed(false, None)]);
    book.relisted(listed(true, Some("10.0.0.2")), 0);
    assert_eq!(calls.load(std::sync::atomic::Ordering::Relaxed), 1);
    let renamed = Listed { name: "shop".to_owned(), ..listed(true, Some("10.0.0.2")) };
    assert!(book.relisted(renamed, 0).is_some());
    assert_eq!(calls.load(std::sync::atomic::Ordering::Relaxed), 2);
}

#[test]
fn only_a_container_that_was_told_of_is_said_to_be_gone() {
    let mut book = book();
    let endpoint = connect(&mut book);
    book.addresses(&endpoint, Some(vec![ip("10.0.0.2")]));
    assert_eq!(book.event(Event::Destroyed("c1".to_owned())), (None, None));
    book.restart(vec![listed(false, None)]);
    let gone = EngineChange::ContainerGone("c1".to_owned());
    assert_eq!(book.event(Event::Destroyed("c1".to_owned())), (Some(gone), None));
}
