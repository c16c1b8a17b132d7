//! The certificate authority of a cluster: made at the first start, reused afterwards.
//!
//! Here: the authority's key and certificate, server and client certificates signed by it, kubeconfig files.
//! Not here: the use of certificates on connections ([`crate::tls`]).
//!
//! All keys are ECDSA P-256. A directory holds `ca.crt`, `ca.key`, and a pair `NAME.crt`, `NAME.key` per
//! certificate. Pairs are renewed when they near their end or when their names change; the authority is
//! renewed with its old key, so that certificates signed before stay good. Start at [`Pki::open`].

use std::fs;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use crate::limits::{CERTIFICATE_CA_DAYS, CERTIFICATE_LEAF_DAYS, CERTIFICATE_RENEW_BEFORE_DAYS};
use crate::subject::exchange;

const CA_NAME: &str = "portolan-ca";

/// Why certificates could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file of the directory could not be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file is there but does not hold what it should.
    #[error("{path} is damaged ({detail}); remove it to have it made again")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// A name that cannot stand in a certificate.
    #[error("certificate for {name:?} could not be made: {source}")]
    Make {
        /// The subject.
        name: String,
        /// What the certificate library said.
        source: rcgen::Error,
    },
}

/// A certificate and its key, both PEM.
#[derive(Clone)]
pub struct Certified {
    /// The certificate.
    pub cert_pem: String,
    /// The private key, PKCS #8.
    pub key_pem: String,
}

/// Who a client certificate speaks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Name of the files in the directory.
    pub file: String,
    /// User name: the certificate's common name.
    pub user: String,
    /// Groups: the certificate's organizations.
    pub groups: Vec<String>,
}

impl Identity {
    fn new(file: &str, user: &str, groups: &[&str]) -> Self {
        Self {
            file: file.into(),
            user: user.into(),
            groups: groups.iter().map(ToString::to_string).collect(),
        }
    }

    /// The administrator: may do everything.
    pub fn admin() -> Self {
        Self::new("admin", "kubernetes-admin", &["system:masters"])
    }

    /// The node agent of one node.
    pub fn node(name: &str) -> Self {
        Self::new(&format!("node-{name}"), &format!("system:node:{name}"), &["system:nodes"])
    }

    /// The controllers.
    pub fn controllers() -> Self {
        Self::new("controllers", "system:kube-controller-manager", &[])
    }

    /// An API server towards node agents.
    pub fn kubelet_client() -> Self {
        Self::new("apiserver-kubelet-client", "kube-apiserver-kubelet-client", &[])
    }

    /// The node's name, if this is a node agent. Agents serve as well, under that name.
    fn node_name(&self) -> Option<&str> {
        let name = self.user.strip_prefix("system:node:")?;
        self.groups.iter().any(|group| group == "system:nodes").then_some(name)
    }

    /// The node proxy.
    pub fn proxy() -> Self {
        Self::new("proxy", "system:kube-proxy", &[])
    }
}

/// The authority and its directory.
pub struct Pki {
    dir: PathBuf,
    ca_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Pki {
    /// Opens the authority under `dir`, making directory, key and certificate as needed.
    pub fn open(dir: &Path) -> Result<Self, PkiError> {
        fs::create_dir_all(dir).map_err(|source| PkiError::File { path: dir.into(), source })?;
        let key_path = dir.join("ca.key");
        let key = if let Some(pem) = read(&key_path)? {
            KeyPair::from_pem(&pem).map_err(|e| damaged(&key_path, &e))?
        } else {
            let key = KeyPair::generate().map_err(|source| make_error(CA_NAME, source))?;
            write_private(&key_path, &key.serialize_pem())?;
            key
        };
        let path = dir.join("ca.crt");
        let kept = match read(&path)? {
            Some(pem) if days_left(&path, &pem)? > CERTIFICATE_RENEW_BEFORE_DAYS => Some(pem),
            _ => None,
        };
        let ca_pem = if let Some(pem) = kept {
            pem
        } else {
            let made = ca_params().self_signed(&key).map_err(|source| make_error(CA_NAME, source))?;
            write_private(&path, &made.pem())?;
            made.pem()
        };
        Ok(Self { dir: dir.into(), ca_pem, issuer: Issuer::new(ca_params(), key) })
    }

    /// The authority's certificate, PEM.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// The server certificate for every name and address clients may use. The names of the `kubernetes`
    /// Service and of the loopback are always among them.
    pub fn server(&self, names: &[String], addresses: &[IpAddr]) -> Result<Certified, PkiError> {
        let mut dns: Vec<String> = [
            "localhost",
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
        ]
        .map(String::from)
        .to_vec();
        dns.extend(names.iter().cloned());
        let mut ips = vec![IpAddr::from([127, 0, 0, 1]), IpAddr::from([0u16, 0, 0, 0, 0, 0, 0, 1])];
        ips.extend(addresses.iter().copied());
        dedup(&mut dns);
        dedup(&mut ips);
        self.pair(
            "server",
            |key| {
                let mut params = leaf_params("kube-apiserver", &[], ExtendedKeyUsagePurpose::ServerAuth);
                for name in &dns {
                    params.subject_alt_names.push(SanType::DnsName(name.as_str().try_into()?));
                }
                params.subject_alt_names.extend(ips.iter().map(|ip| SanType::IpAddress(*ip)));
                Ok(params.signed_by(key, &self.issuer)?.pem())
            },
            |cert| covers(cert, &dns, &ips),
        )
    }

    /// The private keys of service account tokens, PEM: `sa.key`, made if it is missing, signs; others named `sa-*.key`
    /// are trusted besides, such as the one before a change of keys.
    pub fn token_keys(&self) -> Result<Vec<String>, PkiError> {
        let path = self.dir.join("sa.key");
        let first = if let Some(pem) = read(&path)? {
            pem
        } else {
            let key = KeyPair::generate().map_err(|source| make_error("sa", source))?;
            write_private(&path, &key.serialize_pem())?;
            key.serialize_pem()
        };
        let list =
            fs::read_dir(&self.dir).map_err(|source| PkiError::File { path: self.dir.clone(), source })?;
        let is_other = |name: &str| name.starts_with("sa-") && name.strip_suffix(".key").is_some();
        let mut names: Vec<String> =
            list.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.retain(|name| is_other(name));
        names.sort();
        let mut keys = vec![first];
        for name in names {
            keys.extend(read(&self.dir.join(name))?);
        }
        Ok(keys)
    }

    /// The client certificate of `identity`. That of a node agent is good for serving under the node's name as well.
    pub fn client(&self, identity: &Identity) -> Result<Certified, PkiError> {
        self.pair(
            &identity.file,
            |key| {
                let usage = ExtendedKeyUsagePurpose::ClientAuth;
                let mut params = leaf_params(&identity.user, &identity.groups, usage);
                if let Some(name) = identity.node_name() {
                    params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
                    params.subject_alt_names.push(SanType::DnsName(name.try_into()?));
                }
                let made = params.signed_by(key, &self.issuer)?;
                if identity.groups.len() < 2 {
                    return Ok(made.pem());
                }
                exchange(made.der(), &identity.user, &identity.groups, self.issuer.key())
            },
            |cert| {
                let subject = subject(cert);
                let serves = identity.node_name().is_none_or(|name| covers(cert, &[name.to_owned()], &[]));
                subject.0.as_deref() == Some(&identity.user) && subject.1 == identity.groups && serves
            },
        )
    }

    /// A kubeconfig for `identity` against `server` (`https://host:port`), everything embedded.
    pub fn kubeconfig(&self, server: &str, identity: &Identity) -> Result<String, PkiError> {
        let client = self.client(identity)?;
        Ok(format!(
            "apiVersion: v1\nkind: Config\nclusters:\n- name: portolan\n  cluster:\n    server: {server}\n    \
             certificate-authority-data: {ca}\nusers:\n- name: {user}\n  user:\n    client-certificate-data: \
             {cert}\n    client-key-data: {key}\ncontexts:\n- name: portolan\n  context:\n    cluster: portolan\n    \
             user: {user}\ncurrent-context: portolan\npreferences: {{}}\n",
            ca = BASE64.encode(&self.ca_pem),
            user = serde_json::Value::from(identity.user.as_str()),
            cert = BASE64.encode(&client.cert_pem),
            key = BASE64.encode(&client.key_pem),
        ))
    }

    /// Writes [`Pki::kubeconfig`] to `path`, readable by its owner only.
    pub fn write_kubeconfig(&self, path: &Path, server: &str, identity: &Identity) -> Result<(), PkiError> {
        write_private(path, &self.kubeconfig(server, identity)?)
    }

    /// Reads the pair `name`, or makes it when it is missing, about to end, not ours, or not as wanted.
    fn pair(
        &self,
        name: &str,
        make: impl FnOnce(&KeyPair) -> Result<String, rcgen::Error>,
        as_wanted: impl FnOnce(&X509Certificate<'_>) -> bool,
    ) -> Result<Certified, PkiError> {
        let (cert_path, key_path) =
            (self.dir.join(format!("{name}.crt")), self.dir.join(format!("{name}.key")));
        if let (Some(cert_pem), Some(key_pem)) = (read(&cert_path)?, read(&key_path)?)
            && self.still_good(&cert_pem, as_wanted)
        {
            return Ok(Certified { cert_pem, key_pem });
        }
        let key = KeyPair::generate().map_err(|source| make_error(name, source))?;
        let cert_pem = make(&key).map_err(|source| make_error(name, source))?;
        let made = Certified { cert_pem, key_pem: key.serialize_pem() };
        write_private(&key_path, &made.key_pem)?;
        write_private(&cert_path, &made.cert_pem)?;
        Ok(made)
    }

    fn still_good(&self, pem: &str, as_wanted: impl FnOnce(&X509Certificate<'_>) -> bool) -> bool {
        let (Some(der), Some(ca)) = (pem_der(pem), pem_der(&self.ca_pem)) else { return false };
        let (Ok((_, cert)), Ok((_, ca))) = (X509Certificate::from_der(&der), X509Certificate::from_der(&ca))
        else {
            return false;
        };
        cert.verify_signature(Some(ca.public_key())).is_ok()
            && seconds_left(&cert) > CERTIFICATE_RENEW_BEFORE_DAYS * 86_400
            && as_wanted(&cert)
    }
}

/// Common name and organizations of a certificate.
pub(crate) fn subject(cert: &X509Certificate<'_>) -> (Option<String>, Vec<String>) {
    let text = |attribute: &x509_parser::x509::AttributeTypeAndValue<'_>| {
        attribute.as_str().ok().map(ToString::to_string)
    };
    let name = cert.subject().iter_common_name().next().and_then(text);
    (name, cert.subject().iter_organization().filter_map(text).collect())
}

fn covers(cert: &X509Certificate<'_>, dns: &[String], ips: &[IpAddr]) -> bool {
    let Ok(Some(names)) = cert.subject_alternative_name() else { return false };
    let names = &names.value.general_names;
    dns.iter().all(|want| names.iter().any(|n| matches!(n, GeneralName::DNSName(n) if n == want)))
        && ips.iter().all(|want| {
            let octets = match want {
                IpAddr::V4(ip) => ip.octets().to_vec(),
                IpAddr::V6(ip) => ip.octets().to_vec(),
            };
            names.iter().any(|n| matches!(n, GeneralName::IPAddress(n) if *n == octets))
        })
}

fn ca_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, CA_NAME);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages =
        vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    set_life(&mut params, CERTIFICATE_CA_DAYS);
    params
}

fn leaf_params(user: &str, groups: &[String], usage: ExtendedKeyUsagePurpose) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    // The library keeps one attribute of a type: several groups are put in afterwards, by `subject`.
    if let Some(group) = groups.first() {
        params.distinguished_name.push(DnType::OrganizationName, group.as_str());
    }
    params.distinguished_name.push(DnType::CommonName, user);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    params.extended_key_usages = vec![usage];
    params.use_authority_key_identifier_extension = true;
    set_life(&mut params, CERTIFICATE_LEAF_DAYS);
    params
}

fn set_life(params: &mut CertificateParams, days: i64) {
    let midnight = |offset_days: i64| {
        let seconds = jiff::Timestamp::now().as_second() + offset_days * 86_400;
        let date = jiff::Timestamp::from_second(seconds)
            .unwrap_or(jiff::Timestamp::UNIX_EPOCH)
            .to_zoned(jiff::tz::TimeZone::UTC)
            .date();
        rcgen::date_time_ymd(i32::from(date.year()), date.month() as u8, date.day() as u8)
    };
    // A day back: clocks of clients may be behind ours.
    params.not_before = midnight(-1);
    params.not_after = midnight(days);
    let mut serial = rand::random::<[u8; 16]>();
    // Positive and without leading zeros, as RFC 5280 section 4.1.2.2 wants.
    serial[0] = (serial[0] & 0x7f) | 0x40;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
}

fn days_left(path: &Path, pem: &str) -> Result<i64, PkiError> {
    let der = pem_der(pem).ok_or_else(|| damaged(path, &"not PEM"))?;
    let (_, cert) = X509Certificate::from_der(&der).map_err(|e| damaged(path, &e))?;
    Ok(seconds_left(&cert) / 86_400)
}

fn seconds_left(cert: &X509Certificate<'_>) -> i64 {
    cert.validity().not_after.timestamp() - jiff::Timestamp::now().as_second()
}

fn pem_der(pem: &str) -> Option<Vec<u8>> {
    x509_parser::pem::parse_x509_pem(pem.as_bytes()).ok().map(|(_, pem)| pem.contents)
}

fn dedup<T: PartialEq>(list: &mut Vec<T>) {
    let mut at = 0;
    while at < list.len() {
        if list[..at].contains(&list[at]) {
            list.remove(at);
        } else {
            at += 1;
        }
    }
}

fn damaged(path: &Path, detail: &dyn std::fmt::Display) -> PkiError {
    PkiError::Damaged { path: path.into(), detail: detail.to_string() }
}

fn make_error(name: &str, source: rcgen::Error) -> PkiError {
    PkiError::Make { name: name.into(), source }
}

fn read(path: &Path) -> Result<Option<String>, PkiError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(PkiError::File { path: path.into(), source }),
    }
}

/// Writes a file whole or not at all, readable by its owner only.
fn write_private(path: &Path, text: &str) -> Result<(), PkiError> {
    let fail = |source| PkiError::File { path: path.into(), source };
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".new");
    let temporary = path.with_file_name(name);
    let _ = fs::remove_file(&temporary);
    let mut file =
        fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary).map_err(fail)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(fail)?;
    fs::rename(&temporary, path).map_err(fail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn parsed(pem: &str) -> (Option<String>, Vec<String>) {
        let der = pem_der(pem).unwrap();
        let (_, cert) = X509Certificate::from_der(&der).unwrap();
        subject(&cert)
    }

    #[test]
    fn every_group_is_in_the_certificate_which_the_authority_signed() {
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::open(dir.path()).unwrap();
        for count in [0, 1, 2, 40] {
            let groups: Vec<String> = (0..count).map(|n| format!("group-{n}-ä")).collect();
            let identity =
                Identity { file: format!("c{count}"), user: "jane".into(), groups: groups.clone() };
            let made = pki.client(&identity).unwrap();
            assert_eq!(parsed(&made.cert_pem), (Some("jane".into()), groups));
            assert!(pki.still_good(&made.cert_pem, |_| true), "{count}");
            assert_eq!(pki.client(&identity).unwrap().cert_pem, made.cert_pem, "it is used again");
        }
    }

    #[test]
    fn token_keys_are_made_once_and_older_ones_stay_trusted() {
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::open(dir.path()).unwrap();
        let first = pki.token_keys().unwrap();
        assert_eq!((first.len(), pki.token_keys().unwrap()), (1, first.clone()));
        let path = dir.path().join("sa.key");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::rename(&path, dir.path().join("sa-old.key")).unwrap();
        let both = pki.token_keys().unwrap();
        assert_eq!((both.len(), &both[1]), (2, &first[0]));
        assert_ne!(both[0], first[0]);
    }

    #[test]
    fn a_second_start_reuses_everything() {
        let dir = tempfile::tempdir().unwrap();
        let first = Pki::open(dir.path()).unwrap();
        let server = first.server(&[], &["10.96.0.1".parse().unwrap()]).unwrap();
        let admin = first.client(&Identity::admin()).unwrap();
        let again = Pki::open(dir.path()).unwrap();
        assert_eq!(first.ca_pem(), again.ca_pem());
        assert_eq!(server.cert_pem, again.server(&[], &["10.96.0.1".parse().unwrap()]).unwrap().cert_pem);
        assert_eq!(admin.cert_pem, again.client(&Identity::admin()).unwrap().cert_pem);
    }

    #[test]
    fn a_new_address_makes_a_new_server_certificate() {
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::open(dir.path()).unwrap();
        let before = pki.server(&[], &[]).unwrap();
        let after = pki.server(&["portolan.example".into()], &["192.0.2.1".parse().unwrap()]).unwrap();
        assert_ne!(before.cert_pem, after.cert_pem);
        let der = pem_der(&after.cert_pem).unwrap();
        let (_, cert) = X509Certificate::from_der(&der).unwrap();
        let dns = ["localhost", "kubernetes.default.svc.cluster.local", "portolan.example"].map(String::from);
        assert!(covers(&cert, &dns, &["127.0.0.1".parse().unwrap(), "192.0.2.1".parse().unwrap()]));
        assert!(!covers(&cert, &[], &["192.0.2.2".parse().unwrap()]));
    }

    #[test]
    fn a_lost_authority_renews_what_it_signed() {
        let dir = tempfile::tempdir().unwrap();
        let before = Pki::open(dir.path()).unwrap().client(&Identity::admin()).unwrap();
        fs::remove_file(dir.path().join("ca.key")).unwrap();
        fs::remove_file(dir.path().join("ca.crt")).unwrap();
        let after = Pki::open(dir.path()).unwrap().client(&Identity::admin()).unwrap();
        assert_ne!(before.cert_pem, after.cert_pem);
    }

    #[test]
    fn client_certificates_carry_user_and_group() {
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::open(dir.path()).unwrap();
        let node = pki.client(&Identity::node("n1")).unwrap();
        assert_eq!(parsed(&node.cert_pem), (Some("system:node:n1".into()), vec!["system:nodes".into()]));
    }

    #[test]
    fn kubeconfig_is_private_yaml_with_embedded_data() {
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::open(dir.path()).unwrap();
        let path = dir.path().join("kubeconfig");
        pki.write_kubeconfig(&path, "https://127.0.0.1:6443", &Identity::admin()).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let value: serde_json::Value = serde_saphyr::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        assert_eq!(value["clusters"][0]["cluster"]["server"], "https://127.0.0.1:6443");
        let ca = value["clusters"][0]["cluster"]["certificate-authority-data"].as_str().unwrap();
        assert_eq!(BASE64.decode(ca).unwrap(), pki.ca_pem().as_bytes());
    }

    #[test]
    fn a_damaged_key_is_named() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("ca.key"), "nonsense").unwrap();
        let error = Pki::open(dir.path()).err().unwrap().to_string();
        assert!(error.contains("ca.key is damaged"), "{error}");
    }
}
