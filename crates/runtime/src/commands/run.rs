//! `run`: create, start, stay until the end, delete.

use std::os::fd::{AsFd, OwnedFd};

use gantry_linux::process::SignalFd;

use super::{
    Global,
    create::{self, Command, Options},
};
use crate::{
    error::Result,
    foreground,
    launch::{self, Created},
    notify::Notify,
    oci::Spec,
    plan::{Choices, Gate},
    state::Owner,
};

/// Runs the command.
pub fn run(global: &Global, parser: lexopt::Parser) -> Result<i32> {
    let options = Options::parse(Command::Run, parser)?;
    global.store.reserve(&options.id)?;
    let (spec, choices, signals) = match prepare(global, &options) {
        Ok(prepared) => prepared,
        Err(error) => {
            // The failure that is being told matters more than one of the clean-up.
            let _ = global.store.remove(&options.id);
            return Err(error);
        }
    };
    let request = launch::Request {
        store: &global.store,
        id: &options.id,
        bundle: &options.bundle,
        spec: spec.clone(),
        owner: Owner::Caller,
        choices,
    };
    let mut created = launch::create(request)?;
    let (terminal, notify) = match start(global, &options, &spec, &mut created) {
        Ok(started) => started,
        Err(error) => {
            // As above.
            let _ = created.undo(&global.store);
            return Err(error);
        }
    };
    let Some(signals) = signals else {
        if let Some(notify) = notify {
            notify.await_ready(created.child.pid, created.child.pidfd.as_fd())?;
        }
        return Ok(0);
    };
    let ended = foreground::stay(&created.child, &signals, terminal, notify);
    if !options.keep {
        launch::delete(&global.store, &created.record, &created.group)?;
    }
    Ok(ended?.exit_code())
}

fn prepare(global: &Global, options: &Options) -> Result<(Spec, Choices, Option<SignalFd>)> {
    let spec = create::configuration(global, options)?;
    let choices = options.choices(global, &spec, Gate::Channel)?;
    let signals = if options.detach { None } else { Some(foreground::take_signals()?) };
    Ok((spec, choices, signals))
}

fn start(
    global: &Global,
    options: &Options,
    spec: &Spec,
    created: &mut Created,
) -> Result<(Option<OwnedFd>, Option<Notify>)> {
    let terminal = options.publish(&created.child, created.terminal.take())?;
    let notify = Notify::listen(&global.store.folder(&options.id))?;
    created.start(&global.store, spec)?;
    Ok((terminal, notify))
}
