

pub mod route;
