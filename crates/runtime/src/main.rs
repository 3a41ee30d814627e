//! `gantry-runtime`: the OCI runtime and the monitor of each container.

gantry_linux::read_only_entry!(b"create\0run\0exec\0monitor\0\0");

fn main() {
    std::process::exit(gantry_runtime::commands::main(std::env::args_os().collect()));
}
