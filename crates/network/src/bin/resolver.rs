//! The resolver as an executable of its own, for the tests of this crate; the product starts it as `gantry resolver`.

use std::process::ExitCode;

fn main() -> ExitCode {
    gantry_network::resolver::main(std::env::args_os().skip(1))
}
