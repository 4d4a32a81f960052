//! Links lead somewhere, and the table of contents has every page.

use std::{collections::BTreeSet, path::Path};

use crate::{
    assert_none, in_all_pages,
    page::{Page, root, text_of},
};

#[test]
fn links_and_their_anchors_lead_somewhere() {
    in_all_pages(100, |page, found| {
        for (line, link) in page.links().filter(|(_, link)| !link.contains("://")) {
            found(line, leads_somewhere(&page.path, link));
        }
    });
}

fn leads_somewhere(page: &Path, link: &str) -> Result<(), String> {
    let (file, anchor) = link.split_once('#').map_or((link, None), |(file, anchor)| (file, Some(anchor)));
    let target = if file.is_empty() { page.to_owned() } else { page.parent().unwrap_or(Path::new("")).join(file) };
    if !root().join(&target).exists() {
        return Err(format!("{link}: there is no {}", target.display()));
    }
    match anchor {
        Some(anchor) if !Page::read(&target).anchors().iter().any(|one| one == anchor) => Err(format!("{link}: has no such heading")),
        _ => Ok(()),
    }
}

#[test]
fn a_link_without_a_target_is_found() {
    assert_eq!(leads_somewhere(Path::new("docs/faq.md"), "installation.md#container"), Ok(()));
    assert!(leads_somewhere(Path::new("docs/faq.md"), "installation.md#nothing").is_err());
    assert!(leads_somewhere(Path::new("docs/faq.md"), "docs/installation.md").is_err());
}

#[test]
fn the_table_of_contents_has_every_page_once() {
    let summary = Page::read("docs/SUMMARY.md");
    let named: Vec<_> = summary.links().map(|(_, link)| link.to_owned()).collect();
    let set: BTreeSet<_> = named.iter().cloned().collect();
    assert_eq!(set.len(), named.len(), "a page is named twice: {named:?}");
    let there = Page::all().into_iter().filter(|page| page.path.starts_with("docs") && !page.path.ends_with("SUMMARY.md"));
    // `make soak` writes that one where it runs.
    let there = there.filter(|page| !page.path.ends_with("soak.md"));
    let there: BTreeSet<_> = there.filter_map(|page| Some(page.path.file_name()?.to_str()?.to_owned())).collect();
    let wrong: Vec<_> = set.symmetric_difference(&there).map(|page| format!("{page}: is in the folder or in SUMMARY.md alone")).collect();
    assert_none(&wrong);
}

#[test]
fn the_readme_leads_to_every_page_that_users_look_for() {
    let readme = text_of("README.md");
    let summary = Page::read("docs/SUMMARY.md");
    // Reached from other pages: the contents themselves, and all that was measured.
    let missing =
        summary.links().filter(|(_, page)| !["README.md", "benchmarks.md"].contains(page) && !readme.contains(&format!("docs/{page}")));
    assert_none(&missing.map(|(_, page)| format!("README.md does not lead to docs/{page}")).collect::<Vec<_>>());
}
