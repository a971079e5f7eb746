//! Certificates: the user's own, or one made for `localhost`, because some clients speak nothing but https.

use std::path::Path;
use std::sync::Arc;

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use super::options::Tls;
use crate::error::{Error, ErrorKind, Result};
use crate::image::write_file;

/// Names a self-made certificate is good for.
const NAMES: [&str; 4] = ["localhost", "127.0.0.1", "::1", "queue.localhost"];

/// What turns connections into encrypted ones; `None` for plain HTTP.
pub fn acceptor(tls: &Tls) -> Result<Option<TlsAcceptor>> {
    let (chain, key) = match tls {
        Tls::Off => return Ok(None),
        Tls::Files { cert, key } => (read_chain(cert)?, read_key(key)?),
        Tls::SelfSigned(path) => self_signed(path)?,
    };
    let wrong = |e| Error::new(ErrorKind::Io, "the certificate and its key cannot be used").with_source(e);
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(wrong)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(wrong)?;
    Ok(Some(TlsAcceptor::from(Arc::new(config))))
}

fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let wrong = |e| Error::new(ErrorKind::Io, "cannot read the certificate").at(path.display()).with_source(e);
    let chain: Vec<_> =
        CertificateDer::pem_file_iter(path).map_err(wrong)?.collect::<std::result::Result<_, _>>().map_err(wrong)?;
    if chain.is_empty() {
        let message = "expected at least one certificate in PEM, found none";
        return Err(Error::new(ErrorKind::Io, message).at(path.display()));
    }
    Ok(chain)
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_file(path)
        .map_err(|e| Error::new(ErrorKind::Io, "cannot read the private key").at(path.display()).with_source(e))
}

/// Makes a certificate and its key. The certificate is written to `path`; the key stays in memory.
fn self_signed(path: &Path) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
    let made = rcgen::generate_simple_self_signed(NAMES.map(String::from).to_vec())
        .map_err(|e| Error::new(ErrorKind::Internal, "cannot make a certificate").with_source(e))?;
    write_file(path, made.cert.pem().as_bytes())?;
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    Ok((vec![made.cert.der().clone()], key.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_made_and_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let pem = dir.path().join("cert.pem");
        assert!(acceptor(&Tls::SelfSigned(pem.clone())).unwrap().is_some());
        assert_eq!(read_chain(&pem).unwrap().len(), 1);
        assert!(!std::fs::read_to_string(&pem).unwrap().contains("PRIVATE"));
        assert!(acceptor(&Tls::Off).unwrap().is_none());
        let missing = dir.path().join("missing.pem");
        for tls in [
            Tls::Files { cert: missing.clone(), key: missing.clone() },
            Tls::Files { cert: pem.clone(), key: missing.clone() },
            Tls::Files { cert: pem.clone(), key: pem.clone() },
            Tls::SelfSigned(missing.join("no-folder.pem")),
        ] {
            assert!(acceptor(&tls).is_err(), "{tls:?}");
        }
    }
}
