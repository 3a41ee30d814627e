//! `gantry-runtime`: the OCI runtime and the monitor of each container.

fn main() {
    std::process::exit(gantry_runtime::commands::main(std::env::args_os().collect()));
}
