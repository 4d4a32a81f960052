//! Many files put together: of two documents of one name one is used, and whoever was bound by words that are wrong now is held.
//!
//! A slip in a selector leaves nobody who could be held by it. So what each binding said last, when nothing was wrong with it, is remembered.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;

use super::{Content, Document, File, Said};
use crate::api::values;
use crate::model::binding::Binding;
use crate::model::cloud::CloudPool;
use crate::model::field_error::{FieldError, ManifestError};
use crate::model::manifests::Manifests;

/// Errors that one file reports; the rest is counted.
const MAX_FILE_ERRORS: usize = 100;

/// What each binding said when nothing was wrong with it last, by object.
#[derive(Clone, Debug, Default)]
pub struct LastRight(BTreeMap<String, Words>, Pools);

/// The same of pools with `cloud`, while this process runs: an address of one is not used before the cloud shows it.
type Pools = BTreeMap<String, Arc<CloudPool>>;

#[derive(Clone, Debug)]
struct Words {
    /// The file that says so, or said it.
    file: String,
    binding: Arc<Binding>,
    /// The document, as JSON.
    text: Arc<str>,
    /// The files do not say it any more, or not alone.
    needed: bool,
}

impl LastRight {
    /// What was kept for this start, as [`LastRight::needed`] gave it.
    pub fn recall<'a>(kept: impl IntoIterator<Item = &'a str>) -> Self {
        let mut all = Self::default();
        for text in kept {
            let file = text.lines().next().and_then(|line| serde_json::from_str(line.strip_prefix("# ")?).ok()).unwrap_or_default();
            for document in Content::read(text.as_bytes()).documents.into_iter().filter_map(|(_, document)| document.ok()) {
                if let Some((binding, text)) = document.right() {
                    let words = Words { file: String::clone(&file), binding: Arc::clone(binding), text: Arc::clone(text), needed: true };
                    all.0.insert(document.object, words);
                }
            }
        }
        all
    }

    /// What the files alone would not tell the next start: a binding's name, `shop/crawler`, and a manifest of it that begins with the name of
    /// its file.
    pub fn needed(&self) -> impl Iterator<Item = (&str, String)> {
        let needed = self.0.values().filter(|words| words.needed);
        needed.map(|words| (words.binding.name.name.as_str(), format!("# {}\n{}\n", Value::from(words.file.as_str()), words.text)))
    }
}

/// One document, and where it stands.
#[derive(Clone)]
struct Placed<'a> {
    file: &'a str,
    place: String,
    document: &'a Document,
}

/// What all files say, in the order of their names, and what of it is to be remembered. Of two documents of one name the one that was in force
/// `before` is used, or else the first.
pub fn assemble<'a>(files: impl IntoIterator<Item = File<'a>>, before: &LastRight) -> (Manifests, LastRight) {
    let files: Vec<File<'a>> = files.into_iter().collect();
    let mut all = Assembly { used: used(&files, before), before, ..Assembly::new(before) };
    for file in files {
        all.file(file);
    }
    all.untold();
    (all.manifests, all.right)
}

/// The document of each object that is used.
fn used<'a>(files: &[File<'a>], before: &LastRight) -> BTreeMap<&'a str, Placed<'a>> {
    let mut used: BTreeMap<&str, Placed<'_>> = BTreeMap::new();
    // The same words are the same document, wherever it stands; else it has been edited, in its file.
    let rank = |placed: &Placed<'_>| {
        before.0.get(&placed.document.object).map_or(0, |words| {
            let same = placed.document.right().is_some_and(|(_, text)| *text == words.text);
            4 * u8::from(same) + 2 * u8::from(placed.file == words.file)
        })
    };
    for file in files {
        for (place, document) in documents(*file) {
            let Ok(document) = document else { continue };
            let placed = Placed { file: file.name, place, document };
            match used.get(document.object.as_str()) {
                Some(there) if rank(there) >= rank(&placed) => {}
                _ => drop(used.insert(&document.object, placed)),
            }
        }
    }
    used
}

fn documents(file: File<'_>) -> impl Iterator<Item = (String, &Result<Document, FieldError>)> {
    let many = file.content.documents.len() > 1;
    file.content.documents.iter().map(move |(number, document)| (place(file.name, many.then_some(*number)), document))
}

/// `crawler.yaml`, `crawler.yaml#2`. A file's name is a user's text as well.
fn place(file: &str, number: Option<usize>) -> String {
    let file = values::printable(file, 255);
    match number {
        Some(number) => format!("{file}#{number}"),
        None => file,
    }
}

struct Assembly<'a> {
    manifests: Manifests,
    before: &'a LastRight,
    right: LastRight,
    used: BTreeMap<&'a str, Placed<'a>>,
    /// Files with a document of which nobody can tell whom it is about.
    untold: BTreeSet<&'a str>,
}

impl<'a> Assembly<'a> {
    fn new(before: &'a LastRight) -> Self {
        let (used, untold) = (BTreeMap::new(), BTreeSet::new());
        Self { manifests: Manifests::default(), before, right: LastRight::default(), used, untold }
    }

    fn file(&mut self, file: File<'a>) {
        let before = self.manifests.errors.len();
        for (number, fault) in &file.unread.unwrap_or(file.content).faults {
            let mut error = fault.clone();
            if file.unread.is_some() {
                error.message.push_str(" (the file's last valid version stays in force)");
            }
            self.refuse(place(file.name, *number), error);
        }
        for (place, document) in documents(file) {
            match document {
                Ok(document) => self.document(&Placed { file: file.name, place, document }),
                Err(error) => {
                    self.untold.insert(file.name);
                    self.refuse(place, error.clone());
                }
            }
        }
        let more = self.manifests.errors.len().saturating_sub(before + MAX_FILE_ERRORS);
        if more > 0 {
            self.manifests.errors.truncate(before + MAX_FILE_ERRORS);
            let message = format!("has {more} more errors; correct the listed ones first");
            self.refuse(place(file.name, None), FieldError { field: "file".to_owned(), message });
        }
    }

    fn document(&mut self, placed: &Placed<'a>) {
        let document = placed.document;
        let used = &self.used[document.object.as_str()];
        if !std::ptr::eq(used.document, document) {
            return self.doubled(placed, &used.clone());
        }
        match &document.said {
            Ok(Said::Binding { binding, .. }) => self.binding(placed, binding),
            Ok(Said::Network(network)) => self.manifests.networks.push(network.clone()),
            Ok(Said::Pool(pool)) => {
                self.right.1.extend(pool.iter().map(|pool| (document.object.clone(), Arc::clone(pool))));
                self.manifests.pools.extend(pool.clone());
            }
            Ok(Said::Proxy(proxy)) => self.manifests.proxies.push(Arc::clone(proxy)),
            Err(errors) => match self.keep(&document.object) {
                Some(last) => {
                    let held = Binding { errors: errors.clone(), lapsed: true, warnings: Vec::new(), ..Binding::clone(&last) };
                    self.manifests.bindings.push(Arc::new(held));
                }
                None => {
                    self.keep_pool(&document.object);
                    errors.iter().for_each(|error| self.refuse(document.object.clone(), error.clone()));
                }
            },
        }
    }

    fn binding(&mut self, placed: &Placed<'a>, binding: &Arc<Binding>) {
        let object = &placed.document.object;
        if let Some((binding, text)) = placed.document.right() {
            let needed = self.right.0.get(object).is_some_and(|words| words.needed);
            let words = Words { file: placed.file.to_owned(), binding: Arc::clone(binding), text: Arc::clone(text), needed };
            self.manifests.bindings.push(Arc::clone(binding));
            self.right.0.insert(object.clone(), words);
            return;
        }
        let Some(last) = self.keep(object) else {
            self.manifests.bindings.push(Arc::new(Binding { inbound: Vec::new(), ..Binding::clone(binding) }));
            return;
        };
        let (exits, inbound) = (last.exits.clone(), last.inbound.clone());
        self.manifests.bindings.push(Arc::new(Binding { exits, inbound, lapsed: true, ..Binding::clone(binding) }));
        if last.selector != binding.selector {
            let message = "the workloads that it bound before stay held as long as it has an error; correct that".to_owned();
            self.hold(&last, "before", FieldError { field: "spec".to_owned(), message });
        }
    }

    /// A second document of one name: whoever it names is held, unless the first one has them.
    fn doubled(&mut self, placed: &Placed<'a>, used: &Placed<'a>) {
        let Document { object, said } = placed.document;
        let (first, place) = (&used.place, &placed.place);
        let message = format!("the document in {first} has the same name, so the one in {place} is not used; rename it");
        let error = FieldError { field: "metadata.name".to_owned(), message };
        self.refuse(object.clone(), error.clone());
        match said {
            Ok(Said::Binding { binding, .. }) => {
                let binding = Arc::clone(binding);
                if let Ok(Said::Binding { binding: first, .. }) = &used.document.said {
                    let below = Binding { priority: binding.priority.min(first.priority), ..Binding::clone(&binding) };
                    self.hold(&below, place, error);
                } else {
                    self.hold(&binding, place, error);
                }
                self.contested(object);
            }
            Ok(_) => {}
            Err(_) => drop(self.untold.insert(placed.file)),
        }
    }

    /// Which of the two is used has to be remembered. Documents of one name come in any order.
    fn contested(&mut self, object: &str) {
        let used = &self.used[object];
        let (file, said) = (used.file.to_owned(), used.document.right());
        let words = said.map(|(binding, text)| Words { file, binding: Arc::clone(binding), text: Arc::clone(text), needed: true });
        self.right.0.extend(words.map(|words| (object.to_owned(), words)));
    }

    /// Holds those whom a binding names, under a name beside its own, which comes behind that.
    fn hold(&mut self, binding: &Binding, why: &str, error: FieldError) {
        let mut held = Binding { errors: vec![error], inbound: Vec::new(), rate: None, warnings: Vec::new(), ..binding.clone() };
        held.name.name = format!("{} ({why})", held.name.name);
        self.manifests.bindings.push(Arc::new(held));
    }

    /// What an object said when it was right: it is remembered further.
    fn keep(&mut self, object: &str) -> Option<Arc<Binding>> {
        let last = self.before.0.get(object)?;
        self.right.0.insert(object.to_owned(), Words { needed: true, ..last.clone() });
        Some(Arc::clone(&last.binding))
    }

    /// The same of a pool, which is in force further.
    fn keep_pool(&mut self, object: &str) {
        let before = self.before;
        if let Some(pool) = before.1.get(object) {
            self.right.1.insert(object.to_owned(), Arc::clone(pool));
            self.manifests.pools.push(Arc::clone(pool));
        }
    }

    /// A binding that is not named any more, while its file has a document that cannot be told: it may be that one.
    fn untold(&mut self) {
        if !self.untold.is_empty() {
            let used = &self.used;
            let lost: Vec<&String> = self.before.1.keys().filter(|object| !used.contains_key(object.as_str())).collect();
            lost.into_iter().for_each(|object| self.keep_pool(object));
        }
        for (object, last) in &self.before.0 {
            if self.used.contains_key(object.as_str()) || !self.untold.contains(last.file.as_str()) {
                continue;
            }
            self.keep(object);
            self.manifests.bindings.push(Arc::clone(&last.binding));
            let file = place(&last.file, None);
            let message = format!(
                "no document has it any more, and a document in {file} cannot be identified; correct that one, or remove it (what the binding said \
                 before stays in force)"
            );
            self.refuse(object.clone(), FieldError { field: "metadata.name".to_owned(), message });
        }
    }

    fn refuse(&mut self, object: String, error: FieldError) {
        self.manifests.errors.push(ManifestError { object, error });
    }
}
