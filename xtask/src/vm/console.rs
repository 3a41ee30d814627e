//! The guest's serial console: shown as it comes, and read for the verdict.

use crate::Outcome;
use std::io::{BufRead, BufReader};
use std::process::Child;
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// What the guest's last word begins with; the number of failed programs follows.
const VERDICT: &str = "gantry-vm: failed programs: ";

/// How many lines an error shows.
const TAIL: usize = 40;

/// Shows what the machine says until it ends; it must have said that nothing failed, within the limit.
pub fn watch(mut machine: Child, limit: Duration) -> Outcome {
    let console = machine.stdout.take().ok_or("qemu has no standard output")?;
    let (sender, lines) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        // Escape sequences of the firmware are no UTF-8 to rely on.
        for line in BufReader::new(console).split(b'\n').map_while(Result::ok) {
            if sender.send(String::from_utf8_lossy(&line).trim_end().to_owned()).is_err() {
                break;
            }
        }
    });
    let heard = listen(&lines, Instant::now() + limit);
    // It has ended by itself, or has to now.
    let _ = machine.kill();
    let _ = machine.wait();
    drop(lines);
    let _ = reader.join();
    heard
}

fn listen(lines: &mpsc::Receiver<String>, deadline: Instant) -> Outcome {
    let mut all: Vec<String> = Vec::new();
    let tail = |all: &[String]| all[all.len().saturating_sub(TAIL)..].join("\n");
    loop {
        match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                println!("{line}");
                all.push(line);
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {
                return Err(format!("the virtual machine did not end in time; its console:\n{}", tail(&all)));
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => return verdict(&all, &tail(&all)),
        }
    }
}

fn verdict(all: &[String], tail: &str) -> Outcome {
    match all.iter().find_map(|line| line.strip_prefix(VERDICT)) {
        Some("0") => Ok(()),
        Some(count) => Err(format!("{count} test programs failed in the virtual machine")),
        None => Err(format!("the virtual machine ended without a verdict; its console:\n{tail}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_spoken_zero_is_success() {
        let said =
            |lines: &[&str]| verdict(&lines.iter().map(|l| (*l).to_owned()).collect::<Vec<_>>(), "tail");
        assert!(said(&["test a ... ok", "gantry-vm: failed programs: 0"]).is_ok());
        assert!(said(&["gantry-vm: failed programs: 2"]).is_err());
        assert!(said(&["Kernel panic"]).is_err_and(|why| why.contains("tail")));
    }

    #[test]
    fn a_machine_that_hangs_is_ended() {
        let machine =
            std::process::Command::new("sleep").arg("600").stdout(std::process::Stdio::piped()).spawn();
        let machine = machine.unwrap_or_else(|e| panic!("start sleep: {e}"));
        let outcome = watch(machine, Duration::from_millis(50));
        assert!(outcome.is_err_and(|why| why.contains("in time")));
    }
}
