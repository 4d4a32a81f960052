//! From who-gets-what to what has to change. Pure: plans are data, and one interpreter carries them out.

pub mod chains;
pub mod engine;
pub mod flows;
pub mod routing;
pub mod step;
pub mod tables;
