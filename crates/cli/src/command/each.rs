//! Commands with several operands: each is tried, each failure is told, and one failure makes the command fail.

use crate::error::{Error, Result};
use crate::table;

/// Runs `act` for each operand and prints what it returns.
pub async fn each(operands: &[String], act: impl AsyncFn(&str) -> Result<Option<String>>) -> Result<()> {
    let mut failed = 0;
    for operand in operands {
        match act(operand).await {
            Ok(Some(text)) => table::line(&text),
            Ok(None) => {}
            Err(error) => {
                failed += 1;
                eprintln!("{}", error.sentence());
                if let Some(hint) = error.hint().filter(|_| operands.len() == 1) {
                    eprintln!("hint: {hint}");
                }
            }
        }
    }
    if failed == 0 { Ok(()) } else { Err(Error::Several(failed)) }
}
