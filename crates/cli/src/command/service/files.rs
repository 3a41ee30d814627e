//! `--secret` and `--config` of services: names are looked up, because the API wants ids.

use crate::client::{Call, Query};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::json::At;
use crate::syntax::fields;
use gantry_model::service::{ConfigReference, FileTarget, SecretReference};

/// `name`, or `source=name,target=file,uid=1,gid=1,mode=0400`. A secret's target is below /run/secrets.
fn parse(text: &str, config: bool) -> Result<(String, FileTarget)> {
    let mut target = FileTarget { uid: "0".into(), gid: "0".into(), mode: 0o444, ..FileTarget::default() };
    let mut source = String::new();
    let all = fields(text)?;
    if let [name] = all.as_slice()
        && !name.contains('=')
    {
        source.clone_from(name);
    } else {
        for field in all {
            let (key, value) = field
                .split_once('=')
                .ok_or_else(|| Error::invalid(format!("invalid field '{field}' must be a key=value pair")))?;
            match key.to_lowercase().as_str() {
                "source" | "src" => source = value.to_owned(),
                "target" => target.name = value.to_owned(),
                "uid" => target.uid = value.to_owned(),
                "gid" => target.gid = value.to_owned(),
                "mode" => {
                    target.mode = u32::from_str_radix(value, 8)
                        .map_err(|_| Error::invalid(format!("invalid mode specified: {value}")))?;
                }
                _ => return Err(Error::invalid(format!("invalid field in {text:?}: {key}"))),
            }
        }
    }
    if source.is_empty() {
        return Err(Error::invalid(format!("source is required in {text:?}")));
    }
    if target.name.is_empty() {
        target.name = if config { format!("/{source}") } else { source.clone() };
    }
    Ok((source, target))
}

async fn id_of(path: &str, kind: &str, name: &str, context: &Context) -> Result<(String, String)> {
    let query = Query::new().filters(&[format!("name={name}")])?;
    let by_name = context.client.json(Call::get(path).query(query)).await?;
    if let Some(found) = by_name.list("").iter().find(|item| item.text("Spec.Name") == name) {
        return Ok((found.text("ID").to_owned(), name.to_owned()));
    }
    let all = context.client.get(path).await?;
    let found = all.list("").iter().find(|item| item.text("ID") == name);
    let found = found.ok_or_else(|| Error::invalid(format!("{kind} not found: {name}")))?;
    Ok((found.text("ID").to_owned(), found.text("Spec.Name").to_owned()))
}

/// Secrets with their ids.
pub async fn secrets(texts: &[String], context: &Context) -> Result<Vec<SecretReference>> {
    let mut out = Vec::new();
    for text in texts {
        let (name, file) = parse(text, false)?;
        let (secret_id, secret_name) = id_of("/secrets", "secret", &name, context).await?;
        out.push(SecretReference { file: Some(file), secret_id, secret_name });
    }
    Ok(out)
}

/// Configs with their ids.
pub async fn configs(texts: &[String], context: &Context) -> Result<Vec<ConfigReference>> {
    let mut out = Vec::new();
    for text in texts {
        let (name, file) = parse(text, true)?;
        let (config_id, config_name) = id_of("/configs", "config", &name, context).await?;
        out.push(ConfigReference { file: Some(file), runtime: None, config_id, config_name });
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read() {
        assert_eq!(parse("key", false).unwrap().1.name, "key");
        assert_eq!(parse("site.conf", true).unwrap().1.name, "/site.conf");
        let (source, file) = parse("source=a,target=b,mode=0400,uid=5", false).unwrap();
        assert_eq!(
            (source.as_str(), file.name.as_str(), file.mode, file.uid.as_str()),
            ("a", "b", 0o400, "5")
        );
        assert!(parse("target=b", false).is_err() && parse("source=a,mode=9", false).is_err());
    }
}
