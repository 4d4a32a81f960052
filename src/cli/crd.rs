//! `egressd crd` and `egressd reference`: print what is generated from the types.

use std::io::{self, Write};

use crate::api::{definitions, reference};

/// Prints the custom resource definitions, for `kubectl apply -f -`.
pub fn crd(out: &mut impl Write) -> io::Result<()> {
    for (at, (_, definition)) in definitions::all().iter().enumerate() {
        let separator = if at == 0 { "" } else { "---\n" };
        write!(out, "{separator}{definition}")?;
    }
    Ok(())
}

/// Prints the reference page (`docs/reference.md`).
pub fn reference(out: &mut impl Write) -> io::Result<()> {
    out.write_all(reference::markdown().as_bytes())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    /// With `UPDATE_GENERATED=1` the file is written instead.
    fn assert_generated(file: &str, print: impl Fn(&mut Vec<u8>) -> std::io::Result<()>) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
        let mut text = Vec::new();
        print(&mut text).expect("a vector takes everything");
        let text = String::from_utf8(text).expect("generated text is UTF-8");
        if std::env::var_os("UPDATE_GENERATED").is_some() {
            std::fs::write(&path, &text).expect("written");
        }
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(committed == text, "{file} is not what the types say; run the tests once with UPDATE_GENERATED=1");
    }

    #[test]
    fn the_committed_definitions_are_the_generated_ones() {
        for (file, definition) in crate::api::definitions::all() {
            // The chart cannot reach what is outside of its folder.
            for folder in ["crds", "charts/egressd/files/crds"] {
                assert_generated(&format!("{folder}/{file}"), |out| std::io::Write::write_all(out, definition.as_bytes()));
            }
        }
    }

    #[test]
    fn the_committed_reference_is_the_generated_one() {
        assert_generated("docs/reference.md", super::reference);
    }
}
