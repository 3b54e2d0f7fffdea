//! TLS of the compatible API's port: a certificate from files, or one of the server's own.
//!
//! The own one is made at the first start, with the names by which clients may come, and kept in the data directory: the
//! key for good, the certificate as long as it has these names. Clients are given the certificate to trust.
//!
//! HTTP/1.1 is all that is offered: C clients would choose h2, whose requests are framed and signed otherwise.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use rcgen::{CertificateParams, DnType, KeyPair};
use rustls::ServerConfig;
use rustls::client::verify_server_name;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::ParsedCertificate;
use tokio_rustls::TlsAcceptor;
use zeroize::Zeroizing;

use crate::credentials::replace_private;

/// Names in the data directory.
pub const CERT_NAME: &str = "kvs-cert.pem";
/// See [`CERT_NAME`].
pub const KEY_NAME: &str = "kvs-key.pem";

/// Files of a certificate, with those above it, and of its key; PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertFiles {
    /// The chain.
    pub cert: PathBuf,
    /// The key.
    pub key: PathBuf,
}

/// Takes connections with a certificate from files.
///
/// # Errors
/// If they do not read, or do not belong together.
pub(crate) fn from_files(files: &CertFiles) -> anyhow::Result<TlsAcceptor> {
    let key = PrivateKeyDer::from_pem_file(&files.key);
    let key = key.with_context(|| format!("read the key of TLS in {}", files.key.display()))?;
    acceptor(read_chain(&files.cert)?, key)
        .with_context(|| format!("{} and {}", files.cert.display(), files.key.display()))
}

/// Takes connections with a certificate of the server's own, for these names.
///
/// # Errors
/// If it cannot be read, made or kept.
pub(crate) fn own(data_dir: &Path, names: &[String]) -> anyhow::Result<TlsAcceptor> {
    let (cert, key) = (data_dir.join(CERT_NAME), data_dir.join(KEY_NAME));
    let pair = own_key(&key)?;
    let der = || PrivateKeyDer::Pkcs8(pair.serialize_der().into());
    if cert.exists() {
        let found = read_chain(&cert).ok().filter(|chain| chain.first().is_some_and(|cert| has_names(cert, names)));
        if let Some(Ok(good)) = found.map(|chain| acceptor(chain, der())) {
            return Ok(good);
        }
        tracing::warn!(file = %cert.display(), "a new certificate is made: clients have to be given it again");
    }
    let mut params = CertificateParams::new(names).context("names of the certificate")?;
    params.distinguished_name.push(DnType::CommonName, "vidar");
    let made = params.self_signed(&pair).context("make a certificate")?;
    replace_private(&cert, made.pem().as_bytes())?;
    tracing::info!(file = %cert.display(), ?names, "a certificate was made: clients need it to trust this server");
    acceptor(vec![made.der().clone()], der())
}

fn own_key(path: &Path) -> anyhow::Result<KeyPair> {
    if path.exists() {
        let text = std::fs::read_to_string(path).map(Zeroizing::new);
        let text = text.with_context(|| format!("read {}", path.display()))?;
        return KeyPair::from_pem(&text).with_context(|| format!("{}: no key", path.display()));
    }
    let pair = KeyPair::generate().context("make a key for TLS")?;
    replace_private(path, Zeroizing::new(pair.serialize_pem()).as_bytes())?;
    Ok(pair)
}

fn read_chain(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let context = || format!("read the certificate in {}", path.display());
    let chain = CertificateDer::pem_file_iter(path).with_context(context)?;
    let chain = chain.collect::<Result<Vec<_>, _>>().with_context(context)?;
    if chain.is_empty() {
        bail!("{}: no certificate", path.display());
    }
    Ok(chain)
}

fn has_names(cert: &CertificateDer<'_>, names: &[String]) -> bool {
    let Ok(cert) = ParsedCertificate::try_from(cert) else { return false };
    let has =
        |name: &String| ServerName::try_from(name.as_str()).is_ok_and(|name| verify_server_name(&cert, &name).is_ok());
    names.iter().all(has)
}

fn acceptor(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> anyhow::Result<TlsAcceptor> {
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let config = config.with_safe_default_protocol_versions()?.with_no_client_auth();
    let mut config = config.with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// By which clients may come: the host of a URL, and this machine.
pub(crate) fn names(url: &str, local: SocketAddr) -> Vec<String> {
    let host = url.parse::<http::Uri>().ok().and_then(|url| url.host().map(str::to_owned));
    let host = host.map(|host| host.trim_matches(['[', ']']).to_owned());
    let address = Some(local.ip()).filter(|ip| !ip.is_unspecified()).map(|ip| ip.to_string());
    let mut names: Vec<String> = host.into_iter().chain(address).collect();
    names.extend(["localhost", "127.0.0.1", "::1"].map(str::to_owned));
    names.sort();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn text(dir: &Path, name: &str) -> String {
        std::fs::read_to_string(dir.join(name)).unwrap()
    }

    #[test]
    fn names_are_those_of_the_url_and_of_this_machine() {
        let (all, one) = ("0.0.0.0:1".parse().unwrap(), "10.0.0.5:1".parse().unwrap());
        assert_eq!(names("http://127.0.0.1:1", all), ["127.0.0.1", "::1", "localhost"]);
        assert_eq!(names("https://h.example:8443", one), ["10.0.0.5", "127.0.0.1", "::1", "h.example", "localhost"]);
        assert_eq!(names("https://[fe80::1]:1", all), ["127.0.0.1", "::1", "fe80::1", "localhost"]);
    }

    #[test]
    fn the_own_certificate_is_kept_for_its_names_and_its_key_for_good() {
        let dir = tempfile::tempdir().unwrap();
        let name = |name: &str| vec!["localhost".to_owned(), name.to_owned()];
        own(dir.path(), &name("a.example")).unwrap();
        let (cert, key) = (text(dir.path(), CERT_NAME), text(dir.path(), KEY_NAME));
        let mode = std::fs::metadata(dir.path().join(KEY_NAME)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        own(dir.path(), &name("a.example")).unwrap();
        own(dir.path(), &["a.example".to_owned()]).unwrap();
        assert_eq!(text(dir.path(), CERT_NAME), cert, "it has the names");
        own(dir.path(), &name("b.example")).unwrap();
        assert_ne!(text(dir.path(), CERT_NAME), cert);
        assert_eq!(text(dir.path(), KEY_NAME), key);

        let other = tempfile::tempdir().unwrap();
        own(other.path(), &name("b.example")).unwrap();
        let files = |cert: &Path, key: &Path| CertFiles { cert: cert.join(CERT_NAME), key: key.join(KEY_NAME) };
        assert!(from_files(&files(dir.path(), dir.path())).is_ok());
        assert!(from_files(&files(dir.path(), other.path())).is_err(), "of another key");
        // As a restore may leave it: the certificate of another key is not taken.
        std::fs::copy(other.path().join(CERT_NAME), dir.path().join(CERT_NAME)).unwrap();
        own(dir.path(), &name("b.example")).unwrap();
        assert_ne!(text(dir.path(), CERT_NAME), text(other.path(), CERT_NAME));
        std::fs::write(dir.path().join(KEY_NAME), "nonsense").unwrap();
        assert!(own(dir.path(), &name("b.example")).is_err(), "a key is never replaced");
        std::fs::write(dir.path().join(CERT_NAME), "").unwrap();
        assert!(from_files(&files(dir.path(), other.path())).is_err());
    }
}
