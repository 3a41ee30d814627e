//! `--env`, `--env-file`, `--label-file`.

use crate::error::{Error, Result};
use std::path::Path;

/// Environment from files and flags; a name without `=` takes its value from the command's own environment, or nothing.
pub fn environment(flags: &[String], files: &[std::path::PathBuf]) -> Result<Vec<String>> {
    let mut all = Vec::new();
    for file in files {
        all.extend(lines(file)?);
    }
    all.extend_from_slice(flags);
    let mut out = Vec::new();
    for entry in all {
        if entry.starts_with('=') || entry.is_empty() {
            return Err(Error::invalid(format!("invalid environment variable: {entry}")));
        }
        if entry.contains('=') {
            out.push(entry);
        } else if let Ok(value) = std::env::var(&entry) {
            out.push(format!("{entry}={value}"));
        }
    }
    Ok(out)
}

/// Lines of a file that are neither empty nor comments.
pub fn lines(path: &Path) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(path).map_err(Error::io(format!("read {}", path.display())))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let mut out = Vec::new();
    for line in text.lines().map(str::trim_start) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let name = line.split('=').next().unwrap_or_default();
        if name.is_empty() || name.contains(char::is_whitespace) {
            return Err(Error::invalid(format!(
                "poorly formatted environment: variable '{name}' in {}",
                path.display()
            )));
        }
        out.push(line.to_owned());
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_come_first_and_comments_do_not_count() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "# note\n\nA=1\n  B=x y\n").unwrap();
        let all =
            environment(&["C=3".into(), "NO_SUCH_VARIABLE_HERE".into()], &[file.path().into()]).unwrap();
        assert_eq!(all, ["A=1", "B=x y", "C=3"]);
        std::fs::write(file.path(), "A B=1\n").unwrap();
        assert!(lines(file.path()).is_err());
        assert!(environment(&["=x".into()], &[]).is_err());
    }
}
