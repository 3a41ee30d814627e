//! `gantry`: chooses between the command line, the node daemon, and the resolver that the daemon starts.

use std::ffi::OsString;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    match args.get(1).and_then(|word| word.to_str()) {
        Some("daemon") => match texts(&args[2..]) {
            Ok(args) => gantry_daemon::main(&args),
            Err(code) => code,
        },
        Some("resolver") => gantry_daemon::resolver(args.into_iter().skip(2)),
        _ => gantry_cli::main(args),
    }
}

/// Arguments as text: the daemon writes its paths into JSON, so it takes no others.
fn texts(args: &[OsString]) -> Result<Vec<String>, ExitCode> {
    args.iter().map(|arg| arg.to_str().map(str::to_owned)).collect::<Option<_>>().ok_or_else(|| {
        eprintln!("gantry daemon: arguments must be UTF-8");
        ExitCode::from(2)
    })
}
