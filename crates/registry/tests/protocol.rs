//! The distribution specification, request by request.

mod support;

use gantry_images::oci::{OCI_INDEX, OCI_MANIFEST};
use gantry_model::digest::Digest;
use serde_json::json;
use support::Server;

/// A manifest over one configuration and one layer.
fn manifest(config: &Digest, layer: &Digest, extra: serde_json::Value) -> Vec<u8> {
    let mut document = json!({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": 2},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": layer, "size": 5}],
    });
    for (key, value) in extra.as_object().expect("object") {
        document[key] = value.clone();
    }
    serde_json::to_vec(&document).expect("JSON")
}

async fn pushed(server: &Server, name: &str, tag: &str) -> Digest {
    let (config, layer) = (server.put_blob(name, b"{}").await, server.put_blob(name, b"layer").await);
    let text = manifest(&config, &layer, json!({}));
    let path = format!("/v2/{name}/manifests/{tag}");
    let answer = server.send("PUT", &path, &[("Content-Type", OCI_MANIFEST)], &text).await;
    assert_eq!(answer.status, 201, "{}", String::from_utf8_lossy(&answer.body));
    assert_eq!(answer.header("Docker-Content-Digest"), Digest::of(&text).to_string());
    Digest::of(&text)
}

#[tokio::test]
async fn blobs_come_in_one_piece_in_chunks_and_with_ranges_out() {
    let server = Server::start().await;
    assert_eq!(server.send("GET", "/v2/", &[], b"").await.status, 200);
    let start = server.send("POST", "/v2/a/b/blobs/uploads/", &[], b"").await;
    assert_eq!(start.status, 202);
    let location = start.header("Location").to_owned();
    let chunk = server.send("PATCH", &location, &[("Content-Range", "0-4")], b"01234").await;
    assert_eq!((chunk.status, chunk.header("Range")), (202, "0-4"));
    let gap = server.send("PATCH", &location, &[("Content-Range", "7-8")], b"78").await;
    assert_eq!((gap.status, gap.code().as_str()), (416, "BLOB_UPLOAD_INVALID"));
    let short = server.send("PATCH", &location, &[("Content-Range", "5-9")], b"56").await;
    assert_eq!(short.status, 400);
    let status = server.send("GET", &location, &[], b"").await;
    assert_eq!((status.status, status.header("Range")), (204, "0-4"));
    let digest = Digest::of(b"0123456789");
    let done = server.send("PUT", &format!("{location}?digest={digest}"), &[], b"56789").await;
    assert_eq!((done.status, done.header("Location").to_owned()), (201, format!("/v2/a/b/blobs/{digest}")));
    assert_eq!(server.send("GET", &location, &[], b"").await.code(), "BLOB_UPLOAD_UNKNOWN");
    let path = format!("/v2/a/b/blobs/{digest}");
    let whole = server.send("GET", &path, &[], b"").await;
    assert_eq!((whole.status, &whole.body[..]), (200, &b"0123456789"[..]));
    let part = server.send("GET", &path, &[("Range", "bytes=3-5")], b"").await;
    assert_eq!((part.status, &part.body[..]), (206, &b"345"[..]));
    assert_eq!(part.header("Content-Range"), "bytes 3-5/10");
    let beyond = server.send("GET", &path, &[("Range", "bytes=10-")], b"").await;
    assert_eq!((beyond.status, beyond.header("Content-Range")), (416, "bytes */10"));
    let elsewhere = server.send("GET", &format!("/v2/c/blobs/{digest}"), &[], b"").await;
    assert_eq!((elsewhere.status, elsewhere.code().as_str()), (404, "BLOB_UNKNOWN"));
    assert_eq!(server.send("DELETE", &path, &[], b"").await.status, 202);
    assert_eq!(server.send("DELETE", &path, &[], b"").await.status, 404);
}

#[tokio::test]
async fn lying_digests_and_cancelled_uploads_leave_nothing() {
    let server = Server::start().await;
    let digest = Digest::of(b"promised");
    let path = format!("/v2/a/blobs/uploads/?digest={digest}");
    let lie = server.send("POST", &path, &[], b"something else").await;
    assert_eq!((lie.status, lie.code().as_str()), (400, "DIGEST_INVALID"));
    assert!(!server.has_blob("a", &digest).await);
    assert!(!server.has_blob("a", &Digest::of(b"something else")).await);
    let bad = server.send("POST", "/v2/a/blobs/uploads/?digest=md5:00", &[], b"x").await;
    assert_eq!(bad.code(), "DIGEST_INVALID");
    let start = server.send("POST", "/v2/a/blobs/uploads/", &[], b"").await;
    let location = start.header("Location").to_owned();
    let other = location.replace("/v2/a/", "/v2/b/");
    assert_eq!(server.send("PATCH", &other, &[], b"x").await.code(), "BLOB_UPLOAD_UNKNOWN");
    assert_eq!(server.send("DELETE", &location, &[], b"").await.status, 204);
    assert_eq!(server.send("PATCH", &location, &[], b"x").await.code(), "BLOB_UPLOAD_UNKNOWN");
}

#[tokio::test]
async fn a_blob_that_breaks_off_in_its_only_request_leaves_nothing() {
    use tokio::io::AsyncWriteExt;
    let server = Server::start().await;
    let path = format!("/v2/a/blobs/uploads/?digest={}", Digest::of(b"promised"));
    let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n");
    let mut client = tokio::net::TcpStream::connect(server.address).await.expect("connect");
    client.write_all(head.as_bytes()).await.expect("head");
    client.write_all(b"promi").await.expect("a part of the body");
    until(|| server.unfinished() == 1).await;
    drop(client);
    until(|| server.unfinished() == 0).await;
}

async fn until(condition: impl Fn() -> bool) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while !condition() {
        assert!(std::time::Instant::now() < deadline, "it did not come about");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn manifests_are_checked_before_they_are_taken() {
    let server = Server::start().await;
    let digest = pushed(&server, "a", "1").await;
    let get = server.send("GET", "/v2/a/manifests/1", &[], b"").await;
    assert_eq!((get.status, get.header("Content-Type")), (200, OCI_MANIFEST));
    assert_eq!(Digest::of(&get.body), digest);
    let head = server.send("HEAD", &format!("/v2/a/manifests/{digest}"), &[], b"").await;
    assert_eq!((head.status, head.header("Content-Length").to_owned()), (200, get.body.len().to_string()));
    let put = |body: Vec<u8>, media_type: &'static str, tag: &'static str| {
        let server = &server;
        async move {
            let path = format!("/v2/a/manifests/{tag}");
            server.send("PUT", &path, &[("Content-Type", media_type)], &body).await
        }
    };
    let absent = manifest(&Digest::of(b"{}"), &Digest::of(b"absent"), json!({}));
    assert_eq!(put(absent, OCI_MANIFEST, "2").await.code(), "MANIFEST_BLOB_UNKNOWN");
    assert_eq!(put(b"nonsense".to_vec(), OCI_MANIFEST, "2").await.code(), "MANIFEST_INVALID");
    assert_eq!(put(get.body.clone(), OCI_INDEX, "2").await.code(), "MANIFEST_INVALID");
    assert_eq!(put(get.body.clone(), "text/plain", "2").await.code(), "MANIFEST_INVALID");
    let large = put(vec![b' '; 5 * 1024 * 1024], OCI_MANIFEST, "2").await;
    assert_eq!(large.status, 413);
    let wrong = format!("/v2/a/manifests/{}", Digest::of(b"x"));
    let wrong = server.send("PUT", &wrong, &[("Content-Type", OCI_MANIFEST)], &get.body).await;
    assert_eq!(wrong.code(), "DIGEST_INVALID");
    assert_eq!(server.send("GET", "/v2/a/manifests/2", &[], b"").await.code(), "MANIFEST_UNKNOWN");
    assert_eq!(server.send("GET", "/v2/none/manifests/2", &[], b"").await.code(), "NAME_UNKNOWN");
    assert_eq!(server.send("GET", "/v2/../x/manifests/2", &[], b"").await.code(), "NAME_INVALID");
    assert_eq!(server.send("POST", "/v2/a/manifests/2", &[], b"").await.status, 405);
}

#[tokio::test]
async fn lists_come_in_pages() {
    let server = Server::start().await;
    for tag in ["a", "b", "c", "d"] {
        pushed(&server, "x/y", tag).await;
    }
    pushed(&server, "w", "1").await;
    let page = server.send("GET", "/v2/x/y/tags/list?n=2&last=a", &[], b"").await;
    assert_eq!(page.json(), json!({"name": "x/y", "tags": ["b", "c"]}));
    let link = page.header("Link").to_owned();
    let next = link.trim_start_matches('<').split('>').next().expect("address");
    let rest = server.send("GET", next, &[], b"").await;
    assert_eq!((rest.json()["tags"].clone(), rest.header("Link")), (json!(["d"]), ""));
    let all = server.send("GET", "/v2/_catalog", &[], b"").await;
    assert_eq!(all.json(), json!({"repositories": ["w", "x/y"]}));
    let one = server.send("GET", "/v2/_catalog?n=1", &[], b"").await;
    assert_eq!(one.json(), json!({"repositories": ["w"]}));
    assert_eq!(server.send("GET", "/v2/none/tags/list", &[], b"").await.code(), "NAME_UNKNOWN");
    let wrong = server.send("GET", "/v2/x/y/tags/list?n=many", &[], b"").await;
    assert_eq!((wrong.status, wrong.code().as_str()), (400, "PAGINATION_NUMBER_INVALID"));
}

#[tokio::test]
async fn referrers_are_listed_and_forgotten() {
    let server = Server::start().await;
    let subject = pushed(&server, "a", "1").await;
    let config = Digest::of(b"{}");
    let layer = Digest::of(b"layer");
    let extra = json!({
        "subject": {"mediaType": OCI_MANIFEST, "digest": subject, "size": 1},
        "artifactType": "application/x-signature", "annotations": {"k": "v"},
    });
    let text = manifest(&config, &layer, extra);
    let digest = Digest::of(&text);
    let path = format!("/v2/a/manifests/{digest}");
    let put = server.send("PUT", &path, &[("Content-Type", OCI_MANIFEST)], &text).await;
    assert_eq!((put.status, put.header("OCI-Subject").to_owned()), (201, subject.to_string()));
    let list = server.send("GET", &format!("/v2/a/referrers/{subject}"), &[], b"").await;
    assert_eq!(list.header("Content-Type"), OCI_INDEX);
    assert_eq!(list.json()["manifests"][0]["artifactType"], "application/x-signature");
    assert_eq!(list.json()["manifests"][0]["annotations"]["k"], "v");
    let none = server.send("GET", &format!("/v2/a/referrers/{subject}?artifactType=other"), &[], b"").await;
    assert_eq!(
        (none.json()["manifests"].clone(), none.header("OCI-Filters-Applied")),
        (json!([]), "artifactType")
    );
    assert_eq!(server.send("DELETE", &path, &[], b"").await.status, 202);
    let list = server.send("GET", &format!("/v2/a/referrers/{subject}"), &[], b"").await;
    assert_eq!(list.json()["manifests"], json!([]));
}

#[tokio::test]
async fn a_deleted_manifest_takes_its_tags_and_later_its_blobs_along() {
    let server = Server::start().await;
    let digest = pushed(&server, "a", "1").await;
    let path = format!("/v2/a/manifests/{digest}");
    assert_eq!(server.send("DELETE", &path, &[], b"").await.status, 202);
    assert_eq!(server.send("GET", "/v2/a/manifests/1", &[], b"").await.status, 404);
    let registry = std::sync::Arc::clone(&server.registry);
    let collect = move || registry.collect(std::time::Duration::ZERO).expect("collect");
    let done = tokio::task::spawn_blocking(collect).await.expect("task");
    assert_eq!(done.blobs, 3);
    assert!(!server.has_blob("a", &Digest::of(b"layer")).await);
}

#[tokio::test]
async fn manifests_without_a_tag_go_only_if_that_is_wanted() {
    let collect = |server: &Server| {
        let registry = std::sync::Arc::clone(&server.registry);
        let collect = move || registry.collect(std::time::Duration::from_secs(60)).expect("collect");
        tokio::task::spawn_blocking(collect)
    };
    // The same tag is pushed twice: the first manifest has no tag any more.
    async fn push_twice(server: &Server) -> Digest {
        let first = pushed(server, "a", "1").await;
        let (config, layer) = (Digest::of(b"{}"), Digest::of(b"layer"));
        let text = manifest(&config, &layer, json!({"annotations": {"second": "1"}}));
        let headers = [("Content-Type", OCI_MANIFEST)];
        assert_eq!(server.send("PUT", "/v2/a/manifests/1", &headers, &text).await.status, 201);
        first
    }
    let kept = Server::start().await;
    let digest = push_twice(&kept).await;
    assert_eq!(collect(&kept).await.expect("task").manifests, 0);
    assert_eq!(kept.send("GET", &format!("/v2/a/manifests/{digest}"), &[], b"").await.status, 200);
    let untagged_grace = Some(std::time::Duration::ZERO);
    let strict = Server::start_with(gantry_registry::Options { untagged_grace, ..Default::default() }).await;
    let digest = push_twice(&strict).await;
    assert_eq!(collect(&strict).await.expect("task").manifests, 1);
    assert_eq!(strict.send("GET", &format!("/v2/a/manifests/{digest}"), &[], b"").await.status, 404);
    assert_eq!(strict.send("GET", "/v2/a/manifests/1", &[], b"").await.status, 200);
}
