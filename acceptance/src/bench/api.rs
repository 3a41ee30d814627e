//! A plain client of the Docker API for measuring: one connection for each request, the same for both sides.

use crate::http;
use serde_json::{Value, json};
use std::path::Path;

/// A request that has to succeed.
pub fn call(socket: &Path, method: &str, path: &str, body: &Value) -> Result<http::Reply, String> {
    let text = if body.is_null() { String::new() } else { body.to_string() };
    let reply = http::request(socket, method, &format!("/v1.41{path}"), &text);
    if (200..300).contains(&reply.status) || reply.status == 304 {
        return Ok(reply);
    }
    Err(format!("{method} {path}: {} {}", reply.status, reply.body))
}

/// Create, start, wait, remove: the life of a CI job's container.
pub fn whole_life(socket: &Path, image: &str, name: &str) -> Result<(), String> {
    let config = json!({"Image": image, "Cmd": ["/bin/true"], "HostConfig": {"NetworkMode": "bridge"}});
    let created = call(socket, "POST", &format!("/containers/create?name={name}"), &config)?.json();
    let id = created["Id"].as_str().ok_or("no id")?.to_owned();
    call(socket, "POST", &format!("/containers/{id}/start"), &Value::Null)?;
    let exit = call(socket, "POST", &format!("/containers/{id}/wait"), &Value::Null)?.json();
    call(socket, "DELETE", &format!("/containers/{id}"), &Value::Null)?;
    if exit["StatusCode"] == 0 { Ok(()) } else { Err(format!("exit code {}", exit["StatusCode"])) }
}
