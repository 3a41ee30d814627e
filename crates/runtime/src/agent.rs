//! The agent of a seccomp filter: whoever listens at `listenerPath` and decides the system calls that the filter asks
//! about. It gets the filter's listener with the state of the process (config-linux.md, ContainerProcessState).

use std::{
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
};

use serde::Serialize;

use crate::{
    channel,
    error::{Act, Error, Result},
    oci::{OCI_VERSION, Seccomp, SeccompAction, State},
    start_socket,
};

/// Where the agent is, and what it is told of the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    path: PathBuf,
    metadata: Option<String>,
}

/// An agent that has taken the connection.
#[derive(Debug)]
pub struct Agent {
    socket: OwnedFd,
    path: PathBuf,
    document: Vec<u8>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ContainerProcessState {
    oci_version: &'static str,
    fds: [&'static str; 1],
    pid: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<String>,
    state: State,
}

/// The call by which the first process hands the listener over, and so cannot wait for the agent's word.
const HANDING_OVER: &str = "sendmsg";

impl Site {
    /// That of a filter; none when it asks about no call.
    pub fn of(seccomp: Option<&Seccomp>) -> Result<Option<Site>> {
        let Some(seccomp) = seccomp else { return Ok(None) };
        let refuse = |field: &str, problem: &str| {
            Err(Error::Config { field: field.to_owned(), problem: problem.to_owned() })
        };
        if seccomp.default_action == SeccompAction::Notify {
            return refuse("linux.seccomp.defaultAction", "SCMP_ACT_NOTIFY cannot be the default");
        }
        let mut asked =
            seccomp.syscalls.iter().filter(|rule| rule.action == SeccompAction::Notify).peekable();
        if asked.peek().is_none() {
            return Ok(None);
        }
        if asked.any(|rule| rule.names.iter().any(|name| name == HANDING_OVER)) {
            return refuse(
                "linux.seccomp.syscalls",
                "SCMP_ACT_NOTIFY cannot be used for sendmsg, by which the listener itself is handed over",
            );
        }
        match seccomp.listener_path.clone().filter(|path| !path.as_os_str().is_empty()) {
            Some(path) => Ok(Some(Site { path, metadata: seccomp.listener_metadata.clone() })),
            None => refuse("linux.seccomp.listenerPath", "is missing, but a rule has SCMP_ACT_NOTIFY"),
        }
    }

    /// Connects to the agent, on behalf of a process of the container with this state.
    pub fn connect(&self, pid: i32, state: State) -> Result<Agent> {
        let words = || format!("connect to the seccomp agent at {}", self.path.display());
        let socket = start_socket::connect_path(&self.path).act(words)?;
        let metadata = self.metadata.clone();
        let fds = ["seccompFd"];
        let document = ContainerProcessState { oci_version: OCI_VERSION, fds, pid, metadata, state };
        let document = serde_json::to_vec(&document).map_err(std::io::Error::from).act(words)?;
        Ok(Agent { socket, path: self.path.clone(), document })
    }
}

impl Agent {
    /// Hands the listener over.
    pub fn give(&self, listener: &OwnedFd) -> Result<()> {
        channel::send(self.socket.as_fd(), &self.document, Some(listener.as_fd()))
            .act(|| format!("hand the seccomp listener to the agent at {}", self.path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(text: &str) -> Result<Option<Site>> {
        Site::of(Some(&serde_json::from_str(text).unwrap()))
    }

    #[test]
    fn only_a_filter_that_asks_has_an_agent_and_then_needs_one() {
        let rule = |name: &str| format!(r#"[{{"names":["{name}"],"action":"SCMP_ACT_NOTIFY"}}]"#);
        let allow = r#""defaultAction":"SCMP_ACT_ALLOW""#;
        assert_eq!(site(&format!(r#"{{{allow},"listenerPath":"/x"}}"#)).unwrap(), None);
        let asks = format!(r#"{{{allow},"listenerPath":"/x","syscalls":{}}}"#, rule("mkdir"));
        assert_eq!(site(&asks).unwrap().unwrap().path, std::path::Path::new("/x"));
        for bad in [
            format!(r#"{{{allow},"syscalls":{}}}"#, rule("mkdir")),
            format!(r#"{{{allow},"listenerPath":"/x","syscalls":{}}}"#, rule("sendmsg")),
            r#"{"defaultAction":"SCMP_ACT_NOTIFY","listenerPath":"/x"}"#.to_owned(),
        ] {
            assert!(site(&bad).is_err(), "{bad}");
        }
    }
}
