//! How registries are reached: TLS with private authorities, insecure registries, client certificates, proxies, mirrors,
//! and servers that never answer. Needs root: layers keep their owners.

mod support;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gantry_images::client::Patience;
use gantry_images::error::Result;
use gantry_images::{
    InsecureRegistries, Mirror, Proxies, PullOptions, Pulled, Registries, RegistryAuth, Store,
};
use gantry_model::reference::Reference;
use gantry_registry::{Front, Options, Tls};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use support::certificates::{Authority, Trusted};
use support::{Server, busybox_tar, image, store};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

async fn behind(tls: Tls) -> Server {
    Server::start_behind(Options::default(), Front { tls: Some(tls), ..Front::default() }).await
}

async fn pull(store: &Arc<Store>, name: &Reference, registries: &Arc<Registries>) -> Result<Pulled> {
    let options = PullOptions { registries: Arc::clone(registries), ..PullOptions::default() };
    store.pull(name, &options, Arc::new(())).await
}

/// Pushes a small image there, and pulls it into another store.
async fn round_trip(name: &Reference, registries: &Arc<Registries>) {
    let (_from, first) = store();
    image(&first, vec![busybox_tar(1000)], name).await;
    first.push(name, None, registries, Arc::new(())).await.expect("push");
    let (_to, second) = store();
    pull(&second, name, registries).await.expect("pull");
}

/// Why a pull of `app` there fails, with all causes.
async fn refusal(host: &str, registries: Registries) -> String {
    let (_dir, store) = store();
    let name = Reference::parse(&format!("{host}/app")).expect("reference");
    let error = pull(&store, &name, &Arc::new(registries)).await.expect_err("refused").chain();
    assert!(store.list().is_empty());
    error
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_authority_is_trusted_for_its_registry() {
    let authority = Authority::new();
    let server = behind(authority.tls(&["127.0.0.1"])).await;
    let host = server.address.to_string();
    let trusted = Trusted::new();
    trusted.put(&host, "ca.crt", &authority.pem);
    round_trip(&server.reference("app:1"), &trusted.shared()).await;

    trusted.put(&host, "ca.crt", &Authority::new().pem);
    let error = refusal(&host, trusted.registries()).await;
    let expected = format!(
        "connect to registry {host}: the certificate of {host} can't be trusted: certificate signed by unknown authority"
    );
    assert!(error.starts_with(&expected) && error.contains("/ca.crt"), "{error}");

    trusted.put(&host, "ca.crt", "no certificate");
    let error = refusal(&host, trusted.registries()).await;
    assert!(error.contains("no certificate in") && error.contains("ca.crt"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_for_another_name_or_time_is_refused() {
    let authority = Authority::new();
    let server = behind(authority.tls(&["reg.example"])).await;
    let host = server.address.to_string();
    let trusted = Trusted::new();
    trusted.put(&host, "ca.crt", &authority.pem);
    let error = refusal(&host, trusted.registries()).await;
    assert!(error.contains("TLS handshake with") && error.contains("reg.example"), "{error}");

    let mut params = rcgen::CertificateParams::new(["127.0.0.1".to_owned()]).expect("parameters");
    params.not_before = rcgen::date_time_ymd(2001, 1, 1);
    params.not_after = rcgen::date_time_ymd(2002, 1, 1);
    let (certificate, key) = authority.certificate_of(params);
    let server = behind(Tls::open(&certificate, &key).expect("TLS")).await;
    let host = server.address.to_string();
    trusted.put(&host, "ca.crt", &authority.pem);
    let error = refusal(&host, trusted.registries()).await;
    assert!(error.contains("TLS handshake with") && error.contains("expired"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_certificate_that_is_its_own_authority_is_taken_from_the_folder() {
    let authority = Authority::new();
    let (certificate, key) = authority.its_own_authority(&["127.0.0.1"]);
    let server = behind(Tls::open(&certificate, &key).expect("TLS")).await;
    let trusted = Trusted::new();
    trusted.take_over(&server.address.to_string(), "domain.crt", &certificate);
    round_trip(&server.reference("app:1"), &trusted.shared()).await;

    let (certificate, key) = authority.its_own_authority(&["reg.example"]);
    let server = behind(Tls::open(&certificate, &key).expect("TLS")).await;
    let host = server.address.to_string();
    trusted.take_over(&host, "domain.crt", &certificate);
    let error = refusal(&host, trusted.registries()).await;
    assert!(error.contains("reg.example"), "its name counts all the same: {error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn insecure_registries_may_have_any_certificate_or_none() {
    let trusted = Trusted::new();
    let encrypted = behind(Authority::new().tls(&["reg.example"])).await;
    round_trip(&encrypted.reference("app:1"), &trusted.shared()).await;
    let plain = Server::start().await;
    round_trip(&plain.reference("app:1"), &trusted.shared()).await;
    // Whoever puts an authority there wants TLS.
    trusted.put(&plain.address.to_string(), "ca.crt", &Authority::new().pem);
    let error = refusal(&plain.address.to_string(), trusted.registries()).await;
    assert!(error.contains("not TLS") && error.contains("--insecure-registry"), "{error}");
    let insecure = InsecureRegistries::new([plain.address.to_string()]);
    round_trip(&plain.reference("app:2"), &Arc::new(Registries { insecure, ..trusted.registries() })).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_registrys_certificate_is_renewed_while_it_serves() {
    let authority = Authority::new();
    let (certificate, key) = authority.certificate(&["reg.example"]);
    let server = behind(Tls::open(&certificate, &key).expect("TLS")).await;
    let host = server.address.to_string();
    let trusted = Trusted::new();
    trusted.put(&host, "ca.crt", &authority.pem);
    assert!(refusal(&host, trusted.registries()).await.contains("reg.example"));
    let (fresh, fresh_key) = authority.certificate(&["127.0.0.1"]);
    std::fs::copy(&fresh, &certificate).expect("copy");
    // The certificate without its key is not taken.
    assert!(refusal(&host, trusted.registries()).await.contains("reg.example"));
    std::fs::copy(&fresh_key, &key).expect("copy");
    round_trip(&server.reference("app:1"), &trusted.shared()).await;
}

/// Hands the connections of a listener to a server without TLS, if clients show a certificate of the authority.
async fn wants_certificates(authority: &Authority, to: SocketAddr) -> SocketAddr {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.pem.as_bytes()).expect("PEM")).expect("root");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier =
        rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let (certificate, key) = authority.certificate(&["127.0.0.1"]);
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_client_cert_verifier(verifier.build().expect("verifier"))
        .with_single_cert(
            vec![CertificateDer::from_pem_file(certificate).expect("certificate")],
            PrivateKeyDer::from_pem_file(key).expect("key"),
        )
        .expect("pair");
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = listener.local_addr().expect("address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let mut server = TcpStream::connect(to).await.expect("connect");
                let _ = tokio::io::copy_bidirectional(&mut stream, &mut server).await;
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn this_nodes_certificate_is_shown_to_the_registry_that_it_is_for() {
    let authority = Authority::new();
    let server = Server::start().await;
    let host = wants_certificates(&authority, server.address).await.to_string();
    let trusted = Trusted::new();
    trusted.put(&host, "ca.crt", &authority.pem);
    let error = refusal(&host, trusted.registries()).await;
    assert!(error.to_lowercase().contains("certificate"), "{error}");
    let (certificate, key) = authority.certificate(&["node"]);
    trusted.take_over(&host, "client.cert", &certificate);
    let error = refusal(&host, trusted.registries()).await;
    assert!(error.contains("missing key") && error.contains("client.key"), "{error}");
    trusted.take_over(&host, "client.key", &key);
    let name = Reference::parse(&format!("{host}/app:1")).expect("reference");
    round_trip(&name, &trusted.shared()).await;
}

/// A proxy that leads every tunnel and every request to one server.
struct Proxy {
    address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    async fn start(to: SocketAddr) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("address");
        let heads: Arc<Mutex<Vec<String>>> = Arc::default();
        let seen = Arc::clone(&heads);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(proxied(stream, to, Arc::clone(&seen)));
            }
        });
        Proxy { address, heads }
    }

    fn url(&self, user: &str) -> String {
        format!("http://{user}{}", self.address)
    }

    fn seen(&self) -> String {
        self.heads.lock().expect("lock").concat().to_lowercase()
    }
}

async fn proxied(stream: TcpStream, to: SocketAddr, seen: Arc<Mutex<Vec<String>>>) {
    let mut stream = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).await.unwrap_or(0) == 0 {
            return;
        }
    }
    seen.lock().expect("lock").push(head.clone());
    let mut server = TcpStream::connect(to).await.expect("connect");
    if head.starts_with("CONNECT forbidden") {
        let _ = stream.write_all(b"HTTP/1.1 403 Not to there\r\n\r\n").await;
        return;
    } else if head.starts_with("CONNECT ") {
        stream.write_all(b"HTTP/1.1 200 Connection established\r\nX: y\r\n\r\n").await.expect("answer");
    } else {
        // One request for each connection is enough here.
        let head = head.replacen("\r\n", "\r\nConnection: close\r\n", 1);
        server.write_all(head.as_bytes()).await.expect("request");
    }
    let _ = tokio::io::copy_bidirectional(&mut stream, &mut server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn proxies_see_names_and_their_own_password_but_no_credentials_of_registries() {
    let authority = Authority::new();
    let server = behind(authority.tls(&["registry.test"])).await;
    let proxy = Proxy::start(server.address).await;
    let trusted = Trusted::new();
    trusted.put("registry.test:5000", "ca.crt", &authority.pem);
    let proxies = Proxies::new("", &proxy.url("us%40er:pass@"), "other.test").expect("proxies");
    let registries = Arc::new(Registries { proxies, ..trusted.registries() });
    // Nobody resolves this name: it only works through the proxy.
    let name = Reference::parse("registry.test:5000/app:1").expect("reference");
    round_trip(&name, &registries).await;
    let auth = RegistryAuth::basic("user", "geheim");
    gantry_images::login("registry.test:5000", &auth, &registries).await.expect("login");
    let seen = proxy.seen();
    assert!(seen.contains("connect registry.test:5000 http/1.1"), "{seen}");
    assert!(seen.contains(&"Proxy-Authorization: Basic dXNAZXI6cGFzcw==".to_lowercase()), "{seen}");
    assert!(!seen.contains("\r\nauthorization"), "{seen}");

    let error = refusal("forbidden.test:5000", Registries::clone(&registries)).await;
    assert!(error.contains("refused a tunnel to forbidden.test:5000: HTTP/1.1 403 Not to there"), "{error}");
    assert!(!error.contains("pass"), "{error}");
    let gone = Proxies::new("", "http://127.0.0.1:1", "").expect("proxies");
    let error = refusal("registry.test:5000", Registries { proxies: gone, ..trusted.registries() }).await;
    assert!(error.contains("reach proxy http://127.0.0.1:1") && error.contains("refused"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_requests_name_their_host_to_the_proxy() {
    let server = Server::start().await;
    let proxy = Proxy::start(server.address).await;
    let insecure = InsecureRegistries::new(["plain.test:5000"]);
    let proxies = Proxies::new(&proxy.url("user:pass@"), "", "").expect("proxies");
    let registries = Registries { proxies, insecure, ..Trusted::new().registries() };
    let name = Reference::parse("plain.test:5000/app:1").expect("reference");
    round_trip(&name, &Arc::new(registries)).await;
    let seen = proxy.seen();
    assert!(seen.contains("get http://plain.test:5000/v2/app/manifests/1"), "{seen}");
    assert!(seen.contains("proxy-authorization: basic"), "{seen}");
}

#[tokio::test(flavor = "multi_thread")]
async fn mirrors_are_asked_before_docker_hub_and_get_no_credentials() {
    let authority = Authority::new();
    let hub = behind(authority.tls(&["registry-1.docker.io"])).await;
    let proxy = Proxy::start(hub.address).await;
    let trusted = Trusted::new();
    trusted.put("registry-1.docker.io", "ca.crt", &authority.pem);
    let mirror = Server::start().await;
    let watched = Proxy::start(mirror.address).await;
    let registries = Registries {
        proxies: Proxies::new("", &proxy.url(""), "").expect("proxies"),
        mirrors: ["http://127.0.0.1:1".to_owned(), format!("http://{}", watched.address)]
            .map(|url| Mirror::parse(&url).expect("mirror"))
            .to_vec(),
        ..trusted.registries()
    };
    let registries = Arc::new(registries);
    let options = PullOptions {
        auth: Some(RegistryAuth::basic("user", "geheim")),
        registries: Arc::clone(&registries),
        ..PullOptions::default()
    };
    let name = Reference::parse("team/app:1").expect("reference");
    let (_from, first) = store();
    image(&first, vec![busybox_tar(1000)], &name).await;
    // Pushes go to the hub itself.
    first.push(&name, None, &registries, Arc::new(())).await.expect("push");
    assert!(watched.seen().is_empty());

    let (_to, second) = store();
    second.pull(&name, &options, Arc::new(())).await.expect("pull from the hub: no mirror has it");
    assert!(watched.seen().contains("/v2/team/app/manifests/1"));
    second.remote(&name, None, &registries).await.expect("remote from the hub");

    let at_mirror = mirror.reference("team/app:1");
    second.tag("team/app:1", &at_mirror).expect("tag");
    second.push(&at_mirror, None, &trusted.shared(), Arc::new(())).await.expect("push to the mirror");
    let tunnels = proxy.seen();
    let (_to, third) = store();
    third.pull(&name, &options, Arc::new(())).await.expect("pull from the mirror");
    third.remote(&name, None, &registries).await.expect("remote from the mirror");
    assert_eq!(proxy.seen(), tunnels, "the hub was not asked");
    assert!(!watched.seen().contains("authorization"));
}

/// A server that takes connections and says nothing.
async fn mute() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = listener.local_addr().expect("address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move { stream.read_to_end(&mut Vec::new()).await });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_never_answers_is_given_up() {
    let host = mute().await.to_string();
    let short = Duration::from_millis(200);
    let patience = Patience { connect: short, answer: short, upload: short };
    let trusted = Trusted::new();
    let error = refusal(&host, Registries { patience, ..trusted.registries() }).await;
    assert!(error.contains("/v2/app/manifests/latest: no answer within 1 s"), "{error}");
    trusted.put(&host, "ca.crt", &Authority::new().pem);
    let patience = Patience { answer: 20 * short, ..patience };
    let error = refusal(&host, Registries { patience, ..trusted.registries() }).await;
    assert!(error.contains(&format!("TLS handshake with {host}: no answer within 1 s")), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_that_is_cut_off_is_told() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let host = listener.local_addr().expect("address").to_string();
    tokio::spawn(async move { while listener.accept().await.is_ok() {} });
    let trusted = Trusted::new();
    trusted.put(&host, "ca.crt", &Authority::new().pem);
    let error = refusal(&host, trusted.registries()).await;
    assert!(error.contains(&format!("connect to registry {host}: TLS handshake with {host}: ")), "{error}");
}
