//! Credentials: users and tokens at Gantry's registry, token servers, and who must not see what. Needs root: layers keep
//! their owners.

mod support;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use gantry_images::error::Result;
use gantry_images::{PullOptions, Pulled, Pushed, RegistryAuth, Store, login};
use gantry_model::reference::Reference;
use gantry_registry::{Access, Front, Options, Tokens, Users, Way};
use http_body_util::BodyExt;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use serde_json::json;
use support::{Server, busybox_tar, image, scratch, store};

async fn pull(store: &Arc<Store>, name: &Reference, auth: Option<RegistryAuth>) -> Result<Pulled> {
    let options = PullOptions { auth, ..PullOptions::default() };
    store.pull(name, &options, Arc::new(())).await
}

async fn push(store: &Arc<Store>, name: &Reference, auth: Option<RegistryAuth>) -> Result<Pushed> {
    store.push(name, auth, &Default::default(), Arc::new(())).await
}

/// `user` with the password `geheim`, as `htpasswd -B` writes it.
fn users(folder: &std::path::Path) -> Users {
    let path = folder.join("users");
    let hash = bcrypt::hash_with_salt("geheim", 4, *b"sixteen bytes...").expect("hash");
    std::fs::write(&path, format!("user:{}\n", hash.format_for_version(bcrypt::Version::TwoY)))
        .expect("write");
    Users::open(path).expect("users")
}

async fn with_users(anonymous_pull: bool) -> Server {
    let folder = scratch();
    let access = Access { way: Way::Users(users(folder.path())), anonymous_pull };
    Server::start_behind(Options::default(), Front { tls: None, access }).await
}

fn user() -> Option<RegistryAuth> {
    Some(RegistryAuth::basic("user", "geheim"))
}

fn wrong() -> RegistryAuth {
    RegistryAuth::basic("user", "falsch")
}

/// A store with an image of this name.
async fn made(name: &Reference) -> (tempfile::TempDir, Arc<Store>) {
    let (folder, store) = store();
    image(&store, vec![busybox_tar(1000)], name).await;
    (folder, store)
}

#[tokio::test(flavor = "multi_thread")]
async fn users_push_and_pull_and_others_do_not() {
    let server = with_users(false).await;
    let host = server.address.to_string();
    let registries = Default::default();
    let error = login(&host, &wrong(), &registries).await.expect_err("wrong password").to_string();
    let expected = format!("login attempt to http://{host}/v2/ failed with status: 401 Unauthorized");
    assert!(error.starts_with(&expected), "{error}");
    assert_eq!(login(&host, &user().expect("user"), &registries).await.expect("login"), None);

    let name = server.reference("team/app:1");
    let (_from, first) = made(&name).await;
    for (auth, reason) in [(None, "no basic auth credentials"), (Some(wrong()), "authentication required")] {
        let error = push(&first, &name, auth).await.expect_err("refused").chain();
        assert!(error.starts_with(&format!("push access denied for {host}/team/app")), "{error}");
        assert!(error.ends_with(reason), "{error}");
    }
    push(&first, &name, user()).await.expect("push");
    let (_to, second) = store();
    let error = pull(&second, &name, None).await.expect_err("refused").chain();
    let expected = format!(
        "pull access denied for {host}/team/app, repository does not exist or may require 'docker login': no basic auth credentials"
    );
    assert_eq!(error, expected);
    pull(&second, &name, user()).await.expect("pull");
    let challenge = server.send("GET", "/v2/", &[], b"").await;
    assert_eq!(challenge.status, 401);
    assert_eq!(challenge.header("www-authenticate"), "Basic realm=\"Gantry registry\"");
    assert_eq!(challenge.code(), "UNAUTHORIZED");
    assert_eq!(server.send("GET", "/v2/_catalog", &[], b"").await.status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn everybody_may_pull_where_that_is_wanted() {
    let server = with_users(true).await;
    let name = server.reference("team/app:1");
    let (_from, first) = made(&name).await;
    let error = push(&first, &name, None).await.expect_err("refused").chain();
    assert!(error.contains("no basic auth credentials"), "{error}");
    push(&first, &name, user()).await.expect("push");
    let (_to, second) = store();
    pull(&second, &name, None).await.expect("anonymous pull");
    // Who shows credentials wants to have them checked.
    let error = pull(&second, &name, Some(wrong())).await;
    assert!(error.is_ok(), "this client shows them only when it is asked");
    let basic = format!("Basic {}", STANDARD.encode("user:falsch"));
    let headers = [("Authorization", basic.as_str())];
    assert_eq!(server.send("GET", "/v2/team/app/manifests/1", &headers, b"").await.status, 401);
    assert_eq!(server.send("GET", "/v2/", &[], b"").await.status, 401, "a login is a login");
    assert_eq!(server.send("GET", "/v2/_catalog", &[], b"").await.status, 401);
    assert_eq!(server.send("DELETE", "/v2/team/app/manifests/1", &[], b"").await.status, 401);
}

/// A token server: `user` may do everything, everybody may pull `public/…`.
struct Issuer {
    key: EcdsaKeyPair,
    /// What it puts into `expires_in`.
    life: u64,
    asked: Mutex<Vec<String>>,
}

impl Issuer {
    async fn start(life: u64) -> (Arc<Issuer>, Front) {
        let made = rcgen::generate_simple_self_signed(["issuer".to_owned()]).expect("certificate");
        let folder = scratch();
        let certificate = folder.path().join("issuer.crt");
        std::fs::write(&certificate, made.cert.pem()).expect("write");
        let der = made.signing_key.serialize_der();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der, &SystemRandom::new());
        let issuer = Arc::new(Issuer { key: key.expect("key"), life, asked: Mutex::default() });
        let address = serve(axum::Router::new().fallback(give_token).with_state(Arc::clone(&issuer))).await;
        let realm = format!("http://{address}/token");
        let tokens = Tokens::open(realm, "gantry test", "issuer", &certificate).expect("tokens");
        (issuer, Front { tls: None, access: Access { way: Way::Tokens(tokens), anonymous_pull: false } })
    }

    fn token(&self, access: serde_json::Value) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("time").as_secs();
        let count = self.asked.lock().expect("lock").len();
        let claims = json!({"iss": "issuer", "aud": "gantry test", "exp": now + 300, "nbf": now,
            "jti": count.to_string(), "access": access});
        let encode = |value: serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", encode(json!({"alg": "ES256", "typ": "JWT"})), encode(claims));
        let signature = self.key.sign(&SystemRandom::new(), signed.as_bytes()).expect("sign");
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("lock").clone()
    }
}

async fn serve(router: axum::Router) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = listener.local_addr().expect("address");
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

fn answer(status: u16, body: serde_json::Value) -> Response {
    Response::builder().status(status).body(Body::from(body.to_string())).expect("response")
}

async fn give_token(State(issuer): State<Arc<Issuer>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.expect("body").to_bytes();
    let form = String::from_utf8(body.to_vec()).expect("text");
    let query = parts.uri.query().unwrap_or_default();
    issuer.asked.lock().expect("lock").push(format!("{} {query}{form}", parts.method));
    let authorization = parts.headers.get("authorization").and_then(|v| v.to_str().ok()).unwrap_or("");
    let by_refresh = form.contains("grant_type=refresh_token");
    let known = match by_refresh {
        true => form.contains("refresh_token=keep%20me"),
        false => authorization == format!("Basic {}", STANDARD.encode("user:geheim")),
    };
    if !known && (by_refresh || !authorization.is_empty()) {
        return answer(401, json!({"details": "incorrect username or password"}));
    }
    let decoded = percent_encoding::percent_decode_str(if by_refresh { &form } else { query });
    let decoded = decoded.decode_utf8().expect("text").into_owned();
    let scopes = decoded.split('&').filter_map(|pair| pair.strip_prefix("scope="));
    let scopes = scopes.flat_map(|scopes| scopes.split(' ')).filter_map(|scope| {
        let (name, actions) = scope.strip_prefix("repository:")?.rsplit_once(':')?;
        let actions: Vec<&str> = actions
            .split(',')
            .filter(|action| known || name.starts_with("public/") && *action == "pull")
            .collect();
        Some(json!({"type": "repository", "name": name, "actions": actions}))
    });
    let token = issuer.token(scopes.collect());
    let mut given = json!({"token": token, "expires_in": issuer.life});
    if query.contains("offline_token=true") {
        given["refresh_token"] = json!("keep me");
    }
    answer(200, given)
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_got_for_what_is_done_and_an_identity_token_stands_for_the_password() {
    let (issuer, front) = Issuer::start(300).await;
    let server = Server::start_behind(Options::default(), front).await;
    let host = server.address.to_string();
    let registries = Default::default();
    let error = login(&host, &wrong(), &registries).await.expect_err("wrong password").to_string();
    assert!(error.contains("401 Unauthorized") && error.contains("incorrect username"), "{error}");
    let identity = login(&host, &user().expect("user"), &registries).await.expect("login");
    assert_eq!(identity.as_deref(), Some("keep me"));

    let name = server.reference("team/app:1");
    let (_from, first) = made(&name).await;
    push(&first, &name, user()).await.expect("push by password");
    let asked = issuer.asked();
    let scope = "GET service=gantry%20test&scope=repository%3Ateam%2Fapp%3Apull%2Cpush&account=user";
    assert_eq!(asked[asked.len() - 1], scope, "one token for the whole push");
    let (_to, second) = store();
    let auth = RegistryAuth { identity_token: "keep me".to_owned(), ..RegistryAuth::default() };
    pull(&second, &name, Some(auth.clone())).await.expect("pull by identity token");
    let asked = issuer.asked();
    let last = &asked[asked.len() - 1];
    assert!(
        last.starts_with("POST grant_type=refresh_token&service=gantry%20test&client_id=gantry"),
        "{last}"
    );
    let stale = RegistryAuth { identity_token: "old".to_owned(), ..RegistryAuth::default() };
    let error = pull(&second, &name, Some(stale)).await.expect_err("stale").chain();
    assert!(error.contains("pull access denied for team/app") && error.contains("incorrect"), "{error}");

    let (_to, third) = store();
    let error = pull(&third, &name, None).await.expect_err("anonymous").chain();
    assert!(error.contains("pull access denied") && error.contains("authentication required"), "{error}");
    let public = server.reference("public/app:1");
    first.tag(&name.to_string(), &public).expect("tag");
    assert!(push(&first, &public, None).await.is_err());
    push(&first, &public, user()).await.expect("push, with a mount from the other repository");
    pull(&third, &public, None).await.expect("anonymous pull");
}

/// Tokens that were seen.
type Seen = Arc<Mutex<HashSet<String>>>;

/// Between a client and a registry: each token is taken once.
async fn once_only(State((server, seen)): State<(Arc<Server>, Seen)>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.expect("body").to_bytes();
    let mut headers: Vec<(&str, &str)> = Vec::new();
    for name in ["authorization", "accept", "content-type"] {
        headers.extend(parts.headers.get(name).and_then(|value| Some((name, value.to_str().ok()?))));
    }
    let token = headers.first().filter(|(name, _)| *name == "authorization").map(|(_, value)| *value);
    let used = token.is_some_and(|token| !seen.lock().expect("lock").insert(token.to_owned()));
    if used {
        headers.remove(0);
    }
    let path = parts.uri.path_and_query().expect("path").as_str();
    forwarded(server.send(parts.method.as_str(), path, &headers, &body).await)
}

fn forwarded(found: support::Answer) -> Response {
    let mut response = Response::builder().status(found.status);
    for (name, value) in &found.headers {
        response = response.header(name, value);
    }
    response.body(Body::from(found.body)).expect("response")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_no_longer_taken_is_renewed() {
    let (issuer, front) = Issuer::start(300).await;
    let server = Arc::new(Server::start_behind(Options::default(), front).await);
    let name = server.reference("team/app:1");
    let (_from, first) = made(&name).await;
    push(&first, &name, user()).await.expect("push");
    let before = issuer.asked().len();
    let seen = Seen::default();
    let address = serve(axum::Router::new().fallback(once_only).with_state((server, seen))).await;
    let (_to, second) = store();
    let name = Reference::parse(&format!("{address}/team/app:1")).expect("reference");
    pull(&second, &name, user()).await.expect("pull");
    assert_eq!(issuer.asked().len(), before + 3, "manifest, configuration and layer");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_renewed_before_its_end() {
    let (issuer, front) = Issuer::start(1).await;
    let server = Server::start_behind(Options::default(), front).await;
    let name = server.reference("team/app:1");
    let (_from, first) = made(&name).await;
    push(&first, &name, user()).await.expect("push");
    let slow = Arc::new(server);
    let address = serve(axum::Router::new().fallback(slowly).with_state(Arc::clone(&slow))).await;
    let before = issuer.asked().len();
    let (_to, second) = store();
    let name = Reference::parse(&format!("{address}/team/app:1")).expect("reference");
    pull(&second, &name, user()).await.expect("pull");
    assert!(issuer.asked().len() >= before + 3, "{:?}", issuer.asked());
}

/// Answers after the token's half life.
async fn slowly(State(server): State<Arc<Server>>, request: Request) -> Response {
    let headers: Vec<(&str, &str)> = ["authorization", "accept"]
        .iter()
        .filter_map(|name| Some((*name, request.headers().get(*name)?.to_str().ok()?)))
        .collect();
    let path = request.uri().path_and_query().expect("path").as_str();
    let found = server.send(request.method().as_str(), path, &headers, &[]).await;
    tokio::time::sleep(std::time::Duration::from_millis(600)).await;
    forwarded(found)
}

/// A registry that keeps its blobs elsewhere.
#[derive(Clone)]
struct Redirecting {
    server: Arc<Server>,
    storage: SocketAddr,
}

async fn redirect(State(here): State<Redirecting>, request: Request) -> Response {
    let path = request.uri().path_and_query().expect("path").as_str();
    if path.contains("/blobs/") && request.headers().contains_key("authorization") {
        let location = format!("http://{}{path}?signature=x", here.storage);
        return Response::builder()
            .status(307)
            .header("Location", location)
            .body(Body::empty())
            .expect("response");
    }
    let headers: Vec<(&str, &str)> = ["authorization", "accept"]
        .iter()
        .filter_map(|name| Some((*name, request.headers().get(*name)?.to_str().ok()?)))
        .collect();
    forwarded(here.server.send(request.method().as_str(), path, &headers, &[]).await)
}

/// A storage that records what it is shown; it may ask for credentials itself.
#[derive(Clone)]
struct Storage {
    server: Arc<Server>,
    seen: Arc<Mutex<Vec<String>>>,
    challenge: Option<String>,
}

async fn stored(State(storage): State<Storage>, request: Request) -> Response {
    storage.seen.lock().expect("lock").push(format!("{} {:?}", request.uri(), request.headers()));
    if let Some(challenge) = &storage.challenge {
        let response = Response::builder().status(401).header("WWW-Authenticate", challenge);
        return response.body(Body::empty()).expect("response");
    }
    let basic = format!("Basic {}", STANDARD.encode("user:geheim"));
    let headers = [("Authorization", basic.as_str())];
    forwarded(storage.server.send("GET", request.uri().path(), &headers, &[]).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storage_behind_a_redirect_sees_no_credentials_and_gets_none() {
    let server = Arc::new(with_users(false).await);
    let name = server.reference("team/app:1");
    let (_from, first) = made(&name).await;
    push(&first, &name, user()).await.expect("push");
    let (issuer, _) = Issuer::start(300).await;
    let thief = serve(axum::Router::new().fallback(give_token).with_state(Arc::clone(&issuer))).await;
    for challenge in
        [None, Some("Basic realm=\"x\"".to_owned()), Some(format!("Bearer realm=\"http://{thief}/\""))]
    {
        let refused = challenge.is_some();
        let seen = Arc::default();
        let storage = Storage { server: Arc::clone(&server), seen: Arc::clone(&seen), challenge };
        let storage = serve(axum::Router::new().fallback(stored).with_state(storage)).await;
        let front = Redirecting { server: Arc::clone(&server), storage };
        let front = serve(axum::Router::new().fallback(redirect).with_state(front)).await;
        let (_to, second) = store();
        let name = Reference::parse(&format!("{front}/team/app:1")).expect("reference");
        let pulled = pull(&second, &name, user()).await;
        assert_eq!(pulled.is_err(), refused, "{pulled:?}");
        let seen: Vec<String> = std::mem::take(&mut *seen.lock().expect("lock"));
        assert!(seen.iter().any(|request| request.contains("signature=x")), "{seen:?}");
        assert!(seen.iter().all(|request| !request.contains("authorization")), "{seen:?}");
    }
    assert!(issuer.asked().is_empty(), "who is redirected to can't ask for the password");
}
