//! What a user has where notifications are posted to: a small HTTP server that remembers what came.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, mpsc};

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::crypto::ring;
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::PATIENCE;

/// A request that came.
pub struct Received {
    pub target: String,
    headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Received {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(of, _)| of == name).map(|(_, value)| value.as_str())
    }
}

/// Statuses of the next answers; the last one stays.
type Answers = Arc<Mutex<VecDeque<u16>>>;

pub struct Webhook {
    address: SocketAddr,
    scheme: &'static str,
    answers: Answers,
    came: Mutex<mpsc::Receiver<Received>>,
    /// With its certificate.
    own: tempfile::TempDir,
}

impl Webhook {
    /// Answers with these, then with 200.
    pub fn start(first: &[u16]) -> Self {
        Self::over(first, None)
    }

    /// With a certificate of its own.
    pub fn start_tls(first: &[u16]) -> Self {
        let made = generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a certificate");
        Self::over(first, Some(made))
    }

    fn over(first: &[u16], cert: Option<CertifiedKey<rcgen::KeyPair>>) -> Self {
        let own = tempfile::tempdir().expect("a temporary directory");
        let pem = cert.as_ref().map(|made| made.cert.pem()).unwrap_or_default();
        std::fs::write(own.path().join("trust.pem"), pem).expect("the certificate");
        let scheme = if cert.is_some() { "https" } else { "http" };
        let tls = cert.map(|made| {
            let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
            let builder = ServerConfig::builder_with_provider(ring::default_provider().into());
            let builder = builder.with_safe_default_protocol_versions().expect("versions").with_no_client_auth();
            Arc::new(builder.with_single_cert(vec![made.cert.der().clone()], key).expect("a certificate"))
        });
        let answers: Answers = Arc::new(Mutex::new(first.iter().copied().chain([200]).collect()));
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("its address");
        let (sender, came) = mpsc::channel();
        let next = Arc::clone(&answers);
        std::thread::spawn(move || {
            for socket in listener.incoming().map_while(Result::ok) {
                let _ = socket.set_read_timeout(Some(PATIENCE));
                let received = match tls.clone() {
                    None => answer(socket, &next),
                    Some(config) => ServerConnection::new(config)
                        .ok()
                        .and_then(|connection| answer(StreamOwned::new(connection, socket), &next)),
                };
                // A connection on which nothing whole came is none; nobody waits once the test is over.
                if received.is_some_and(|received| sender.send(received).is_err()) {
                    return;
                }
            }
        });
        Self { address, scheme, answers, came: Mutex::new(came), own }
    }

    pub fn url(&self, target: &str) -> String {
        format!("{}://{}{target}", self.scheme, self.address)
    }

    /// What trusts it.
    pub fn trust(&self) -> PathBuf {
        Path::join(self.own.path(), "trust.pem")
    }

    /// From now on.
    pub fn answer(&self, status: u16) {
        *self.answers.lock().expect("the answers") = [status].into();
    }

    /// The next request.
    pub fn next(&self) -> Received {
        self.came.lock().expect("what came").recv_timeout(PATIENCE).expect("a request")
    }

    /// All that came and was not taken yet.
    pub fn received(&self) -> Vec<Received> {
        self.came.lock().expect("what came").try_iter().collect()
    }
}

/// One request; its answer closes the connection.
fn answer(stream: impl Read + Write, answers: &Answers) -> Option<Received> {
    let mut stream = BufReader::new(stream);
    let mut line = || {
        let mut line = String::new();
        stream.read_line(&mut line).ok().map(|_| line.trim_end().to_owned())
    };
    let target = line()?.split(' ').nth(1)?.to_owned();
    let mut headers = Vec::new();
    loop {
        let line = line()?;
        let Some((name, value)) = line.split_once(':') else { break };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let len = headers.iter().find(|(name, _)| name == "content-length")?.1.parse().ok()?;
    let mut body = vec![0; len];
    stream.read_exact(&mut body).ok()?;
    let status = {
        let mut answers = answers.lock().expect("the answers");
        if answers.len() > 1 { answers.pop_front()? } else { *answers.front()? }
    };
    let head = format!("HTTP/1.1 {status} so\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    stream.get_mut().write_all(head.as_bytes()).ok()?;
    stream.get_mut().flush().ok()?;
    Some(Received { target, headers, body })
}
