//! Refusals on the wire: our error travels whole in the details of a gRPC status, with the leader to ask instead.

use crate::config::RemoteManager;
use crate::error::{Error, ErrorKind};
use crate::identity::Subject;
use crate::rpc::listen::Caller;
use gantry_model::node::NodeRole;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tonic::{Code, Request, Status};

/// What the library says whenever the transport failed.
const TRANSPORT: &str = "transport error";

/// A refusal as it travels.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Wire {
    error: Error,
    leader: Option<RemoteManager>,
}

/// Our error as a status.
pub fn status(error: Error) -> Status {
    refusal(error, None)
}

/// "Not here": the caller should ask the leader, if we know one.
pub fn redirect(leader: Option<RemoteManager>) -> Status {
    refusal(Error::no_leader(), leader)
}

fn refusal(error: Error, leader: Option<RemoteManager>) -> Status {
    let code = match error.kind {
        ErrorKind::NotFound => Code::NotFound,
        ErrorKind::InvalidArgument => Code::InvalidArgument,
        ErrorKind::AlreadyExists => Code::AlreadyExists,
        ErrorKind::FailedPrecondition | ErrorKind::AlreadyInSwarm | ErrorKind::NotInSwarm => {
            Code::FailedPrecondition
        }
        ErrorKind::OutOfSequence => Code::Aborted,
        ErrorKind::Unavailable | ErrorKind::NotManager => Code::Unavailable,
        ErrorKind::PermissionDenied => Code::PermissionDenied,
        ErrorKind::Unsupported => Code::Unimplemented,
        ErrorKind::Internal => Code::Internal,
    };
    let message = error.message.clone();
    let details = serde_json::to_vec(&Wire { error, leader }).unwrap_or_default();
    Status::with_details(code, message, details.into())
}

/// The error that a status carries, and the leader that it names. A status of the transport becomes `Unavailable`.
pub fn error_of(status: &Status) -> (Error, Option<RemoteManager>) {
    if let Ok(wire) = serde_json::from_slice::<Wire>(status.details()) {
        return (wire.error, wire.leader);
    }
    let error = match status.code() {
        Code::PermissionDenied | Code::Unauthenticated => Error::denied(status.message()),
        Code::InvalidArgument | Code::OutOfRange => Error::invalid(status.message()),
        Code::Unimplemented => Error::unsupported(status.message()),
        _ => Error::unavailable(cause_of(status)),
    };
    (error, None)
}

/// Why a call came to nothing, in words: the library prints a status with the names of its own types around the cause.
pub fn cause_of(status: &Status) -> String {
    let mut causes: Vec<String> = Vec::new();
    let mut next = std::error::Error::source(status);
    while let Some(cause) = next {
        let text = cause.to_string();
        // Each layer may repeat what is below it; the outermost only says that it was the transport.
        if text != TRANSPORT && !causes.iter().any(|known| known.contains(&text)) {
            causes.push(text);
        }
        next = cause.source();
    }
    match (causes.is_empty(), status.message()) {
        (false, _) => causes.join(": "),
        (true, "") => status.code().to_string(),
        (true, message) => message.to_owned(),
    }
}

/// Whether nobody answered, as against a refusal by the other node.
pub fn is_transport(status: &Status) -> bool {
    status.details().is_empty()
        && matches!(
            status.code(),
            Code::Unavailable | Code::Unknown | Code::Cancelled | Code::DeadlineExceeded | Code::Internal
        )
}

/// Whether the call was not even sent: the connection for it could not be made, in time or at all.
pub fn never_connected(status: &Status) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = std::error::Error::source(status);
    while let Some(inner) = cause {
        if inner.is::<tonic::ConnectError>() {
            return true;
        }
        cause = inner.source();
    }
    false
}

/// The caller's certificate; a refusal if it has none.
pub fn subject<T>(request: &Request<T>) -> Result<Subject, Status> {
    let caller = request.extensions().get::<Caller>();
    caller
        .and_then(|caller| caller.subject.clone())
        .ok_or_else(|| status(Error::denied("Permission denied: this call needs a certificate of the swarm")))
}

/// The caller's certificate, which must be a manager's.
pub fn manager<T>(request: &Request<T>) -> Result<Subject, Status> {
    let subject = subject(request)?;
    if subject.role == NodeRole::Manager {
        Ok(subject)
    } else {
        Err(status(Error::denied(format!("Permission denied: node {} is not a manager", subject.node_id))))
    }
}

/// JSON from another node.
pub fn parse<T: DeserializeOwned>(bytes: &[u8], what: &str) -> Result<T, Status> {
    serde_json::from_slice(bytes).map_err(|e| status(Error::invalid(format!("read {what}: {e}"))))
}

/// JSON for another node.
pub fn json<T: Serialize>(value: &T, what: &str) -> Result<Vec<u8>, Status> {
    serde_json::to_vec(value).map_err(|e| status(Error::internal(format!("write {what}: {e}"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_call_says_why_without_the_names_of_types() {
        let refused =
            std::io::Error::new(std::io::ErrorKind::ConnectionRefused, "connect to 10.0.0.1:2377: refused");
        let mut status = Status::unknown(TRANSPORT);
        status.set_source(std::sync::Arc::new(refused));
        assert_eq!(error_of(&status).0.message, "connect to 10.0.0.1:2377: refused");
        assert_eq!(error_of(&Status::deadline_exceeded("too late")).0.message, "too late");
    }
}
