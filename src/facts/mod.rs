

pub mod kernel;
