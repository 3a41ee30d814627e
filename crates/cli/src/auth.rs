//! Registry credentials: docker's config.json and its credential helpers.

use crate::error::{Error, Result};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use gantry_model::reference::Reference;
use serde_json::{Map, Value, json};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What Docker Hub is called in config.json.
pub const DOCKER_HUB: &str = "https://index.docker.io/v1/";

/// The folder of config.json with what is in it.
#[derive(Debug, Clone)]
pub struct ConfigFile {
    path: PathBuf,
    content: Map<String, Value>,
}

/// Credentials of one registry.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    /// User.
    pub user: String,
    /// Password; empty with an identity token.
    pub password: String,
    /// Identity token.
    pub token: String,
}

impl ConfigFile {
    /// Reads `FOLDER/config.json`; a missing file is an empty one.
    pub fn read(folder: &Path) -> Result<ConfigFile> {
        let path = folder.join("config.json");
        let content = match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map_err(|e| Error::invalid(format!("{} is no JSON object: {e}", path.display())))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Map::new(),
            Err(source) => return Err(Error::Io { act: format!("read {}", path.display()), source }),
        };
        Ok(ConfigFile { path, content })
    }

    /// A text setting, such as `detachKeys` or `psFormat`.
    pub fn setting(&self, name: &str) -> Option<&str> {
        self.content.get(name).and_then(Value::as_str).filter(|text| !text.is_empty())
    }

    fn helper(&self, server: &str) -> Option<String> {
        let own = self.content.get("credHelpers").and_then(|h| h.get(server)).and_then(Value::as_str);
        own.or_else(|| self.setting("credsStore")).map(str::to_owned)
    }

    /// The credentials kept for a registry.
    pub fn credentials(&self, server: &str) -> Result<Option<Credentials>> {
        if let Some(helper) = self.helper(server) {
            return ask_helper(&helper, server);
        }
        let entry = self.content.get("auths").and_then(Value::as_object).and_then(|auths| {
            // Old files have URLs as keys: https://host/v1/.
            auths
                .iter()
                .find(|(key, _)| key.as_str() == server)
                .or_else(|| auths.iter().find(|(key, _)| bare_server(key) == bare_server(server)))
        });
        Ok(entry.and_then(|(_, entry)| decode_entry(entry)))
    }

    /// The value of `X-Registry-Auth` for an image's registry.
    pub fn header_for(&self, image: &str) -> Result<Option<String>> {
        let Ok(reference) = Reference::parse(image) else { return Ok(None) };
        let server = server_key(reference.domain());
        Ok(self.credentials(&server)?.map(|credentials| header(&credentials, &server)))
    }

    /// Keeps credentials: by the helper where one is configured, else in the file, readable by its owner only.
    pub fn store(&mut self, server: &str, credentials: &Credentials) -> Result<Kept> {
        if let Some(helper) = self.helper(server) {
            let secret =
                if credentials.token.is_empty() { &credentials.password } else { &credentials.token };
            let user = if credentials.token.is_empty() { credentials.user.as_str() } else { "<token>" };
            let input = json!({"ServerURL": server, "Username": user, "Secret": secret}).to_string();
            run_helper(&helper, "store", &input)?;
            return Ok(Kept::Helper);
        }
        let mut entry = Map::new();
        let pair = format!("{}:{}", credentials.user, credentials.password);
        entry.insert("auth".into(), Value::String(STANDARD.encode(pair)));
        if !credentials.token.is_empty() {
            entry.insert("identitytoken".into(), Value::String(credentials.token.clone()));
        }
        let auths = self.content.entry("auths").or_insert_with(|| Value::Object(Map::new()));
        if let Value::Object(auths) = auths {
            auths.insert(server.to_owned(), Value::Object(entry));
        }
        self.write()?;
        Ok(Kept::File(self.path.clone()))
    }

    /// Forgets credentials; true when there were some.
    pub fn forget(&mut self, server: &str) -> Result<bool> {
        if let Some(helper) = self.helper(server) {
            run_helper(&helper, "erase", server)?;
            return Ok(true);
        }
        let Some(Value::Object(auths)) = self.content.get_mut("auths") else { return Ok(false) };
        let keys: Vec<String> =
            auths.keys().filter(|key| bare_server(key) == bare_server(server)).cloned().collect();
        for key in &keys {
            auths.remove(key);
        }
        if !keys.is_empty() {
            self.write()?;
        }
        Ok(!keys.is_empty())
    }

    /// Replaces the file in one step, mode 0600: at no moment is it half written or readable by others.
    fn write(&self) -> Result<()> {
        let act = || format!("write {}", self.path.display());
        let folder = self.path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder).map_err(Error::io(act()))?;
        let temporary = folder.join(format!(".config.json.{}", std::process::id()));
        let text = serde_json::to_string_pretty(&self.content).unwrap_or_default();
        let result = (|| {
            let mut file = std::fs::OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&temporary)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            std::fs::rename(&temporary, &self.path)
        })();
        if result.is_err() {
            let _ = std::fs::remove_file(&temporary);
        }
        result.map_err(Error::io(act()))
    }
}

/// Where credentials were kept.
#[derive(Debug, PartialEq, Eq)]
pub enum Kept {
    /// With a credential helper.
    Helper,
    /// In this file, not encrypted.
    File(PathBuf),
}

/// The key of a registry in config.json.
pub fn server_key(domain: &str) -> String {
    match domain {
        "docker.io" | "index.docker.io" | "" => DOCKER_HUB.to_owned(),
        other => other.to_owned(),
    }
}

/// The value of `X-Registry-Auth`.
pub fn header(credentials: &Credentials, server: &str) -> String {
    URL_SAFE.encode(auth_config(credentials, server).to_string())
}

/// Credentials in the shape of the API's `AuthConfig`.
pub fn auth_config(credentials: &Credentials, server: &str) -> Value {
    let mut config = Map::new();
    let mut put = |key: &str, value: &str| {
        if !value.is_empty() {
            config.insert(key.to_owned(), Value::String(value.to_owned()));
        }
    };
    put("username", &credentials.user);
    put("password", &credentials.password);
    put("identitytoken", &credentials.token);
    put("serveraddress", server);
    Value::Object(config)
}

fn bare_server(key: &str) -> &str {
    let key = key.trim_start_matches("https://").trim_start_matches("http://");
    key.split('/').next().unwrap_or(key)
}

fn decode_entry(entry: &Value) -> Option<Credentials> {
    let text = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut credentials =
        Credentials { user: text("username"), password: text("password"), token: text("identitytoken") };
    if let Ok(decoded) = STANDARD.decode(text("auth"))
        && let Ok(pair) = String::from_utf8(decoded)
        && let Some((user, password)) = pair.split_once(':')
    {
        credentials.user = user.to_owned();
        credentials.password = password.trim_end_matches('\0').to_owned();
    }
    (credentials != Credentials::default()).then_some(credentials)
}

fn ask_helper(helper: &str, server: &str) -> Result<Option<Credentials>> {
    let output = match run_helper(helper, "get", server) {
        Ok(output) => output,
        Err(Error::Stream(text)) if text.contains("credentials not found") => return Ok(None),
        Err(error) => return Err(error),
    };
    let answer: Value = serde_json::from_slice(&output)
        .map_err(|source| Error::Answer { act: format!("ask docker-credential-{helper}"), source })?;
    let text = |name: &str| answer.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (user, secret) = (text("Username"), text("Secret"));
    Ok(Some(if user == "<token>" {
        Credentials { token: secret, ..Credentials::default() }
    } else {
        Credentials { user, password: secret, token: String::new() }
    }))
}

fn run_helper(helper: &str, verb: &str, input: &str) -> Result<Vec<u8>> {
    if helper.contains('/') {
        return Err(Error::invalid(format!(
            "credential helper {helper:?}: a name without slashes is expected"
        )));
    }
    let program = format!("docker-credential-{helper}");
    let run = || -> std::io::Result<std::process::Output> {
        let mut child = Command::new(&program)
            .arg(verb)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input.as_bytes())?;
        }
        child.wait_with_output()
    };
    let output = run().map_err(Error::io(format!("run {program} {verb}")))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        return Err(Error::Stream(format!("{program} {verb}: {text}")));
    }
    Ok(output.stdout)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn credentials_are_kept_for_their_owner_only_and_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = ConfigFile::read(folder.path()).unwrap();
        let given = Credentials { user: "u".into(), password: "p:w".into(), token: String::new() };
        file.store("localhost:5000", &given).unwrap();
        let mode = std::fs::metadata(folder.path().join("config.json")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let mut again = ConfigFile::read(folder.path()).unwrap();
        assert!(again.credentials("localhost:5000").unwrap() == Some(given));
        assert!(again.header_for("localhost:5000/app:1").unwrap().is_some());
        assert!(again.header_for("other/app").unwrap().is_none());
        assert!(again.forget("localhost:5000").unwrap());
        assert!(again.credentials("localhost:5000").unwrap().is_none());
    }

    #[test]
    fn docker_hub_is_found_under_its_old_names() {
        assert_eq!(server_key("docker.io"), DOCKER_HUB);
        assert_eq!(bare_server("https://index.docker.io/v1/"), "index.docker.io");
    }

    #[test]
    fn other_settings_survive() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("config.json"), r#"{"psFormat":"x","auths":null}"#).unwrap();
        let file = ConfigFile::read(folder.path()).unwrap();
        assert_eq!(file.setting("psFormat"), Some("x"));
        std::fs::write(folder.path().join("config.json"), "[").unwrap();
        assert!(ConfigFile::read(folder.path()).is_err());
    }
}
