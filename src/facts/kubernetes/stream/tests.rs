//! What is asked for after which answer. The API server is a list of answers, and the clock runs only while nothing else does.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::http::{Request, Response};
use futures::stream;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Client;
use serde_json::{Value, json};

use super::*;
use crate::model::cluster::Update;

/// An answer of the API server.
enum Answer {
    /// No success.
    Refused(u16),
    List(Value),
    /// A watch that says this and ends.
    Ended(Vec<Value>),
    /// A watch that says this and nothing more.
    Silent(Vec<Value>),
    /// None at all.
    Never,
}

impl Answer {
    fn response(self) -> Option<Response<Body>> {
        let lines = |events: Vec<Value>| stream::iter(events.into_iter().map(|event| Ok::<_, Infallible>(format!("{event}\n"))));
        let (code, body) = match self {
            Self::Refused(code) => (code, Body::from(status(code).to_string())),
            Self::List(list) => (200, Body::from(list.to_string())),
            Self::Ended(events) => (200, Body::from_stream(lines(events))),
            Self::Silent(events) => (200, Body::from_stream(lines(events).chain(stream::pending()))),
            Self::Never => return None,
        };
        Some(Response::builder().status(code).body(body).expect("a response"))
    }
}

fn status(code: u16) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "because", "reason": "Some", "code": code})
}

fn object(name: &str, version: &str, value: &str) -> Value {
    json!({"metadata": {"name": name, "resourceVersion": version}, "data": {"value": value}})
}

fn event(kind: &str, object: Value) -> Value {
    json!({"type": kind, "object": object})
}

fn list_ends(version: &str) -> Value {
    let metadata = json!({"resourceVersion": version, "annotations": {LIST_ENDS: "true"}});
    event("BOOKMARK", json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": metadata}))
}

fn bookmark(version: &str) -> Value {
    event("BOOKMARK", json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"resourceVersion": version}}))
}

/// What was asked, and what was heard, until there are no answers left.
async fn follow_through(answers: impl IntoIterator<Item = Answer>) -> (Vec<String>, Vec<String>) {
    let answers = Mutex::new(VecDeque::from_iter(answers));
    let asked = Arc::new(Mutex::new(Vec::new()));
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    let (uris, end) = (asked.clone(), Mutex::new(Some(end)));
    let service = tower::service_fn(move |request: Request<kube::client::Body>| {
        let answer = answers.lock().unwrap().pop_front();
        match &answer {
            Some(_) => uris.lock().unwrap().push(ask(&request.uri().to_string())),
            None => drop(end.lock().unwrap().take()),
        }
        async {
            match answer.and_then(Answer::response) {
                Some(response) => Ok::<_, Infallible>(response),
                None => futures::future::pending().await,
            }
        }
    });
    let read = |object: ConfigMap| {
        let value = object.data.clone().unwrap_or_default().remove("value");
        (object.name_any(), value.ok_or_else(|| "has no value".to_owned()))
    };
    let kind = Kind { api: Api::<ConfigMap>::namespaced(Client::new(service, "default"), "default"), fields: None, read };
    let mut heard = Vec::new();
    tokio::select! {
        () = follow(kind, |news| heard.push(told(news))) => unreachable!("it goes on for ever"),
        _ = ended => {}
    }
    let asked = asked.lock().unwrap().clone();
    (asked, heard)
}

/// A request in short: `list`, `stream` (a list as a watch), or `watch VERSION`. A list that is to be no older than a version has that behind it.
fn ask(uri: &str) -> String {
    let version = uri.split("resourceVersion=").nth(1).map_or("", |rest| rest.split('&').next().unwrap_or_default());
    let no_older = if version == "0" { String::new() } else { format!(" {version}") };
    match (uri.contains("watch=true"), uri.contains("sendInitialEvents=true")) {
        (false, _) => format!("list{no_older}"),
        (true, true) => format!("stream{no_older}"),
        (true, false) => format!("watch {version}"),
    }
}

fn told(heard: Heard<String>) -> String {
    match heard {
        Heard::Said(Said::Update(Update::All(all))) => format!("all {}", all.join(" ")),
        Heard::Said(Said::Update(Update::One(one))) => format!("one {one}"),
        Heard::Said(Said::Update(Update::Gone(key))) => format!("gone {key}"),
        Heard::Said(Said::Trouble { key, problem }) => format!("trouble {key} {problem:?}"),
        Heard::Problem(None) => "well".to_owned(),
        Heard::Problem(Some(problem)) => format!("{problem:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_watch_goes_on_where_it_ended_or_fell_silent() {
    let (asked, heard) = follow_through([
        Answer::Ended(vec![
            event("ADDED", object("a", "5", "1")),
            list_ends("10"),
            event("MODIFIED", object("a", "12", "2")),
            event("ADDED", object("b", "13", "3")),
        ]),
        Answer::Silent(vec![event("DELETED", object("b", "14", "3"))]),
        Answer::Silent(vec![event("MODIFIED", object("a", "15", "2"))]),
    ])
    .await;
    assert_eq!(asked, ["stream", "watch 13", "watch 14"]);
    assert_eq!(heard, ["well", "all 1", "one 2", "one 3", "well", "gone b", "well"], "the update that changed nothing is not told");
}

#[tokio::test(start_paused = true)]
async fn a_bookmark_moves_the_place_to_go_on_from() {
    let (asked, heard) = follow_through([Answer::Ended(vec![list_ends("10"), bookmark("40")]), Answer::Silent(vec![])]).await;
    assert_eq!(asked, ["stream", "watch 40"]);
    assert_eq!(heard, ["well", "all ", "well"]);
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_had_a_bookmark_and_has_no_more_is_dead_and_one_without_may_be_silent() {
    for (said, last, least, most) in [(vec![bookmark("40")], "watch 40", 150, 160), (vec![], "watch 10", 310, 620)] {
        let begun = Instant::now();
        let (asked, heard) =
            follow_through([Answer::Ended(vec![list_ends("10")]), Answer::Silent(said), Answer::Ended(vec![bookmark("50")])]).await;
        assert_eq!((asked[2].as_str(), asked.len()), (last, 3));
        assert_eq!(heard, ["well", "all ", "well", "well"], "that is no loss");
        let seconds = begun.elapsed().as_secs();
        assert!((least..most).contains(&seconds), "after {seconds} s");
    }
}

#[tokio::test(start_paused = true)]
async fn a_list_that_stops_half_way_is_an_api_server_that_is_away_and_begins_anew() {
    let begun = Instant::now();
    let (asked, heard) = follow_through([
        Answer::Silent(vec![event("ADDED", object("a", "5", "1"))]),
        Answer::Ended(vec![event("ADDED", object("b", "6", "2")), list_ends("10")]),
    ])
    .await;
    assert_eq!(asked, ["stream", "stream"]);
    assert_eq!(heard, [r#"Away { cause: "it stopped in the middle of a list" }"#, "well", "all 2"]);
    let seconds = begun.elapsed().as_secs();
    assert!((60..70).contains(&seconds), "after {seconds} s, and not after a watch's time");
}

#[tokio::test(start_paused = true)]
async fn a_list_that_breaks_off_says_nothing_and_begins_anew() {
    let (asked, heard) = follow_through([
        Answer::Ended(vec![event("ADDED", object("a", "5", "1"))]),
        Answer::Silent(vec![event("ADDED", object("a", "5", "1")), event("ADDED", object("b", "6", "2")), list_ends("10")]),
    ])
    .await;
    assert_eq!(asked, ["stream", "stream"]);
    assert_eq!(heard, ["well", "all 1 2"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_deleted_while_it_is_listed_is_not_there() {
    let (asked, heard) = follow_through([
        Answer::Ended(vec![
            event("ADDED", object("a", "5", "1")),
            event("ADDED", object("b", "6", "2")),
            event("DELETED", object("a", "7", "1")),
            list_ends("10"),
        ]),
        Answer::Silent(vec![]),
    ])
    .await;
    assert_eq!(asked, ["stream", "watch 10"]);
    assert_eq!(heard, ["well", "all 2", "well"]);
}

#[tokio::test(start_paused = true)]
async fn a_list_that_breaks_off_after_something_was_deleted_begins_anew_all_the_same() {
    let (asked, heard) = follow_through([
        Answer::Ended(vec![event("ADDED", object("a", "5", "1")), event("DELETED", object("a", "7", "1"))]),
        Answer::Silent(vec![event("ADDED", object("b", "8", "2")), list_ends("10")]),
    ])
    .await;
    assert_eq!(asked, ["stream", "stream"], "there is no place yet to go on from");
    assert_eq!(heard, ["well", "all 2"]);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_know_the_last_version_yet_is_asked_for_what_etcd_has() {
    let (asked, _) = follow_through([
        Answer::Ended(vec![list_ends("10")]),
        Answer::Refused(410),
        Answer::Refused(504),
        Answer::Ended(vec![list_ends("7")]),
        Answer::Silent(vec![]),
    ])
    .await;
    assert_eq!(asked, ["stream", "watch 10", "stream 10", "stream ", "watch 7"], "etcd may have been restored");
}

#[tokio::test(start_paused = true)]
async fn a_forgotten_place_means_the_whole_list_anew() {
    let answer = |name: &str, value: &str| vec![event("ADDED", object(name, "5", value)), list_ends("10")];
    let (asked, heard) = follow_through([
        Answer::Ended(answer("a", "1")),
        Answer::Refused(410),
        Answer::Ended(answer("a", "1").into_iter().chain([event("ERROR", status(410))]).collect()),
        Answer::Silent(answer("b", "2")),
    ])
    .await;
    assert_eq!(asked, ["stream", "watch 10", "stream 10", "stream 10"], "and not one that is older");
    assert_eq!(heard, ["well", "all 1", "well", "well", "all 2"], "the same list again is no news");
}

#[tokio::test(start_paused = true)]
async fn where_no_list_can_be_streamed_it_is_listed() {
    let list = || {
        let metadata = json!({"resourceVersion": "20"});
        Answer::List(json!({"kind": "ConfigMapList", "apiVersion": "v1", "metadata": metadata, "items": [object("a", "5", "1")]}))
    };
    for refusal in [Answer::Refused(422), Answer::Refused(400), Answer::Silent(vec![event("ERROR", status(500))])] {
        let (asked, heard) = follow_through([refusal, list(), Answer::Refused(410), list(), Answer::Silent(vec![])]).await;
        assert_eq!(asked, ["stream", "list", "watch 20", "list 20", "watch 20"]);
        assert_eq!(heard[..2], ["well", "all 1"]);
        assert!(heard[2..].iter().all(|told| told == "well"), "{heard:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_works_again_is_told_though_nothing_happened() {
    let (asked, heard) =
        follow_through([Answer::Ended(vec![list_ends("10")]), Answer::Refused(403), Answer::Refused(503), Answer::Silent(vec![])]).await;
    assert_eq!(asked, ["stream", "watch 10", "watch 10", "watch 10"]);
    let expected = ["well", "all ", r#"Forbidden { verb: "watch" }"#, r#"Away { cause: "because" }"#, "well"];
    assert_eq!(heard, expected);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_never_comes_is_an_api_server_that_is_away() {
    let (asked, heard) = follow_through([Answer::Refused(401), Answer::Never]).await;
    assert_eq!(asked, ["stream", "stream"]);
    assert_eq!(heard, [r#"Unauthorized { message: "because" }"#, r#"Away { cause: "deadline has elapsed" }"#]);
}
