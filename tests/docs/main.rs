//! What the documents say is so: links, manifests, command lines and names are held to the product's own parsers and tables.

mod commands;
mod manifests;
mod names;
mod needs;
mod page;
mod structure;
mod units;

use page::Page;

/// Fails with all that was found.
fn assert_none(found: &[String]) {
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

/// What `look` finds in all pages, with the place ahead of it. Panics if it looked at less than `least` things: the rule would be idle.
fn in_all_pages(least: usize, look: impl Fn(&Page, &mut dyn FnMut(usize, Result<(), String>))) {
    let (mut looked, mut found) = (0, Vec::new());
    for page in Page::all() {
        look(&page, &mut |line, result| {
            looked += 1;
            found.extend(result.err().map(|error| format!("{}:{line}: {error}", page.path.display())));
        });
    }
    assert_none(&found);
    assert!(looked >= least, "only {looked} were looked at");
}
