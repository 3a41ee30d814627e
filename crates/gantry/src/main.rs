//! `gantry`: chooses between the command line, the node daemon, the registry, and the resolver that the daemon starts.

use std::ffi::OsString;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    match args.get(1).and_then(|word| word.to_str()) {
        Some("daemon") => match texts("daemon", &args[2..]) {
            Ok(args) => gantry_daemon::main(&args),
            Err(code) => code,
        },
        Some("registry") => match texts("registry", &args[2..]) {
            Ok(args) => gantry_daemon::registry::main(&args),
            Err(code) => code,
        },
        Some("resolver") => gantry_daemon::resolver(args.into_iter().skip(2)),
        _ => gantry_cli::main(args),
    }
}

/// Arguments as text: the daemon writes its paths into JSON, so it takes no others.
fn texts(command: &str, args: &[OsString]) -> Result<Vec<String>, ExitCode> {
    args.iter().map(|arg| arg.to_str().map(str::to_owned)).collect::<Option<_>>().ok_or_else(|| {
        eprintln!("gantry {command}: arguments must be UTF-8");
        ExitCode::from(2)
    })
}
