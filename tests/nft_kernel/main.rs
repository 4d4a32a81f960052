//! The nf_tables code against the kernel and against `nft`, each test in a network namespace of its own. Needs root and `nft`.

mod drops;
mod everything;
mod lab;
mod others;
mod plan;
mod rulesets;
