//! `gantry completion`: a shell's completion script.

use crate::app::App;
use crate::error::Result;
use clap::{Args, CommandFactory};
use clap_complete::Shell;

/// Arguments.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Shell
    shell: Shell,
}

/// Prints the script.
pub fn run(arguments: &Arguments) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut App::command(), "gantry", &mut script);
    crate::table::out(&String::from_utf8_lossy(&script));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_common_shells_have_scripts() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut App::command(), "gantry", &mut script);
            let script = String::from_utf8(script).unwrap();
            assert!(script.contains("service") && script.contains("doctor"), "{shell}");
        }
    }
}
