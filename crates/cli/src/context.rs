//! What every command needs: the daemon, and the user's configuration.

use crate::auth::ConfigFile;
use crate::client::Client;
use crate::error::Result;
use std::path::PathBuf;
use std::sync::Arc;

/// Handed to each command.
pub struct Context {
    /// The daemon.
    pub client: Arc<Client>,
    /// Folder of config.json.
    pub config_folder: PathBuf,
}

impl Context {
    /// The user's config.json, read now.
    pub fn config(&self) -> Result<ConfigFile> {
        ConfigFile::read(&self.config_folder)
    }

    /// The `--format` that is given, or else configured under `setting`.
    pub fn format(&self, given: Option<&str>, setting: &str) -> Result<Option<String>> {
        match given {
            Some(format) => Ok(Some(format.to_owned())),
            None => Ok(self.config()?.setting(setting).map(str::to_owned)),
        }
    }

    /// The detach keys: given, configured, or Docker's.
    pub fn detach_keys(&self, given: Option<&str>) -> Result<Vec<u8>> {
        let config = self.config()?;
        crate::terminal::detach_keys(given.or(config.setting("detachKeys")).unwrap_or("ctrl-p,ctrl-q"))
    }
}
