//! Cgroups made by systemd: a container is a transient scope that systemd makes over D-Bus and delegates to the runtime.
//!
//! systemd owns the tree where it runs; what it does not know of it may move or remove. So with `--systemd-cgroup` the
//! scope, its slice and its properties are systemd's, and the runtime writes the rest into the delegated folder.

mod properties;

use std::path::PathBuf;

use gantry_linux::dbus::{Connection, DbusError, Message, Value};
use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, Result},
    oci::{Resources, Spec},
};

const NAME: &str = "org.freedesktop.systemd1";
const PATH: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";

/// Where systemd answers root itself, without a bus.
const PRIVATE_SOCKET: &str = "unix:path=/run/systemd/private";
const SYSTEM_BUS: &str = "unix:path=/run/dbus/system_bus_socket";

/// The scope of one container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scope {
    /// Name of the unit.
    pub unit: String,
    /// The slice that it is in.
    pub slice: String,
}

impl Scope {
    /// From `slice:prefix:name` of `linux.cgroupsPath`; the container's id names it when there is none.
    pub fn of(id: &str, spec: &Spec) -> Result<Scope> {
        let path = spec.linux.as_ref().and_then(|linux| linux.cgroups_path.clone()).unwrap_or_default();
        let own = format!(":gantry:{id}");
        let path = if path.is_empty() { own.as_str() } else { path.as_str() };
        let [slice, prefix, name] = path.split(':').collect::<Vec<_>>()[..] else {
            return Err(refuse(format!(
                "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got {path:?} instead"
            )));
        };
        let slice = if slice.is_empty() { "system.slice" } else { slice };
        let plain = |text: &str| !text.is_empty() && !text.contains(['/', '\0']) && text.len() <= 200;
        if !plain(name) || prefix.contains('/') || !plain(slice) || !slice.ends_with(".slice") {
            return Err(refuse(format!("{path:?} names no unit and slice of systemd")));
        }
        let unit = if prefix.is_empty() { format!("{name}.scope") } else { format!("{prefix}-{name}.scope") };
        Ok(Scope { unit, slice: slice.to_owned() })
    }

    /// Makes the scope with a process in it, and waits until it is there.
    pub fn start(&self, id: &str, pid: i32, resources: Option<&Resources>) -> Result<()> {
        let mut systemd = Systemd::connect()?;
        let mut list = properties::of_new(id, &self.slice, pid);
        list.extend(properties::of_resources(resources));
        let start = manager("StartTransientUnit").with(vec![
            Value::str(&self.unit),
            Value::str("replace"),
            properties::array(list),
            Value::Array("(sa(sv))".into(), Vec::new()),
        ]);
        match systemd.job(&start) {
            // One that failed before and was not forgotten.
            Err(Error::Systemd { source: DbusError::Remote { name, .. }, .. })
                if name == "org.freedesktop.systemd1.UnitExists" =>
            {
                systemd.reset(&self.unit);
                systemd.job(&start)
            }
            other => other,
        }
    }

    /// Puts a further process into it, for a caller whom the kernel does not let.
    pub fn attach(&self, pid: i32) -> Result<()> {
        let pids = Value::Array("u".into(), vec![Value::U32(pid.cast_unsigned())]);
        let attach =
            manager("AttachProcessesToUnit").with(vec![Value::str(&self.unit), Value::str(""), pids]);
        Systemd::connect()?.call(&attach).map(drop)
    }

    /// Changes its limits.
    pub fn update(&self, resources: &Resources) -> Result<()> {
        let list = properties::of_resources(Some(resources));
        if list.is_empty() {
            return Ok(());
        }
        let set = manager("SetUnitProperties").with(vec![
            Value::str(&self.unit),
            Value::Bool(true),
            properties::array(list),
        ]);
        Systemd::connect()?.call(&set).map(drop)
    }

    /// Stops it; one that is gone already is fine.
    pub fn stop(&self) -> Result<()> {
        let mut systemd = Systemd::connect()?;
        let stop = manager("StopUnit").with(vec![Value::str(&self.unit), Value::str("replace")]);
        let stopped = match systemd.job(&stop) {
            Err(Error::Systemd { source: DbusError::Remote { name, .. }, .. })
                if name == "org.freedesktop.systemd1.NoSuchUnit" =>
            {
                Ok(())
            }
            other => other,
        };
        systemd.reset(&self.unit);
        stopped
    }
}

/// The group of the manager itself, below which its slices are: the root of the tree for that of the system.
pub fn base() -> Result<String> {
    if rustix::process::geteuid().is_root() {
        return Ok(String::new());
    }
    let get = Message::call(NAME, PATH, "org.freedesktop.DBus.Properties", "Get")
        .with(vec![Value::str(MANAGER), Value::str("ControlGroup")]);
    let answer = Systemd::connect()?.call(&get)?;
    let group = match answer.into_iter().next() {
        Some(Value::Variant(value)) => value.as_str().map(str::to_owned),
        _ => None,
    };
    Ok(group.unwrap_or_default().trim_end_matches('/').to_owned())
}

fn refuse(problem: String) -> Error {
    Error::Config { field: "linux.cgroupsPath".into(), problem }
}

fn manager(member: &str) -> Message {
    Message::call(NAME, PATH, MANAGER, member)
}

/// A conversation with systemd.
struct Systemd {
    connection: Connection,
}

impl Systemd {
    fn connect() -> Result<Systemd> {
        let fail = |source| Error::Systemd { act: "reach systemd (--systemd-cgroup)".into(), source };
        let root = rustix::process::geteuid().is_root();
        let bus = Connection::open(&bus_address(root)).and_then(|mut connection| {
            connection.hello()?;
            Ok(connection)
        });
        let mut connection = match bus {
            Err(error) if root => Connection::open(PRIVATE_SOCKET).map_err(|_| fail(error))?,
            other => other.map_err(fail)?,
        };
        let rule = format!("type='signal',interface='{MANAGER}',member='JobRemoved'");
        // A private connection has no bus that could filter, and gets every signal.
        let _ = connection.call(&Message::bus_call("AddMatch").with(vec![Value::str(rule)]));
        connection.call(&manager("Subscribe")).map_err(fail)?;
        Ok(Systemd { connection })
    }

    fn call(&mut self, call: &Message) -> Result<Vec<Value>> {
        let unit = call.body.first().and_then(Value::as_str).unwrap_or_default();
        let act = format!("ask systemd for {} of {unit}", call.member);
        self.connection.call(call).map_err(|source| Error::Systemd { act, source })
    }

    /// A call that queues a job, and the end of this job.
    fn job(&mut self, call: &Message) -> Result<()> {
        let answer = self.call(call)?;
        let job = answer.first().and_then(Value::as_str).unwrap_or_default().to_owned();
        let unit = call.body.first().and_then(Value::as_str).unwrap_or_default();
        let act = || format!("wait for systemd's {} of {unit}", call.member);
        loop {
            let signal =
                self.connection.next_message().map_err(|source| Error::Systemd { act: act(), source })?;
            if signal.member != "JobRemoved" || signal.body.get(1).and_then(Value::as_str) != Some(&job) {
                continue;
            }
            return match signal.body.get(3).and_then(Value::as_str) {
                Some("done" | "skipped") => Ok(()),
                result => {
                    Err(Error::SystemdJob { act: act(), result: result.unwrap_or("unknown").to_owned() })
                }
            };
        }
    }

    /// Makes systemd forget a failure; a unit without one is fine.
    fn reset(&mut self, unit: &str) {
        let _ = self.connection.call(&manager("ResetFailedUnit").with(vec![Value::str(unit)]));
    }
}

/// Root talks to the system's manager, others to their own.
fn bus_address(root: bool) -> String {
    let variable = if root { "DBUS_SYSTEM_BUS_ADDRESS" } else { "DBUS_SESSION_BUS_ADDRESS" };
    if let Ok(address) = std::env::var(variable)
        && !address.is_empty()
    {
        return address;
    }
    match std::env::var_os("XDG_RUNTIME_DIR").filter(|_| !root) {
        Some(folder) => format!("unix:path={}", PathBuf::from(folder).join("bus").display()),
        None => SYSTEM_BUS.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Linux;

    fn scope(path: &str) -> Result<Scope> {
        let linux = Linux { cgroups_path: Some(path.to_owned()), ..Linux::default() };
        Scope::of("c1", &Spec { linux: Some(linux), ..Spec::default() })
    }

    #[test]
    fn a_path_names_slice_and_scope_as_with_runc() {
        let named = |path: &str| scope(path).map(|scope| (scope.slice, scope.unit)).unwrap();
        assert_eq!(named("kube.slice:cri:c1"), ("kube.slice".into(), "cri-c1.scope".into()));
        assert_eq!(named(":docker:c1"), ("system.slice".into(), "docker-c1.scope".into()));
        assert_eq!(named(""), ("system.slice".into(), "gantry-c1.scope".into()));
        for bad in ["/docker/c1", "a:b", "x.slice::", "x:y:z", "x.slice:../a:b", "x.slice:a:b/c"] {
            assert!(scope(bad).is_err(), "{bad}");
        }
    }
}
