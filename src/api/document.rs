//! One file's bytes to its documents, within limits: YAML (of which JSON is a part) can be small on disk and endless in memory.

use serde_json::Value;

use super::values::{printable, shown};
use crate::model::field_error::FieldError;

/// Bytes of a file.
pub const MAX_FILE: usize = 1024 * 1024;
/// Characters of the parser's message that an error repeats.
const MAX_REASON: usize = 200;

/// What a file holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Documents {
    /// Documents that could be read, each with its number in the file, from 1.
    pub good: Vec<(usize, Value)>,
    /// What could not be read. `None` is the file as a whole.
    pub faults: Vec<(Option<usize>, FieldError)>,
}

impl Documents {
    /// Reads a file. After a syntax error the rest of the file is not read; what came before it is kept.
    pub fn read(bytes: &[u8]) -> Self {
        let mut content = Self::default();
        if let Some(fault) = unfit(bytes) {
            content.faults.push((None, fault));
            return content;
        }
        let mut bytes = bytes;
        let documents = serde_saphyr::read_with_options::<_, Value>(&mut bytes, options());
        for (number, document) in (1..).zip(documents) {
            match document {
                Ok(value) => content.good.push((number, value)),
                Err(error) => content.faults.push((Some(number), syntax(&error))),
            }
        }
        content
    }
}

fn unfit(bytes: &[u8]) -> Option<FieldError> {
    let fault = |field: &str, message: &str| Some(FieldError { field: field.to_owned(), message: message.to_owned() });
    if bytes.len() > MAX_FILE {
        return fault("size", "the file is larger than 1 MiB; split it into several files");
    }
    if let Err(error) = std::str::from_utf8(bytes) {
        let place = format!("byte {}", error.valid_up_to() + 1);
        return fault(&place, "the file is not UTF-8 text; only YAML or JSON belongs here");
    }
    let control = bytes.iter().position(|b| *b < 0x20 && !matches!(b, b'\t' | b'\n' | b'\r'))?;
    fault(&format!("byte {}", control + 1), "the file has a control character; only YAML or JSON belongs here")
}

/// Limits far above any honest file of [`MAX_FILE`] bytes.
fn options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_reader_input_bytes: Some(MAX_FILE),
            max_events: 500_000,
            max_aliases: 1_000,
            max_anchors: 1_000,
            max_depth: 32,
            max_documents: MAX_FILE,
            max_nodes: 250_000,
            max_total_scalar_bytes: 4 * MAX_FILE,
            max_merge_keys: 1_000,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: 50_000,
            max_replay_stack_depth: 8,
        },
        // `on` and `yes` are text, as in YAML 1.2: they are likely values of container labels.
        strict_booleans: true,
        with_snippet: false,
    }
}

fn syntax(error: &serde_saphyr::Error) -> FieldError {
    use serde_saphyr::Error;
    let error = error.without_snippet();
    let (field, place) = match error.location() {
        Some(at) => (format!("line {}, column {}", at.line(), at.column()), format!(" at line {}, column {}", at.line(), at.column())),
        None => ("syntax".to_owned(), String::new()),
    };
    let message = match error {
        Error::DuplicateMappingKey { key, .. } => {
            let key = key.as_deref().map_or_else(|| "a key".to_owned(), shown);
            format!("{key} is given twice; keep one")
        }
        Error::Budget { .. }
        | Error::AliasReplayCounterOverflow { .. }
        | Error::AliasReplayLimitExceeded { .. }
        | Error::AliasExpansionLimitExceeded { .. }
        | Error::AliasReplayStackDepthExceeded { .. } => {
            "cannot be read: too many or too deep values; split the file, and write out what its aliases repeat".to_owned()
        }
        other => {
            let reason = other.to_string().replace(&place, "");
            let reason = printable(&reason.split_whitespace().collect::<Vec<_>>().join(" "), MAX_REASON);
            format!("cannot be read: {reason}; write YAML 1.2 or JSON, and mind indentation and quotes")
        }
    };
    FieldError { field, message }
}

/// `apiVersion`, `kind` and so on of a document, as text for an error.
pub fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => shown(text),
        Value::Null => "nothing".to_owned(),
        other => shown(&other.to_string()),
    }
}
