//! The daemon's TLS port: who is believed, and who is let in.

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

/// A CA, a server's and a client's certificate, as files `ca.pem`, `cert.pem`, `key.pem`, `server.pem`, `server-key.pem`.
fn write_certificates(folder: &Path) {
    let mut params = CertificateParams::new(Vec::new()).expect("parameters");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_key = KeyPair::generate().expect("key");
    let ca = params.self_signed(&ca_key).expect("CA");
    let issuer = Issuer::new(params, ca_key);
    let write = |name: &str, text: String| std::fs::write(folder.join(name), text).expect("write");
    write("ca.pem", ca.pem());
    for (certificate, key_file) in [("server.pem", "server-key.pem"), ("cert.pem", "key.pem")] {
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.subject_alt_names.push(SanType::IpAddress(Ipv4Addr::LOCALHOST.into()));
        let key = KeyPair::generate().expect("key");
        write(certificate, params.signed_by(&key, &issuer).expect("certificate").pem());
        write(key_file, key.serialize_pem());
    }
}

/// A server that wants a client's certificate and answers every request with an empty list.
fn serve(folder: &Path) -> u16 {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(folder.join("ca.pem")).expect("CA")).expect("root");
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .expect("verifier");
    let chain = vec![CertificateDer::from_pem_file(folder.join("server.pem")).expect("certificate")];
    let key = PrivateKeyDer::from_pem_file(folder.join("server-key.pem")).expect("key");
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .expect("configuration");
    let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
    let port = listener.local_addr().expect("address").port();
    let config = Arc::new(config);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let connection = ServerConnection::new(config.clone()).expect("connection");
            let mut stream = StreamOwned::new(connection, stream);
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && matches!(stream.read(&mut byte), Ok(1)) {
                head.push(byte[0]);
            }
            let _ = stream.write_all(
                b"HTTP/1.1 200 OK\r\nApi-Version: 1.51\r\nConnection: close\r\nContent-Length: 2\r\n\r\n[]",
            );
            stream.conn.send_close_notify();
            let _ = stream.flush();
        }
    });
    port
}

fn ps(port: u16, flags: &[String]) -> ExitCode {
    let host = format!("tcp://127.0.0.1:{port}");
    let words = ["gantry", "-H", &host]
        .map(String::from)
        .into_iter()
        .chain(flags.iter().cloned())
        .chain(["ps".into()]);
    gantry_cli::main(words.map(Into::into))
}

#[test]
fn both_sides_of_a_tls_connection_are_verified() {
    let folder = tempfile::tempdir().expect("folder");
    let stranger = tempfile::tempdir().expect("folder");
    write_certificates(folder.path());
    write_certificates(stranger.path());
    let port = serve(folder.path());
    let flag = |name: &str, folder: &Path, file: &str| format!("--{name}={}", folder.join(file).display());
    let identity = |of: &Path| [flag("tlscert", of, "cert.pem"), flag("tlskey", of, "key.pem")];
    let verify = |ca: &Path, own: &Path| {
        let mut flags = vec!["--tlsverify".to_owned(), flag("tlscacert", ca, "ca.pem")];
        flags.extend(identity(own));
        flags
    };
    assert_eq!(ps(port, &verify(folder.path(), folder.path())), ExitCode::SUCCESS);
    assert_eq!(
        ps(port, &verify(stranger.path(), folder.path())),
        ExitCode::from(1),
        "a foreign CA is not believed"
    );
    assert_eq!(
        ps(port, &verify(folder.path(), stranger.path())),
        ExitCode::from(1),
        "a foreign client is not let in"
    );
    let mut unverified = vec!["--tls".to_owned()];
    unverified.extend(identity(folder.path()));
    assert_eq!(ps(port, &unverified), ExitCode::SUCCESS);
    assert_eq!(ps(port, &[]), ExitCode::from(1), "plain text is no TLS");
    let missing = vec!["--tlsverify".to_owned(), flag("tlscacert", folder.path(), "none.pem")];
    assert_eq!(ps(port, &missing), ExitCode::from(1));
}
