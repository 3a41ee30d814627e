//! The daemon alone, for this crate's tests: `daemon [resolver] ARGS…`.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1).peekable();
    if args.next_if(|word| word == "resolver").is_some() {
        return gantry_daemon::resolver(args);
    }
    let args: Vec<String> = args.filter_map(|arg| arg.into_string().ok()).collect();
    gantry_daemon::main(&args)
}
