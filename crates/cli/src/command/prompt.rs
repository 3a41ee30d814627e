//! Questions to the user.

use crate::error::{Error, Result};
use rustix::termios::{LocalModes, OptionalActions};
use std::io::{BufRead, IsTerminal, Write, stdin};

/// Asks a yes-or-no question; only `y` and `yes` are yes.
pub fn confirmed(question: &str) -> Result<bool> {
    print!("{question} [y/N] ");
    std::io::stdout().flush().map_err(Error::io("write to the terminal"))?;
    let mut answer = String::new();
    stdin().lock().read_line(&mut answer).map_err(Error::io("read the answer"))?;
    let yes = matches!(answer.trim().to_lowercase().as_str(), "y" | "yes");
    if !yes {
        println!("Total reclaimed space: 0B");
    }
    Ok(yes)
}

/// Asks for a line.
pub fn line(question: &str) -> Result<String> {
    print!("{question}");
    std::io::stdout().flush().map_err(Error::io("write to the terminal"))?;
    let mut answer = String::new();
    stdin().lock().read_line(&mut answer).map_err(Error::io("read the answer"))?;
    Ok(answer.trim_end_matches(['\r', '\n']).to_owned())
}

/// Asks for a line that is not shown while it is typed.
pub fn secret(question: &str) -> Result<String> {
    if !stdin().is_terminal() {
        return line(question);
    }
    let fail = |e: rustix::io::Errno| Error::io("hide what is typed")(e.into());
    let saved = rustix::termios::tcgetattr(stdin()).map_err(fail)?;
    let mut hidden = saved.clone();
    hidden.local_modes.remove(LocalModes::ECHO);
    rustix::termios::tcsetattr(stdin(), OptionalActions::Flush, &hidden).map_err(fail)?;
    let answer = line(question);
    rustix::termios::tcsetattr(stdin(), OptionalActions::Now, &saved).map_err(fail)?;
    println!();
    answer
}
