//! `checkpoint`: freezes a running container to files.

use std::path::PathBuf;

use lexopt::prelude::*;

use super::{Global, next, path, required, text};
use crate::{
    criu::{self, Settings, Streams},
    error::{Act, Error, Result},
    launch,
    oci::Status,
    plan,
};

/// Options that `checkpoint` and `restore` share; true when it was one of them.
pub fn shared(settings: &mut Settings, name: &str, parser: &mut lexopt::Parser) -> Result<bool> {
    match name {
        "image-path" => settings.images = crate::state::absolute(&path(parser)?)?,
        "work-path" => settings.work = Some(crate::state::absolute(&path(parser)?)?),
        "tcp-established" => settings.flags.push("--tcp-established"),
        "ext-unix-sk" => settings.flags.push("--ext-unix-sk"),
        "shell-job" => settings.flags.push("--shell-job"),
        "file-locks" => settings.flags.push("--file-locks"),
        "auto-dedup" => settings.flags.push("--auto-dedup"),
        "lazy-pages" => settings.flags.push("--lazy-pages"),
        "empty-ns" => settings.empty_namespaces.push(text(parser)?),
        "manage-cgroups-mode" => {
            let mode = text(parser)?;
            if !["soft", "full", "strict", "ignore"].contains(&mode.as_str()) {
                return Err(Error::Usage(format!("invalid manage-cgroups-mode {mode:?}")));
            }
            settings.manage_cgroups = Some(mode);
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// Settings before the options: images go to `checkpoint` in the working folder, as with runc.
pub fn settings(global: &Global) -> Result<Settings> {
    let images = crate::state::absolute(&PathBuf::from("checkpoint"))?;
    Ok(Settings { criu: global.criu.clone(), images, ..Settings::default() })
}

/// What becomes of the container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Afterwards {
    /// It ends and is deleted.
    Ends,
    /// It goes on.
    Runs,
}

/// Runs the command.
pub fn run(global: &Global, mut parser: lexopt::Parser) -> Result<i32> {
    let mut settings = settings(global)?;
    let (mut id, mut command, mut afterwards) = (None, "dump", Afterwards::Ends);
    while let Some(argument) = next(&mut parser)? {
        match argument {
            Value(value) if id.is_none() => id = Some(value.to_string_lossy().into_owned()),
            Long(name) => {
                let name = name.to_owned();
                match name.as_str() {
                    "leave-running" => {
                        afterwards = Afterwards::Runs;
                        settings.flags.push("--leave-running");
                    }
                    "pre-dump" => {
                        (command, afterwards) = ("pre-dump", Afterwards::Runs);
                        settings.flags.push("--track-mem");
                    }
                    "parent-path" => {
                        let parent = path(&mut parser)?;
                        settings.more.extend([
                            "--prev-images-dir".into(),
                            parent.into(),
                            "--track-mem".into(),
                        ]);
                    }
                    "status-fd" => settings.more.extend(["--status-fd".into(), text(&mut parser)?.into()]),
                    "page-server" => settings.more.extend(page_server(&text(&mut parser)?)?),
                    _ if shared(&mut settings, &name, &mut parser)? => {}
                    _ => return Err(Error::Usage(format!("invalid option '--{name}'"))),
                }
            }
            other => return Err(Error::Usage(other.unexpected().to_string())),
        }
    }
    let record = global.store.load(&required(id, "ID")?)?;
    let group = record.group()?;
    let status = record.status(&group);
    if !matches!(status, Status::Running | Status::Paused) {
        let status = format!("{status:?}").to_lowercase();
        return Err(Error::WrongState { act: "checkpoint", id: record.id, status });
    }
    let spec = global.store.config(&record)?;
    criu::check(&spec)?;
    for folder in [Some(&settings.images), settings.work.as_ref()].into_iter().flatten() {
        std::fs::create_dir_all(folder).act(|| format!("create {}", folder.display()))?;
    }
    Streams::of(record.pid).save(&settings.images)?;
    let root = plan::rootfs_path(&record.bundle, &spec)?;
    let freezer = criu::freezer(&group);
    let arguments = settings.dump(command, &spec, &root, record.pid, freezer.as_deref());
    // Memory alone is no matter of the terminal.
    if command == "dump" && spec.process.as_ref().is_some_and(|process| process.terminal) {
        settings.ask(&arguments, |_| Ok(()))?;
    } else {
        settings.run(&arguments)?;
    }
    if afterwards == Afterwards::Ends {
        // criu has killed its processes.
        launch::delete(&global.store, &record, &group)?;
    }
    Ok(0)
}

/// `ADDRESS:PORT` as criu's options.
fn page_server(text: &str) -> Result<Vec<std::ffi::OsString>> {
    match text.rsplit_once(':') {
        Some((address, port)) if !address.is_empty() && port.parse::<u16>().is_ok() => {
            Ok(["--page-server", "--address", address, "--port", port].map(Into::into).to_vec())
        }
        _ => Err(Error::Usage(format!("--page-server {text:?} is not ADDRESS:PORT"))),
    }
}
