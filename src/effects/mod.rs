//! What changes the world: each effect carries out plain steps, and says which of them failed.

pub mod boot;
pub mod connections;
pub mod conntrack;
pub mod docker;
pub mod enter;
pub mod fast_path;
pub mod ipvs;
pub mod isolation;
pub mod kernel;
pub mod kubernetes;
pub mod neighbours;
pub mod nft;
pub mod programs;
pub mod route;
pub mod route_back;
pub mod sysctl;
