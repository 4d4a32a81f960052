
pub mod step;
