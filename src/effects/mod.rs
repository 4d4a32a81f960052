
pub mod docker;
