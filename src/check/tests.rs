//! The judgement on made-up hosts, and the whole of it in namespaces of the test's own.

mod host;
mod judged;
