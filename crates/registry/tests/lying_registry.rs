//! Registries that lie or break: what the client makes of wrong digests, wrong lengths, broken connections and wrong
//! credentials. Needs root: layers keep their owners.

mod support;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use gantry_images::client::fetch;
use gantry_images::{PullOptions, RegistryAuth};
use gantry_model::digest::Digest;
use gantry_model::reference::Reference;
use serde_json::json;
use support::{busybox_tar, pull, store};

/// Answers by path with fixed bytes, and lets a test bend them.
#[derive(Default)]
struct Liar {
    files: HashMap<String, (String, Vec<u8>)>,
    /// The first answer to this path ends after so many bytes.
    cut: Mutex<Option<(String, usize)>>,
    /// Wanted from every client: `user:password` in base64.
    basic: Option<&'static str>,
    /// Tokens are wanted, and this is one.
    token: Option<&'static str>,
    requests: AtomicUsize,
    /// So many answers say that there are too many requests, and after how many seconds to ask again.
    busy: AtomicUsize,
    retry_after: u64,
}

async fn answer(State(liar): State<Arc<Liar>>, request: Request) -> Response {
    liar.requests.fetch_add(1, Ordering::SeqCst);
    let path = request.uri().path().to_owned();
    let header =
        |name: &str| request.headers().get(name).and_then(|v| v.to_str().ok()).unwrap_or("").to_owned();
    let authorization = header("authorization");
    let host = header("host");
    if path == "/token" {
        let body = json!({"token": liar.token, "scope": request.uri().query()}).to_string();
        return Response::new(Body::from(body));
    }
    let refused = |challenge: String| {
        let body =
            json!({"errors": [{"code": "UNAUTHORIZED", "message": "authentication required"}]}).to_string();
        let response = Response::builder().status(401).header("WWW-Authenticate", challenge);
        response.body(Body::from(body)).expect("response")
    };
    if liar.busy.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
        let body = json!({"errors": [{"code": "TOOMANYREQUESTS", "message": "slow down"}]}).to_string();
        let response = Response::builder().status(429).header("Retry-After", liar.retry_after);
        return response.body(Body::from(body)).expect("response");
    }
    if let Some(basic) = liar.basic
        && authorization != format!("Basic {basic}")
    {
        return refused("Basic realm=\"x\"".to_owned());
    }
    if let Some(token) = liar.token
        && authorization != format!("Bearer {token}")
    {
        return refused(format!("Bearer realm=\"http://{host}/token\",service=\"liar\""));
    }
    let Some((media_type, content)) = liar.files.get(&path) else {
        return Response::builder().status(404).body(Body::empty()).expect("response");
    };
    let range = header("range");
    let start: usize = range.trim_start_matches("bytes=").trim_end_matches('-').parse().unwrap_or(0);
    let length = content.len();
    let mut body = content[start.min(length)..].to_vec();
    let mut response =
        Response::builder().header("Content-Type", media_type).header("Content-Length", body.len());
    if !range.is_empty() {
        response =
            response.status(206).header("Content-Range", format!("bytes {start}-{}/{length}", length - 1));
    }
    let cut = liar.cut.lock().expect("lock").take_if(|(cut, _)| *cut == path);
    if let Some((_, keep)) = cut {
        body.truncate(keep);
        let broken = futures_util::stream::iter([Ok(body), Err(std::io::Error::other("cut"))]);
        return response.body(Body::from_stream(broken)).expect("response");
    }
    response.body(Body::from(body)).expect("response")
}

async fn serve(liar: Liar) -> (Arc<Liar>, SocketAddr) {
    let liar = Arc::new(liar);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = listener.local_addr().expect("address");
    let router = axum::Router::new().fallback(answer).with_state(Arc::clone(&liar));
    tokio::spawn(async move { axum::serve(listener, router).await });
    (liar, address)
}

struct Made {
    liar: Liar,
    layer: String,
}

/// An honest image of one gzip layer; `bend` may change the documents before they are hashed.
fn made(bend: impl FnOnce(&mut serde_json::Value, &mut serde_json::Value)) -> Made {
    use std::io::Write;
    let tar = busybox_tar(500_000);
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(&tar).expect("gzip");
    let packed = encoder.finish().expect("gzip");
    let mut config = json!({"architecture": "amd64", "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": [Digest::of(&tar)]}});
    let mut manifest = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json"},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": Digest::of(&packed), "size": packed.len()}]});
    bend(&mut config, &mut manifest);
    let config = config.to_string().into_bytes();
    manifest["config"]["digest"] = json!(Digest::of(&config));
    manifest["config"]["size"] = json!(config.len());
    let layer = format!("/v2/app/blobs/{}", Digest::of(&packed));
    let mut liar = Liar::default();
    let plain = "application/octet-stream".to_owned();
    liar.files.insert(format!("/v2/app/blobs/{}", Digest::of(&config)), (plain.clone(), config));
    liar.files.insert(layer.clone(), (plain, packed));
    let media_type = "application/vnd.oci.image.manifest.v1+json".to_owned();
    liar.files.insert("/v2/app/manifests/latest".to_owned(), (media_type, manifest.to_string().into_bytes()));
    Made { liar, layer }
}

fn reference(address: SocketAddr) -> Reference {
    Reference::parse(&format!("{address}/app")).expect("reference")
}

/// Pulls, and shows that a refusal left nothing.
async fn refused(made: Made) -> String {
    let (_, address) = serve(made.liar).await;
    let (dir, store) = store();
    let error = pull(&store, &reference(address)).await.expect_err("refused").chain();
    assert!(store.list().is_empty());
    let layers = std::fs::read_dir(dir.path().join("layers")).expect("layers").count();
    assert_eq!(layers, 0, "nothing half unpacked is visible");
    assert!(store.content().list().expect("blobs").is_empty(), "no unverified blob");
    error
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_connection_is_resumed() {
    let made = made(|_, _| {});
    *made.liar.cut.lock().expect("lock") = Some((made.layer.clone(), 100_000));
    let (liar, address) = serve(made.liar).await;
    let (_dir, store) = store();
    pull(&store, &reference(address)).await.expect("pull");
    assert!(liar.cut.lock().expect("lock").is_none(), "the connection was cut");
    // Manifest, configuration, layer, rest of the layer.
    assert_eq!(liar.requests.load(Ordering::SeqCst), 4);
}

/// Puts an index over the honest image, for these platforms; all entries lead to the same manifest.
fn behind_index(mut made: Made, platforms: &[(&str, &str)]) -> Made {
    let top = "/v2/app/manifests/latest".to_owned();
    let (media_type, manifest) = made.liar.files.remove(&top).expect("manifest");
    let digest = Digest::of(&manifest);
    let entries: Vec<_> = platforms
        .iter()
        .map(|(os, architecture)| {
            json!({"mediaType": media_type, "digest": digest, "size": manifest.len(),
                "platform": {"os": os, "architecture": architecture}})
        })
        .collect();
    made.liar.files.insert(format!("/v2/app/manifests/{digest}"), (media_type, manifest));
    let index = json!({"schemaVersion": 2, "manifests": entries}).to_string().into_bytes();
    made.liar
        .files
        .insert(top, ("application/vnd.docker.distribution.manifest.list.v2+json".to_owned(), index));
    made
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_leads_to_the_platforms_manifest() {
    let host = gantry_model::platform::Platform::host();
    let made = behind_index(
        made(|_, _| {}),
        &[("linux", "mips64le"), ("linux", &host.architecture), ("unknown", "unknown")],
    );
    let index = Digest::of(&made.liar.files["/v2/app/manifests/latest"].1);
    let (_, address) = serve(made.liar).await;
    let (_dir, store) = store();
    let name = reference(address);
    let remote = store.remote(&name, None, &Default::default()).await.expect("remote");
    let shown: Vec<String> = remote.platforms.iter().map(ToString::to_string).collect();
    assert_eq!((remote.digest, shown), (index, vec!["linux/mips64le".to_owned(), host.to_string()]));
    let pulled = pull(&store, &name).await.expect("pull");
    assert_eq!(pulled.digest, index);
    let pinned = name.with_digest(index).to_string().replace("/app@", "/app:latest@");
    assert_eq!(store.resolve(&pinned).expect("by tag and digest"), pulled.image);
    store.collect().expect("collect");
    assert!(store.content().has(&index), "the index stays as long as its name");
    let wanted = gantry_model::platform::Platform::parse("linux/s390x").expect("platform");
    let options = PullOptions { platform: Some(wanted), ..PullOptions::default() };
    let error = store.pull(&name, &options, Arc::new(())).await.expect_err("no such platform").to_string();
    assert!(
        error.contains("no matching manifest for linux/s390x") && error.contains("linux/mips64le, linux/"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn lies_about_layers_are_refused() {
    let mut other = made(|_, _| {});
    let content = &mut other.liar.files.get_mut(&other.layer).expect("layer").1;
    let last = content.len() - 1;
    content[last / 2] ^= 1;
    let text = refused(other).await;
    assert!(text.contains("layer sha256:"), "{text}");

    let mut longer = made(|_, _| {});
    longer.liar.files.get_mut(&longer.layer).expect("layer").1.extend_from_slice(b"more");
    let text = refused(longer).await;
    assert!(text.contains("the manifest says"), "{text}");

    let shorter = made(|_, manifest| {
        let size = manifest["layers"][0]["size"].as_u64().expect("size");
        manifest["layers"][0]["size"] = json!(size + 10);
    });
    let (_, address) = serve(shorter.liar).await;
    let (_dir, store) = store();
    let name = reference(address);
    let text = pull(&store, &name).await.expect_err("refused").chain();
    assert!(text.contains("the manifest says"), "{text}");
    assert!(store.list().is_empty());

    let diff_id = made(|config, _| config["rootfs"]["diff_ids"] = json!([Digest::of(b"other")]));
    let text = refused(diff_id).await;
    assert!(text.contains("diff id"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn lies_about_documents_are_refused() {
    let mut config = made(|_, _| {});
    let layer = config.layer.clone();
    let file = config.liar.files.iter_mut().find(|(path, _)| path.contains("/blobs/") && **path != layer);
    file.expect("configuration").1.1.push(b' ');
    let text = refused(config).await;
    assert!(text.contains("does not match its digest"), "{text}");
    let text = refused(made(|config, _| config["rootfs"]["diff_ids"] = json!([]))).await;
    assert!(text.contains("1 layers, but its configuration names 0"), "{text}");
    let text = refused(made(|_, manifest| manifest["schemaVersion"] = json!(1))).await;
    assert!(text.contains("schema version 1"), "{text}");
    let text = refused(made(|_, manifest| {
        manifest["mediaType"] = json!(null);
        manifest["manifests"] = json!([]);
    }))
    .await;
    assert!(text.contains("both an index and a manifest"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn basic_and_token_authentication_work_and_refusals_are_told() {
    let mut basic = made(|_, _| {});
    // "user:secret"
    basic.liar.basic = Some("dXNlcjpzZWNyZXQ=");
    let (_, address) = serve(basic.liar).await;
    let (_dir, first) = store();
    let error = pull(&first, &reference(address)).await.expect_err("no credentials").chain();
    assert!(error.contains("pull access denied") && error.contains("no basic auth credentials"), "{error}");
    let options = PullOptions { auth: Some(RegistryAuth::basic("user", "secret")), ..PullOptions::default() };
    first.pull(&reference(address), &options, Arc::new(())).await.expect("basic");
    let wrong = RegistryAuth::basic("user", "wrong");
    let error =
        gantry_images::login(&address.to_string(), &wrong, &Default::default()).await.expect_err("login");
    assert!(error.to_string().contains("failed with status: 401 Unauthorized"), "{error}");

    let mut token = made(|_, _| {});
    token.liar.token = Some("abc");
    let (_, address) = serve(token.liar).await;
    let (_dir, second) = store();
    pull(&second, &reference(address)).await.expect("anonymous token");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_is_not_there_is_named() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("address");
    drop(listener);
    let (_dir, store) = store();
    let error = pull(&store, &reference(address)).await.expect_err("nobody").chain();
    assert!(
        error.contains(&format!("connect to registry {address}")) && error.contains("refused"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_registry_is_asked_again_when_it_wants() {
    let mut made = made(|_, _| {});
    (made.liar.busy, made.liar.retry_after) = (AtomicUsize::new(1), 1);
    let (_, address) = serve(made.liar).await;
    let (_dir, store) = store();
    let start = std::time::Instant::now();
    pull(&store, &reference(address)).await.expect("pull");
    assert!(start.elapsed() >= std::time::Duration::from_secs(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_to_come_back_much_later_is_told_at_once() {
    let mut made = made(|_, _| {});
    (made.liar.busy, made.liar.retry_after) = (AtomicUsize::new(100), 3600);
    let (liar, address) = serve(made.liar).await;
    let (_dir, store) = store();
    let error = pull(&store, &reference(address)).await.expect_err("busy").chain();
    assert!(error.contains("slow down") && error.contains("3600 s"), "{error}");
    assert_eq!(liar.requests.load(Ordering::SeqCst), 1, "it is not asked again");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_artifact_is_no_image() {
    let chart = "application/vnd.cncf.helm.config.v1+json";
    let made = made(|_, manifest| manifest["config"]["mediaType"] = json!(chart));
    let error = refused(made).await;
    assert!(error.contains("artifact") && error.contains(chart), "{error}");
}

/// The image's one layer is unpacked here already; what is offered as its packed form is something else.
#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_is_not_the_layer_that_is_here_is_refused() {
    let honest = made(|_, _| {});
    let (media_type, packed) = honest.liar.files[&honest.layer].clone();
    let (_, address) = serve(honest.liar).await;
    let (dir, store) = store();
    pull(&store, &reference(address)).await.expect("pull");
    let cut = packed[..packed.len() - 4].to_vec();
    let other = b"no layer at all".to_vec();
    for blob in [cut, other] {
        let mut lie = made(|_, manifest| {
            manifest["layers"][0]["digest"] = json!(Digest::of(&blob));
            manifest["layers"][0]["size"] = json!(blob.len());
        });
        let digest = Digest::of(&blob);
        lie.liar.files.insert(format!("/v2/app/blobs/{digest}"), (media_type.clone(), blob.clone()));
        let (_, address) = serve(lie.liar).await;
        pull(&store, &reference(address)).await.expect_err("a lie");
        assert!(!store.content().has(&digest), "it is not kept");
        // The same if the blob is here for another reason.
        store.content().put(&blob).expect("put");
        pull(&store, &reference(address)).await.expect_err("a lie");
    }
    assert_eq!(store.list().len(), 1);
    assert_eq!(std::fs::read_dir(dir.path().join("partial")).expect("partial").count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_fetched_by_its_address_and_refusals_are_told() {
    use tokio::io::AsyncReadExt;
    let mut liar = Liar::default();
    liar.files.insert("/some/file".to_owned(), ("text/plain".to_owned(), b"content".to_vec()));
    let (_, address) = serve(liar).await;
    let registries = Arc::default();
    let mut file = fetch(&format!("http://{address}/some/file"), &registries).await.expect("fetch");
    let mut content = Vec::new();
    file.read_to_end(&mut content).await.expect("read");
    assert_eq!(content, b"content");
    for (wrong, told) in [("other", "404"), ("some/file", "only http and https")] {
        let scheme = if wrong == "other" { "http" } else { "ftp" };
        let error =
            fetch(&format!("{scheme}://{address}/{wrong}"), &registries).await.err().expect("refused");
        assert!(error.to_string().contains(told), "{error}");
    }
}
