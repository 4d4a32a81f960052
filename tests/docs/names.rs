//! Names in the documents are names of the product: metrics, labels, fields, options, variables, reasons and values of the chart.

use std::collections::{BTreeMap, BTreeSet};

use clap::{Command, CommandFactory};
use egressd::{
    api::{definitions, labels::table::LABELS, reference},
    cli::{Cli, kubectl::Kubectl},
};
use serde_json::Value;

use crate::{
    assert_none, in_all_pages,
    page::{Page, text_of},
};

/// Where metrics are registered, with the prefix of each registry.
const REGISTRIES: [(&str, &str); 3] =
    [("src/daemon/metrics.rs", "egressd_"), ("src/daemon/controller.rs", "egressd_"), ("src/proxy/metrics.rs", "egressd_proxy_")];

/// Options of other programs that pages name by themselves.
const OTHERS: [&str; 6] = ["--ip", "--network", "--dns", "--label", "--list", "--take-ownership"];

/// What stands between `begins` and the first character that `ends` it, each time.
fn words<'a>(text: &'a str, begins: &'a str, is_in: fn(char) -> bool) -> impl Iterator<Item = &'a str> {
    text.match_indices(begins).map(move |(at, _)| {
        let rest = &text[at..];
        let end = rest[begins.len()..].find(|c| !is_in(c)).map_or(rest.len(), |end| begins.len() + end);
        &rest[..end]
    })
}

/// A metric without what OpenMetrics adds to the name.
fn base(name: &str) -> &str {
    ["_total", "_seconds", "_info"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name)
}

fn registered() -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for (file, prefix) in REGISTRIES {
        let text = text_of(file);
        let calls =
            text.split("registry.register").skip(1).filter_map(|call| call.split('"').nth(1).filter(|_| call.starts_with(['(', '_'])));
        all.extend(
            calls.filter(|name| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')).map(|name| format!("{prefix}{name}")),
        );
    }
    all.insert("egressd_build".to_owned());
    assert!(all.len() > 20, "{all:?}");
    all
}

/// Names what one place has and the other has not.
fn assert_same(page: &str, told: &BTreeSet<String>, code: &str, known: &BTreeSet<String>) {
    let missing = known.difference(told).map(|name| format!("{page} does not have {name}, as {code} does"));
    let invented = told.difference(known).map(|name| format!("{page} has {name}, which {code} has not"));
    assert_none(&missing.chain(invented).collect::<Vec<_>>());
}

#[test]
fn the_page_of_metrics_has_all_and_no_others_are_named_anywhere() {
    let registered = registered();
    let is_in = |c: char| c.is_ascii_lowercase() || c == '_';
    in_all_pages(30, |page, found| {
        for (line, text) in page.prose() {
            for name in words(text, "egressd_", is_in).filter(|name| *name != "egressd_") {
                found(line, if registered.contains(base(name)) { Ok(()) } else { Err(format!("there is no metric {name}")) });
            }
        }
    });
    let page = Page::read("docs/metrics.md");
    let told: BTreeSet<_> = page.spans().filter_map(|(_, span)| Some(base(words(span, "egressd_", is_in).next()?).to_owned())).collect();
    assert_none(&registered.difference(&told).map(|name| format!("docs/metrics.md does not tell of {name}")).collect::<Vec<_>>());
}

#[test]
fn every_label_is_one_of_the_grammar() {
    let known = |name: &str| LABELS.iter().any(|label| label.name == name);
    in_all_pages(30, |page, found| {
        let blocks = page.blocks();
        let typed = blocks.iter().filter(|block| block.language != "console").map(|block| (block.line, block.text.as_str()));
        for (line, text) in page.prose().chain(typed) {
            for name in words(text, "egress.", |c| c.is_ascii_lowercase() || c == '-') {
                // `egress.rs` and its like are files; a dot at the end of a sentence is no label.
                if !["egress.", "egress.rs", "egress.conf", "egress.md", "egress.yaml"].contains(&name) {
                    found(line, if known(name) { Ok(()) } else { Err(format!("there is no label {name}")) });
                }
            }
        }
    });
}

#[test]
fn every_field_is_one_of_the_schema() {
    let definitions: String = definitions::all().into_iter().map(|(_, text)| text).collect();
    let all = reference::markdown() + &definitions;
    in_all_pages(20, |page, found| {
        for (line, span) in page.spans().filter(|(_, span)| span.starts_with("spec.") || span.starts_with("status.")) {
            let path = span.split([':', '=', ' ']).next().unwrap_or(span);
            let missing = path.split('.').map(|part| part.trim_end_matches("[]")).find(|part| {
                let names = [format!("{part}:"), format!(".{part}`"), format!(".{part}[]"), format!(".{part}.")];
                !names.iter().any(|name| all.contains(name))
            });
            // A field of Kubernetes' own objects, which refusals name.
            let foreign = ["spec.hostNetwork", "status.podIP"].contains(&path);
            found(line, if foreign { Ok(()) } else { missing.map_or(Ok(()), |part| Err(format!("{path}: there is no field {part}"))) });
        }
    });
}

/// All commands, with those below them.
fn all_commands() -> Vec<Command> {
    let roots = [Cli::command(), Kubectl::command(), egressd_cloud::cli::Cli::command()];
    roots.into_iter().flat_map(|root| root.get_subcommands().cloned().chain([root.clone()]).collect::<Vec<_>>()).collect()
}

#[test]
fn every_option_and_variable_is_one_of_the_commands() {
    let commands = all_commands();
    let options: BTreeSet<_> =
        commands.iter().flat_map(|command| command.get_arguments().filter_map(|one| Some(format!("--{}", one.get_long()?)))).collect();
    let variables: BTreeSet<_> =
        commands.iter().flat_map(|command| command.get_arguments().filter_map(|one| one.get_env()?.to_str().map(str::to_owned))).collect();
    let of_tests: String = ["Makefile", "tests/go.sh"].map(text_of).concat();
    in_all_pages(60, |page, found| {
        for (line, span) in page.spans().filter(|(_, span)| span.starts_with("--")) {
            let option = words(span, "--", |c| c.is_ascii_lowercase() || c == '-').next().unwrap_or(span);
            let known = options.contains(option) || OTHERS.contains(&option);
            found(line, if known { Ok(()) } else { Err(format!("there is no option {option}")) });
        }
        for (line, text) in page.prose() {
            for variable in words(text, "EGRESSD_", |c| c.is_ascii_uppercase() || c == '_').filter(|name| *name != "EGRESSD_") {
                let known = variables.contains(variable) || of_tests.contains(variable);
                found(line, if known { Ok(()) } else { Err(format!("there is no variable {variable}")) });
            }
        }
    });
}

#[test]
fn the_page_of_options_has_those_of_each_command() {
    let page = Page::read("docs/configuration.md");
    for command in Cli::command().get_subcommands().filter(|command| ["run", "proxy", "controller"].contains(&command.get_name())) {
        let told: BTreeSet<_> = page.first_cells(&format!("`egressd {}`", command.get_name())).into_iter().collect();
        let options = command.get_arguments().filter_map(clap::Arg::get_long).filter(|name| !["config", "help", "version"].contains(name));
        let known = options.map(|name| format!("`--{name}`")).collect();
        assert_same("docs/configuration.md", &told, &format!("egressd {}", command.get_name()), &known);
    }
}

#[test]
fn the_variables_and_defaults_of_the_page_of_options_are_those_of_the_command() {
    let page = Page::read("docs/configuration.md");
    let mut rows = BTreeMap::new();
    for (_, line) in page.prose().filter(|(_, line)| line.starts_with("| `--")) {
        let cells: Vec<_> = line.split('|').map(|cell| cell.trim().trim_matches('`')).collect();
        rows.entry(cells[1].to_owned()).or_insert_with(Vec::new).push((cells[2].to_owned(), cells[3].to_owned()));
    }
    let mut found = Vec::new();
    for command in Cli::command().get_subcommands().filter(|command| ["run", "proxy", "controller"].contains(&command.get_name())) {
        for option in command.get_arguments() {
            let Some(rows) = option.get_long().and_then(|name| rows.get(&format!("--{name}"))) else { continue };
            let variable = option.get_env().and_then(|name| name.to_str()).unwrap_or_default();
            let default = option.get_default_values().first().and_then(|value| value.to_str());
            if !rows.iter().any(|(named, told)| named == variable && default.is_none_or(|default| default == told)) {
                found.push(format!("{} --{}: {variable}, {default:?}", command.get_name(), option.get_long().unwrap_or_default()));
            }
        }
    }
    assert_none(&found);
}

#[test]
fn the_page_of_troubles_has_every_reason() {
    let code = text_of("src/model/reason/word.rs");
    let words = code.split("=> \"").skip(1).filter_map(|rest| rest.split_once("\",")).map(|(word, _)| format!("`{word}`"));
    let known: BTreeSet<_> = words.collect();
    assert!(known.len() > 30, "{known:?}");
    let told: BTreeSet<_> = Page::read("docs/troubleshooting.md").first_cells("All reasons").into_iter().collect();
    assert_same("docs/troubleshooting.md", &told, "src/model/reason/word.rs", &known);
}

#[test]
fn every_value_that_the_page_of_the_chart_tells_of_is_one_of_the_chart() {
    let values: Value = serde_saphyr::from_str(&text_of("charts/egressd/values.yaml")).expect("YAML");
    let cells = Page::read("charts/egressd/README.md").first_cells("Values");
    let told: Vec<_> = cells.iter().flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect();
    assert!(told.len() > 40, "{told:?}");
    let missing = told.iter().filter(|path| values.pointer(&format!("/{}", path.replace('.', "/"))).is_none());
    assert_none(&missing.map(|path| format!("the chart has no value {path}")).collect::<Vec<_>>());
}

/// What `make engines cluster` builds, by its module's name.
const BUILT: [(&str, &str); 5] = [
    ("tests/engines/go.mod", "github.com/moby/moby/v2"),
    ("tests/cluster/programs/containerd/go.mod", "github.com/containerd/containerd/v2"),
    ("tests/cluster/programs/nerdctl/go.mod", "github.com/containerd/nerdctl/v2"),
    ("tests/cluster/programs/kubernetes/go.mod", "k8s.io/kubernetes"),
    ("tests/cluster/programs/helm/go.mod", "helm.sh/helm/v3"),
];

#[test]
fn the_page_of_compatibility_tells_the_versions_that_the_tests_build() {
    let page = Page::read("docs/compatibility.md");
    let tested: Vec<_> = page.prose().filter_map(|(_, line)| Some(line.split('|').nth(2)?.to_owned())).collect();
    let missing = BUILT.iter().filter_map(|(file, module)| {
        let text = text_of(file);
        let words =
            text.lines().filter_map(|line| line.trim_start().trim_start_matches("require ").strip_prefix(module)?.strip_prefix(" v"));
        let version =
            words.map(|rest| rest.split(' ').next().unwrap_or_default()).next().unwrap_or_else(|| panic!("{file} has no {module}"));
        let is_told = tested.iter().any(|cell| cell.split([' ', ',', ';']).any(|word| word == version));
        (!is_told).then(|| format!("docs/compatibility.md does not tell that {module} {version} is tested"))
    });
    assert_none(&missing.collect::<Vec<_>>());
}
