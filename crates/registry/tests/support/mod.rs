//! A registry on loopback, stores in temporary folders, and images made of busybox.

#![allow(dead_code, missing_docs)]

pub mod certificates;

use std::io::Read;
use std::net::SocketAddr;
use std::sync::Arc;

use gantry_images::oci::RunConfig;
use gantry_images::{LayerSource, NewImage, PullOptions, Store};
use gantry_model::digest::ImageId;
use gantry_model::reference::Reference;
use gantry_registry::{Front, Options, Registry};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub struct Server {
    pub registry: Arc<Registry>,
    pub address: SocketAddr,
    stop: CancellationToken,
    _dir: TempDir,
}

impl Server {
    pub async fn start() -> Server {
        Server::start_with(Options::default()).await
    }

    pub async fn start_with(options: Options) -> Server {
        Server::start_behind(options, Front::default()).await
    }

    pub async fn start_behind(options: Options, front: Front) -> Server {
        let dir = scratch();
        let registry = Registry::open_with(dir.path(), options).expect("registry");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("address");
        let stop = CancellationToken::new();
        let (served, stopped) = (Arc::clone(&registry), stop.clone());
        tokio::spawn(async move { served.serve(listener, front, stopped).await });
        Server { registry, address, stop, _dir: dir }
    }

    /// How many files are on their way into the registry.
    pub fn unfinished(&self) -> usize {
        std::fs::read_dir(self._dir.path().join("tmp")).expect("tmp").count()
    }

    /// How many blobs the registry keeps.
    pub fn blobs_on_disk(&self) -> usize {
        std::fs::read_dir(self._dir.path().join("blobs/sha256")).expect("blobs").count()
    }

    pub fn reference(&self, rest: &str) -> Reference {
        Reference::parse(&format!("{}/{rest}", self.address)).expect("reference")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

pub fn scratch() -> TempDir {
    tempfile::Builder::new()
        .prefix(&format!("gty-{}-", std::process::id()))
        .tempdir()
        .expect("temporary folder")
}

pub fn store() -> (TempDir, Arc<Store>) {
    let dir = scratch();
    let store = Store::open(dir.path()).expect("store");
    (dir, store)
}

/// A tar with busybox, a link to it, and `filler` bytes that do not compress.
pub fn busybox_tar(filler: usize) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let busybox = std::fs::read("/bin/busybox").expect("busybox-static is installed");
    add(&mut builder, "bin/busybox", &busybox, 0o755);
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    header.set_mode(0o777);
    builder.append_link(&mut header, "bin/sh", "busybox").expect("link");
    add(&mut builder, "data/filler", &noise(filler), 0o644);
    builder.into_inner().expect("tar")
}

pub fn add(builder: &mut tar::Builder<Vec<u8>>, path: &str, content: &[u8], mode: u32) {
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(mode);
    header.set_mtime(1_700_000_000);
    builder.append_data(&mut header, path, content).expect("entry");
}

/// Bytes that look random and are the same every time.
pub fn noise(count: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut bytes = Vec::with_capacity(count + 8);
    while bytes.len() < count {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(count);
    bytes
}

/// Makes an image of the tars, lowest first, and names it.
pub async fn image(store: &Arc<Store>, tars: Vec<Vec<u8>>, name: &Reference) -> ImageId {
    let (store, name) = (Arc::clone(store), name.clone());
    tokio::task::spawn_blocking(move || {
        let config = RunConfig { cmd: Some(vec!["/bin/sh".to_owned()]), ..RunConfig::default() };
        let mut tars = tars.into_iter().map(|tar| LayerSource::Tar(Box::new(std::io::Cursor::new(tar))));
        let first = tars.next().expect("a layer");
        let mut image = NewImage::of(first, config, jiff::Timestamp::now());
        for source in tars {
            let (created_by, comment) = Default::default();
            image.layers.push(gantry_images::NewLayer { source, created_by, comment });
        }
        image.name = Some(name);
        store.create(image).expect("image")
    })
    .await
    .expect("create")
}

pub async fn push(store: &Arc<Store>, name: &Reference) -> gantry_images::Pushed {
    store.push(name, None, &Default::default(), Arc::new(())).await.expect("push")
}

pub async fn pull(
    store: &Arc<Store>,
    name: &Reference,
) -> gantry_images::error::Result<gantry_images::Pulled> {
    store.pull(name, &PullOptions::default(), Arc::new(())).await
}

/// A file of an image as overlayfs would show it.
pub fn read_in(store: &Store, image: &ImageId, path: &str) -> Vec<u8> {
    let image = store.image(image).expect("image");
    let found = image.layer_folders.iter().map(|folder| folder.join(path)).find(|path| path.exists());
    let mut content = Vec::new();
    std::fs::File::open(found.expect("file in a layer"))
        .expect("open")
        .read_to_end(&mut content)
        .expect("read");
    content
}

/// An answer, read whole.
pub struct Answer {
    pub status: u16,
    pub headers: http::HeaderMap,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("ASCII"))
    }

    /// The first error code in the body.
    pub fn code(&self) -> String {
        let document: serde_json::Value = serde_json::from_slice(&self.body).unwrap_or_default();
        document["errors"][0]["code"].as_str().unwrap_or_default().to_owned()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }
}

impl Server {
    /// One plain HTTP request on a connection of its own.
    pub async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        use http_body_util::{BodyExt, Full};
        let stream = tokio::net::TcpStream::connect(self.address).await.expect("connect");
        let io = hyper_util::rt::TokioIo::new(stream);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.expect("handshake");
        tokio::spawn(connection);
        let path = path.strip_prefix(&format!("http://{}", self.address)).unwrap_or(path);
        let mut request =
            http::Request::builder().method(method).uri(path).header("Host", self.address.to_string());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(bytes::Bytes::copy_from_slice(body))).expect("request");
        let answer = sender.send_request(request).await.expect("answer");
        let (parts, body) = answer.into_parts();
        let body = body.collect().await.expect("body").to_bytes().to_vec();
        Answer { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    pub async fn put_blob(&self, name: &str, content: &[u8]) -> gantry_model::digest::Digest {
        let digest = gantry_model::digest::Digest::of(content);
        let path = format!("/v2/{name}/blobs/uploads/?digest={digest}");
        let answer = self.send("POST", &path, &[], content).await;
        assert_eq!(answer.status, 201, "{}", String::from_utf8_lossy(&answer.body));
        digest
    }

    pub async fn has_blob(&self, name: &str, digest: &gantry_model::digest::Digest) -> bool {
        self.send("HEAD", &format!("/v2/{name}/blobs/{digest}"), &[], b"").await.status == 200
    }
}
