//! What a cloud has to offer. One is implemented, [`crate::aws`]; the APIs of Alibaba and Tencent fit the same model.

use std::future::Future;
use std::net::Ipv4Addr;

use egressd::model::cloud::CloudPool;

use crate::model::call::{Answer, Call};
use crate::model::facts::{Facts, Limits};
use crate::model::report::Reason;

/// A cloud's API.
pub trait Provider {
    /// Reads what there is of a pool. It changes nothing.
    fn read(&mut self, pool: &CloudPool) -> impl Future<Output = Result<Facts, Error>>;

    /// Reads what the pool's NIC and the account may have, and which of these addresses other network interfaces have.
    fn limits(&mut self, pool: &CloudPool, facts: &Facts, addresses: &[Ipv4Addr]) -> impl Future<Output = Result<Limits, Error>>;

    /// Carries a call out. One that was refused for being too often is made again for a while.
    fn perform(&mut self, pool: &CloudPool, call: &Call) -> impl Future<Output = Result<Answer, Error>>;
}

/// Why a call was not answered as it should.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such network interface, or nobody can tell which one is meant.
    #[error("{0}")]
    Interface(String),
    /// The permission is missing.
    #[error("{action} was denied: the permission ec2:{action} is missing; `egressd-cloud policy` prints all that are needed. {message}")]
    Denied { action: &'static str, message: String },
    /// The API refused it, by its own code.
    #[error("{action} was refused ({code}): {message}")]
    Refused { action: &'static str, code: String, message: String },
    /// Nobody knows whether it was carried out.
    #[error("failed to get an answer to {action}: {message}")]
    Unanswered { action: &'static str, message: String },
    /// This process was told to stop.
    #[error("was told to stop")]
    Stopped,
    /// There are no credentials to call with.
    #[error("found no credentials: {0}")]
    Credentials(String),
}

impl Error {
    /// It may have been carried out.
    pub fn may_have_happened(&self) -> bool {
        match self {
            Self::Unanswered { .. } => true,
            // A fault of the server's side, in the midst of it.
            Self::Refused { code, .. } => {
                matches!(code.as_str(), "InternalError" | "InternalFailure" | "Unavailable" | "ServiceUnavailable")
            }
            _ => false,
        }
    }

    /// Whether one of the things that it named may be the only cause, and the others would be taken.
    pub fn may_be_about_one(&self) -> bool {
        matches!(self, Self::Refused { code, .. } if code.starts_with("Invalid") || code.ends_with("LimitExceeded"))
            && !self.may_have_happened()
    }

    /// What a condition says of it.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Denied { .. } => Reason::PermissionDenied,
            Self::Refused { code, .. } => match code.as_str() {
                "AddressLimitExceeded" | "PrivateIpAddressLimitExceeded" => Reason::LimitReached,
                "InvalidIPAddress.InUse" | "Resource.AlreadyAssociated" => Reason::AddressInUse,
                _ => Reason::CallFailed,
            },
            _ => Reason::CallFailed,
        }
    }
}
