//! In a real browser: the page shows what status says, follows it, and is usable by keyboard, by a screen reader and with ten thousand workloads.

mod chrome;

use std::{fmt::Write, path::Path, thread, time::Duration};

use serde_json::{Value, json};
use world::{
    Binding, Nic, Scenario, World,
    layout::{PORT, SERVER},
    status::{until, until_within},
    talk::Flow,
};

use self::chrome::Chrome;
use crate::{
    api::stage,
    http::{ADDRESS, egressd},
};

/// Whether a browser was named, as `make test-ui` does.
pub fn is_wanted() -> bool {
    std::env::var_os("EGRESSD_BROWSER").is_some()
}

pub fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new("the page shows what status says, and follows a change without a move or an error", shows_and_follows),
        Scenario::new("the page says that egressd is away, and goes on when it is back", outlives_the_daemon),
        Scenario::new("a workload is explained by keyboard alone", by_keyboard),
        Scenario::new("the checker of accessibility finds nothing, light and dark, narrow and wide", accessible),
        Scenario::new("ten thousand workloads are groups, and rows only where one is opened", ten_thousand),
        Scenario::new("what a workload is called is text, whatever it is", names_are_text),
        Scenario::new("the page for the documents", for_the_documents),
    ]
}

/// The rows of all groups, opened by a filter that fits everybody.
const ROWS: &str = "[...document.querySelectorAll('#ways tr')].map(row => [...row.children].map(cell => cell.textContent))";

/// Types it, as a person does.
fn filter(chrome: &mut Chrome, text: &str) {
    chrome.value("document.getElementById('filter').focus()");
    for letter in text.chars() {
        // Letters and digits have the codes of their keys, `.` has that of Delete.
        let code = if letter.is_ascii_alphanumeric() { u32::from(letter.to_ascii_uppercase()) } else { 0 };
        chrome.press(&letter.to_string(), code, &letter.to_string());
    }
}

fn shows_and_follows() {
    let world = World::builder().build();
    let [blue, neighbour] = stage(&world);
    world.bind(&Binding::of(&neighbour.netns).with("exits: [{address: 172.31.0.99}]"));
    let _egressd = egressd(&world);
    world.await_nic("netns/blue", Nic::Eth1);
    world.await_state("netns/neighbour", "Dropped");
    let mut chrome = Chrome::start(&world);
    chrome.show_as(1440, 900, "light");
    chrome.open(ADDRESS);
    filter(&mut chrome, "netns/");
    chrome.until("document.querySelectorAll('#ways tr.level2').length === 4");
    let rows = chrome.value(ROWS);
    for workload in world.status()["workloads"].as_array().expect("a list") {
        let has = |text: &Value| text.as_str().unwrap_or("").to_owned();
        let (name, address, state) = (has(&workload["workload"]), has(&workload["address"]), has(&workload["state"]));
        let is_it = |row: &&Value| row[0] == name && row[1] == address;
        let row = rows.as_array().and_then(|rows| rows.iter().find(is_it)).unwrap_or_else(|| panic!("{name}: {rows:#}"));
        assert_eq!(
            (&row[2], &row[3], &row[4]),
            (&has(&workload["binding"]).into(), &has(&workload["exit"]).into(), &has(&workload["nic"]).into())
        );
        assert!(row[8].as_str().is_some_and(|shown| shown.starts_with(&state)), "{row}");
    }
    let wrong = chrome.value("document.getElementById('wrong').innerText");
    let wrong = wrong.as_str().unwrap_or_default();
    assert!(wrong.contains("netns/neighbour: Dropped") && wrong.contains("ip address add 172.31.0.99/PREFIX dev NIC"), "{wrong}");
    assert_eq!(chrome.value("document.querySelector('#wrong code').textContent"), "ip address add 172.31.0.99/PREFIX dev NIC");

    chrome.until("document.querySelectorAll('#exits tr').length > 0");
    assert_eq!(chrome.value("window.moved"), json!([]), "nothing moves while it is loaded");
    let _flow = Flow::open(&blue.netns, (SERVER, PORT).into()).expect("it leaves");
    let own = [world.layout.address(Nic::Eth0).to_string(), world.layout.address6(Nic::Eth0).to_string()];
    let exits = own.map(|address| format!("{{address: '{address}', publicAddress: '{address}0'}}")).join(", ");
    world.bind(&Binding::of(&neighbour.netns).with(&format!("exits: [{exits}]")));
    let bound = "[...document.querySelectorAll('#ways tr.level2')].filter(row => row.innerText.includes('neighbour') && row.innerText.includes('Bound') && row.children[6].textContent === row.children[3].textContent + '0').length === 2";
    let taken = chrome.time_until(bound);
    chrome.until("document.querySelector('#changes tr').innerText.includes('neighbour')");
    chrome.until("[...document.querySelectorAll('#exits tr')].some(row => row.children[0].textContent === '172.31.0.14' && row.children[2].textContent >= '1')");
    let paint = chrome.value("performance.getEntriesByType('paint').map(entry => entry.name + ' ' + entry.startTime + ' ms').join(', ')");
    println!("{}; a change is shown after {} ms", paint.as_str().unwrap_or_default(), taken.as_millis());
    // Two rows have gone to another group.
    let moved = chrome.value("window.moved");
    let what = moved.as_array().into_iter().flatten().flat_map(|one| one[1].as_array().into_iter().flatten());
    assert!(what.filter_map(Value::as_str).all(|what| what.starts_with("ways TR")), "{moved:#}");
    assert_eq!(chrome.errors(), Vec::<String>::new());
}

fn outlives_the_daemon() {
    let world = World::builder().build();
    stage(&world);
    let mut egressd = egressd(&world);
    world.await_nic("netns/blue", Nic::Eth1);
    let mut chrome = Chrome::start(&world);
    chrome.open(ADDRESS);
    filter(&mut chrome, "blue");
    chrome.until("document.querySelectorAll('#ways tr.level2').length === 2");
    egressd.kill();
    chrome.until("document.getElementById('live').textContent.includes('has not answered since')");
    assert_eq!(chrome.value("document.querySelectorAll('#ways tr.level2').length"), 2, "what was known is shown");
    world.unbind("blue");
    egressd.start();
    chrome.until("document.getElementById('live').textContent === 'Live'");
    chrome.until("document.querySelectorAll('#ways tr.level2').length === 0");
}

fn by_keyboard() {
    let world = World::builder().build();
    stage(&world);
    let _egressd = egressd(&world);
    world.await_nic("netns/blue", Nic::Eth1);
    let mut chrome = Chrome::start(&world);
    chrome.open(ADDRESS);
    // Tab by tab, as somebody without a mouse gets there: the filter, the pane, the group, the workload.
    let focused = "document.activeElement.dataset?.act ?? document.activeElement.id";
    for open in ["group", "workload"] {
        let mut steps = 0;
        loop {
            chrome.press("Tab", 9, "");
            let at = chrome.value(focused);
            let closed = chrome.value("document.activeElement.getAttribute('aria-expanded') !== 'true'");
            if at == open && closed == true {
                break;
            }
            steps += 1;
            assert!(steps < 20, "{at} has the focus");
        }
        chrome.press("Enter", 13, "\r");
    }
    chrome.until("document.getElementById('explain').open && document.getElementById('explanation').textContent !== ''");
    let shown = chrome.value("document.getElementById('explanation').textContent");
    assert_eq!(shown.as_str(), world.egressctl(&["explain", "netns/blue"]).ok().as_deref());
    chrome.value("document.getElementById('to').focus()");
    for digit in SERVER.to_string().chars() {
        chrome.call("Input.insertText", json!({ "text": digit.to_string() }));
    }
    chrome.press("Enter", 13, "\r");
    let printed = json!(world.egressctl(&["explain", "netns/blue", &SERVER.to_string()]).expect("it is known"));
    chrome.until(&format!("document.getElementById('explanation').textContent === {printed}"));
    chrome.press("Escape", 27, "");
    chrome.until("!document.getElementById('explain').open && document.activeElement.dataset.act === 'workload'");
    assert_eq!(chrome.errors(), Vec::<String>::new());
}

fn accessible() {
    let world = World::builder().build();
    let [_, neighbour] = stage(&world);
    world.bind(&Binding::of(&neighbour.netns).with("exits: [{address: 172.31.0.99}]"));
    let _egressd = egressd(&world);
    world.await_state("netns/neighbour", "Dropped");
    let mut chrome = Chrome::start(&world);
    chrome.open(ADDRESS);
    filter(&mut chrome, "netns/");
    chrome.until("document.querySelectorAll('#ways tr.level2').length === 4");
    for scheme in ["light", "dark"] {
        for width in [400, 1280, 2560] {
            chrome.show_as(width, 900, scheme);
            assert_eq!(chrome.inaccessible(), json!([]), "{scheme}, {width} px");
            let wide = chrome.value("document.documentElement.scrollWidth").as_u64().unwrap_or(0);
            assert!(wide <= u64::from(width), "it is {wide} px wide in {width}");
        }
    }
    chrome.value("document.querySelector('#ways tr.level2 button').click()");
    chrome.until("document.getElementById('explanation').textContent !== ''");
    assert_eq!(chrome.inaccessible(), json!([]), "with the explanation open");
}

/// So many bindings, with so many addresses each.
const MANY: (u8, u8) = (40, 250);

fn ten_thousand() {
    let world = World::builder().build();
    world.lan();
    world.netns().ip("route add 10.10.0.0/16 dev lan0");
    let exit = format!("exits: [{{address: {}, gateway: {}}}]", world.layout.address(Nic::Eth1), world.layout.gateway(Nic::Eth1));
    for third in 0..MANY.0 {
        let mut addresses = String::new();
        for last in 0..MANY.1 {
            let _ = write!(addresses, "10.10.{third}.{last}/32, ");
        }
        world.bind(&Binding::new(&format!("many-{third}"), &format!("addresses: [{addresses}]")).with(&exit));
    }
    let _egressd = egressd(&world);
    let all = u64::from(MANY.0) * u64::from(MANY.1);
    until_within(Duration::from_secs(60), Duration::from_millis(500), "all are bound", || {
        let bound = world.status()["workloads"].as_array().map_or(0, |all| all.iter().filter(|row| row["state"] == "Bound").count());
        if bound as u64 == all { Ok(()) } else { Err(bound.to_string()) }
    });
    let mut chrome = Chrome::start(&world);
    chrome.show_as(1440, 900, "light");
    chrome.open(ADDRESS);
    chrome.until("document.querySelectorAll('#ways tr').length === 1");
    chrome.value("document.querySelector('#ways [aria-expanded=false]').click()");
    chrome.until("document.querySelectorAll('#ways tr.level2').length === 101");
    chrome.value("document.querySelector('#ways [data-act=more]').click()");
    chrome.until("document.querySelectorAll('#ways tr.level2').length === 201");
    filter(&mut chrome, "10.10.39.249");
    let taken = chrome.time_until("document.querySelectorAll('#ways tr.level2').length === 1");
    println!("one of {all} is found after {} ms", taken.as_millis());
    assert_eq!(chrome.errors(), Vec::<String>::new());
}

fn names_are_text() {
    let world = World::builder().build();
    let _egressd = egressd(&world);
    let evil = "<img src=x onerror=document.title=1>";
    world.write_manifest("evil.yaml", format!("kind: '{evil}'\n").as_bytes());
    until("it is a problem", || {
        let problems = world.status()["problems"].to_string();
        if problems.contains("onerror") { Ok(()) } else { Err(problems) }
    });
    let mut chrome = Chrome::start(&world);
    chrome.call("Page.navigate", json!({ "url": format!("http://{ADDRESS}/") }));
    chrome.until("document.getElementById('wrong')?.textContent.includes('onerror')");
    assert_eq!(chrome.value("document.querySelectorAll('img').length + document.title"), "0egressd");
    let stopped = "fetch('/api/v1/status').then(() => { const s = document.createElement('script'); s.textContent = 'window.ran = 1'; document.body.append(s); return window.ran ?? 0; })";
    assert_eq!(chrome.value(stopped), 0, "the policy runs no other script");
}

fn for_the_documents() {
    let world = World::builder().build();
    let bridge = world.bridge("eip_bridge", 28);
    world.masquerade(&bridge);
    let names = ["crawler-1", "crawler-2", "crawler-3", "typo", "other"];
    let made: Vec<_> = names.iter().zip(10..).map(|(name, number)| world.container(name, &bridge, number)).collect();
    world.bind(&Binding::of(&made[0].netns).to(&world, Nic::Eth0));
    world.bind(&Binding::of(&made[1].netns).to(&world, Nic::Eth1));
    let [own, own6] = [world.layout.address(Nic::Eth1).to_string(), world.layout.address6(Nic::Eth1).to_string()];
    let public = format!("exits: [{{address: '{own}', publicAddress: 203.0.113.14}}, {{address: '{own6}'}}]");
    // Nobody listens there.
    let inbound = "inbound: [{protocol: TCP, port: 27017, targetPort: 1234, health: {tcp: {}}}]";
    world.bind(&Binding::of(&made[2].netns).with(&public).with(inbound));
    world.bind(&Binding::of(&made[3].netns).with("exits: [{address: 172.31.0.15}]"));
    let _egressd = egressd(&world);
    world.await_nic("netns/crawler-3", Nic::Eth1);
    let to = (SERVER, PORT).into();
    let mut open: Vec<Flow> = (0..12).map(|_| Flow::open(&made[1].netns, to).expect("it leaves")).collect();
    open.extend((0..5).map(|_| Flow::open(&made[0].netns, to).expect("it leaves")));
    made[3].ask_udp((SERVER, PORT)).expect_err("it is dropped");
    let mut chrome = Chrome::start(&world);
    for (scheme, file) in [("light", "docs/page-light.png"), ("dark", "docs/page-dark.png")] {
        chrome.show_as(1440, 860, scheme);
        chrome.open(ADDRESS);
        filter(&mut chrome, "netns/");
        chrome.until("document.querySelectorAll('#ways tr.level2').length >= 8");
        chrome.until("document.querySelectorAll('#exits tr').length > 0");
        chrome.until("document.querySelector('#services tr').innerText.includes('unhealthy')");
        // Rates are there from the second reading on.
        thread::sleep(Duration::from_secs(2));
        let shot = chrome.screenshot();
        assert!(shot.len() > 10_000, "it shows something");
        if std::env::var_os("UPDATE_GENERATED").is_some() {
            std::fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join(file), shot).expect("the tree is ours");
        }
    }
    drop(open);
}
