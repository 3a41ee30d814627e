//! `run`: create, start, stay until the end, delete.

use super::{Global, create::Options};
use crate::{error::Result, foreground, launch, oci::Spec, plan::Gate, state::Owner};

/// Runs the command.
pub fn run(global: &Global, parser: lexopt::Parser) -> Result<i32> {
    let options = Options::parse(parser)?;
    let spec = Spec::load(&options.bundle)?;
    let choices = options.choices(&spec, Gate::Channel)?;
    global.store.reserve(&options.id)?;
    let signals = if options.detach { None } else { Some(foreground::take_signals()?) };
    let request = launch::Request {
        store: &global.store,
        id: &options.id,
        bundle: &options.bundle,
        spec: spec.clone(),
        owner: Owner::Caller,
        choices,
    };
    let mut created = launch::create(request)?;
    let published = options.publish(created.child.pid, created.terminal.take());
    let started = published.and_then(|terminal| created.start(&global.store, &spec).map(|()| terminal));
    let terminal = match started {
        Ok(terminal) => terminal,
        Err(error) => {
            // The failure that is being told matters more than one of the clean-up.
            let _ = created.undo(&global.store);
            return Err(error);
        }
    };
    let Some(signals) = signals else { return Ok(0) };
    let ended = foreground::stay(&created.child, &signals, terminal);
    if !options.keep {
        launch::delete(&global.store, &created.record, &created.group)?;
    }
    Ok(ended?.exit_code())
}
