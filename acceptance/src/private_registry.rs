//! A private registry: `gantry registry` on the first node, with a certificate of its own authority and with users.

use crate::nodes::{Nodes, gantry};
use crate::wait;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Password of the user `anna`.
pub const PASSWORD: &str = "geheim";
/// As `htpasswd -nbB -C 4 anna geheim` prints it.
const ANNA: &str = "anna:$2y$04$FfWUM.Ad0jBijjqTR9BJgOTBE/AECSkEPGQ48Q5j4ZppYX3x0tAA6\n";
/// The same for `bert` with the password `anders`.
const BERT: &str = "bert:$2y$04$HcTd0YHF0wGPL7psgrureemnCqow.xrjqavxFfCRegMSKIqxs7vbS\n";

/// The registry while it runs; ended on drop.
pub struct PrivateRegistry {
    /// `address:port`.
    pub host: String,
    child: Child,
    authority: String,
    trusted: PathBuf,
    users: PathBuf,
}

impl PrivateRegistry {
    /// Starts it on a port of the first node. Nobody trusts its authority yet.
    pub fn start(nodes: &Nodes, port: u16) -> Self {
        let address = nodes.registry();
        let address = address.rsplit_once(':').map_or(address.as_str(), |(address, _)| address).to_owned();
        let host = format!("{address}:{port}");
        let folder = nodes.path(&format!("registry-{port}"));
        std::fs::create_dir_all(&folder).unwrap_or_else(|e| panic!("make {}: {e}", folder.display()));
        let write = |name: &str, text: &str| {
            let path = folder.join(name);
            std::fs::write(&path, text).unwrap_or_else(|e| panic!("write {}: {e}", path.display()));
            path
        };
        let made = certificates(&address).unwrap_or_else(|e| panic!("make certificates: {e}"));
        let (certificate, key) = (write("tls.crt", &made.certificate), write("tls.key", &made.key));
        let users = write("users", ANNA);
        let log = folder.join("log");
        let output = std::fs::File::create(&log).unwrap_or_else(|e| panic!("make {}: {e}", log.display()));
        let mut command = Command::new(gantry());
        command.args(["registry", "--listen", &host, "--data"]).arg(folder.join("data"));
        command.arg("--tls-cert").arg(certificate).arg("--tls-key").arg(key).arg("--htpasswd").arg(&users);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(output);
        let child = nodes.spawn_on(1, command);
        let registry =
            Self { trusted: nodes.certificates().join(&host), host, child, authority: made.authority, users };
        wait::until("the private registry is ready", Duration::from_secs(20), || {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            wait::that(text.contains("registry is ready"), text)
        });
        registry
    }

    /// Puts its authority where the daemons look for it.
    pub fn trust(&self) {
        let path = self.trusted.join("ca.crt");
        std::fs::create_dir_all(&self.trusted)
            .and_then(|()| std::fs::write(&path, &self.authority))
            .unwrap_or_else(|e| panic!("write {}: {e}", path.display()));
    }

    /// Replaces anna by bert, whose password is `anders`.
    pub fn exchange_users(&self) {
        std::fs::write(&self.users, BERT).unwrap_or_else(|e| panic!("write {}: {e}", self.users.display()));
    }

    /// The name of an image there.
    pub fn image(&self, rest: &str) -> String {
        format!("{}/{rest}", self.host)
    }
}

impl Drop for PrivateRegistry {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _ended = self.child.wait();
        // The next case that starts one makes another authority.
        let _ = std::fs::remove_dir_all(&self.trusted);
    }
}

struct Made {
    authority: String,
    certificate: String,
    key: String,
}

fn certificates(address: &str) -> Result<Made, rcgen::Error> {
    let mut params = CertificateParams::new(Vec::<String>::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, "private authority");
    let key = KeyPair::generate()?;
    let authority = params.self_signed(&key)?.pem();
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate()?;
    let signed = CertificateParams::new(vec![address.to_owned()])?.signed_by(&key, &issuer)?;
    Ok(Made { authority, certificate: signed.pem(), key: key.serialize_pem() })
}
