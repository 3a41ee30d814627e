//! A private authority, certificates by it, and a folder of certificates as administrators make it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use gantry_images::Registries;
use gantry_registry::Tls;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

/// An authority with a folder for its files.
pub struct Authority {
    pub folder: TempDir,
    pub pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::<String>::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, "test authority");
        let key = KeyPair::generate().expect("key");
        let pem = params.self_signed(&key).expect("certificate").pem();
        Authority { folder: super::scratch(), pem, issuer: Issuer::new(params, key) }
    }

    /// Files with a certificate for these names and its key.
    pub fn certificate(&self, names: &[&str]) -> (PathBuf, PathBuf) {
        self.certificate_of(CertificateParams::new(texts(names)).expect("parameters"))
    }

    pub fn certificate_of(&self, params: CertificateParams) -> (PathBuf, PathBuf) {
        let key = KeyPair::generate().expect("key");
        let signed = params.signed_by(&key, &self.issuer).expect("certificate");
        self.write(&signed.pem(), &key)
    }

    fn write(&self, certificate: &str, key: &KeyPair) -> (PathBuf, PathBuf) {
        let count = std::fs::read_dir(self.folder.path()).expect("folder").count();
        let paths = ["pem", "key"].map(|extension| self.folder.path().join(format!("{count}.{extension}")));
        std::fs::write(&paths[0], certificate).expect("write");
        std::fs::write(&paths[1], key.serialize_pem()).expect("write");
        let [certificate, key] = paths;
        (certificate, key)
    }

    /// What `openssl req -x509` makes: an authority that is the server's certificate as well.
    pub fn its_own_authority(&self, names: &[&str]) -> (PathBuf, PathBuf) {
        let mut params = CertificateParams::new(texts(names)).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("key");
        let signed = params.self_signed(&key).expect("certificate");
        self.write(&signed.pem(), &key)
    }

    pub fn tls(&self, names: &[&str]) -> Tls {
        let (certificate, key) = self.certificate(names);
        Tls::open(&certificate, &key).expect("TLS")
    }
}

fn texts(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// A folder like /etc/docker/certs.d, and registries that are reached by it.
pub struct Trusted {
    pub folder: TempDir,
}

impl Trusted {
    pub fn new() -> Trusted {
        Trusted { folder: super::scratch() }
    }

    pub fn put(&self, host: &str, name: &str, content: &str) {
        let folder = self.folder.path().join(host);
        std::fs::create_dir_all(&folder).expect("folder");
        std::fs::write(folder.join(name), content).expect("write");
    }

    pub fn take_over(&self, host: &str, name: &str, from: &Path) {
        self.put(host, name, &std::fs::read_to_string(from).expect("read"));
    }

    pub fn registries(&self) -> Registries {
        Registries { certificates: vec![self.folder.path().to_owned()], ..Registries::default() }
    }

    pub fn shared(&self) -> Arc<Registries> {
        Arc::new(self.registries())
    }
}
