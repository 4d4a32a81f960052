//! A page of Markdown, as far as the checks need it: headings with their anchors, links, code in lines and in blocks.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

/// Where pages are, besides the tree's own folder.
const FOLDERS: [&str; 4] = ["", "docs", "examples", "charts/egressd"];

/// A page, by its path in the tree.
pub struct Page {
    pub path: PathBuf,
    text: String,
}

/// A fenced block.
#[derive(Debug, PartialEq, Eq)]
pub struct Block {
    /// The line of its first line, from 1.
    pub line: usize,
    pub language: String,
    pub text: String,
}

/// The folder of the tree.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A file of the tree.
pub fn text_of(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

impl Page {
    pub fn read(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        let text = text_of(&path);
        Self { path, text }
    }

    /// All pages, in the order of their names.
    pub fn all() -> Vec<Self> {
        let entries = FOLDERS.iter().flat_map(|folder| {
            let entries = fs::read_dir(root().join(folder)).unwrap_or_else(|error| panic!("{folder}: {error}"));
            entries.map(move |entry| Path::new(folder).join(entry.expect("an entry").file_name()))
        });
        let mut paths: Vec<_> = entries.filter(|path| path.extension().is_some_and(|end| end == "md")).collect();
        paths.sort();
        paths.into_iter().map(Self::read).collect()
    }

    /// Fenced blocks. One that is part of a list is indented as its fence is.
    pub fn blocks(&self) -> Vec<Block> {
        let (mut blocks, mut open) = (Vec::new(), None::<(usize, Block)>);
        for (number, line) in self.text.lines().enumerate() {
            let bare = line.trim_start();
            match &mut open {
                Some(_) if bare == "```" => blocks.extend(open.take().map(|(_, block)| block)),
                Some((indent, block)) => {
                    block.text.push_str(line.get(*indent..).unwrap_or(""));
                    block.text.push('\n');
                }
                None => {
                    open = bare.strip_prefix("```").map(|language| {
                        let block = Block { line: number + 2, language: language.to_owned(), text: String::new() };
                        (line.len() - bare.len(), block)
                    });
                }
            }
        }
        assert!(open.is_none(), "{}: a block has no end", self.path.display());
        blocks
    }

    /// Lines outside of blocks, with their numbers.
    pub fn prose(&self) -> impl Iterator<Item = (usize, &str)> {
        let mut inside = false;
        self.text.lines().enumerate().filter_map(move |(number, line)| {
            let fence = line.trim_start().starts_with("```");
            inside ^= fence;
            (!inside && !fence).then_some((number + 1, line))
        })
    }

    /// Code within lines, without its backticks.
    pub fn spans(&self) -> impl Iterator<Item = (usize, &str)> {
        self.prose().flat_map(|(number, line)| line.split('`').skip(1).step_by(2).map(move |span| (number, span)))
    }

    /// Targets of links.
    pub fn links(&self) -> impl Iterator<Item = (usize, &str)> {
        self.prose().flat_map(|(number, line)| line.split("](").skip(1).filter_map(move |rest| Some((number, rest.split_once(')')?.0))))
    }

    /// The anchors that GitHub and mdBook make of headings.
    pub fn anchors(&self) -> Vec<String> {
        let mut seen = HashMap::<String, usize>::new();
        let headings = self.prose().filter(|(_, line)| line.starts_with('#'));
        let slug = |(_, line): (usize, &str)| -> String {
            let heading = line.trim_start_matches('#').trim().to_lowercase();
            let kept = heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
            kept.map(|c| if c == ' ' { '-' } else { c }).collect()
        };
        let numbered = headings.map(slug).map(|slug| {
            let times = seen.entry(slug.clone()).or_default();
            *times += 1;
            if *times == 1 { slug } else { format!("{slug}-{}", *times - 1) }
        });
        numbered.collect()
    }

    /// The first cell of each row of the tables below a heading.
    pub fn first_cells(&self, heading: &str) -> Vec<String> {
        let below = self.prose().skip_while(|(_, line)| line.trim_start_matches('#').trim() != heading || !line.starts_with('#')).skip(1);
        let section = below.take_while(|(_, line)| !line.starts_with('#'));
        let rows = section.filter(|(_, line)| line.starts_with("| `"));
        rows.filter_map(|(_, line)| Some(line.split('|').nth(1)?.trim().to_owned())).collect()
    }
}

#[test]
fn a_page_is_read_as_its_readers_see_it() {
    let text = "# A `b` c!\n1. x\n   ```sh\n   egressd status\n   ```\n## D\n## D\n| `a` | 1 |\nsee [x](y.md#z), `not](here)`\n";
    let page = Page { path: "x.md".into(), text: text.to_owned() };
    assert_eq!(page.anchors(), ["a-b-c", "d", "d-1"]);
    assert_eq!(page.blocks(), [Block { line: 4, language: "sh".to_owned(), text: "egressd status\n".to_owned() }]);
    assert_eq!(page.links().next(), Some((9, "y.md#z")));
    assert_eq!(page.spans().map(|(_, span)| span).collect::<Vec<_>>(), ["b", "a", "not](here)"]);
}
