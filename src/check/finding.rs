//! What a check says.

use std::fmt;

use serde::Serialize;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Nothing to do.
    Ok,
    /// Works, or works for some, or may stop to work.
    Warn,
    /// Keeps egressd from doing its work.
    Fail,
}

/// One line of `egressd check`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub level: Level,
    /// What it is about.
    pub subject: String,
    /// What is the matter.
    pub message: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cure: Option<String>,
}

impl Finding {
    pub fn ok(subject: impl Into<String>, message: impl Into<String>) -> Self {
        Self { level: Level::Ok, subject: subject.into(), message: message.into(), cure: None }
    }

    pub fn warn(subject: impl Into<String>, message: impl Into<String>, cure: impl Into<String>) -> Self {
        Self { level: Level::Warn, subject: subject.into(), message: message.into(), cure: Some(cure.into()) }
    }

    pub fn fail(subject: impl Into<String>, message: impl Into<String>, cure: impl Into<String>) -> Self {
        Self { level: Level::Fail, subject: subject.into(), message: message.into(), cure: Some(cure.into()) }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "FAIL",
        })
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<4}  {}: {}", self.level, self.subject, self.message)?;
        match &self.cure {
            Some(cure) => write!(f, ". Cure: {cure}"),
            None => Ok(()),
        }
    }
}
