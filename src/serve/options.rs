//! What whoever starts the server chooses.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::error::{Error, Result};

/// How to serve. [`Options::default`] is what `sam3 serve` does without arguments.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// Where to listen; port 0 takes any free one. Loopback by default: whoever can connect may use the machine.
    pub addr: SocketAddr,
    /// What the model is called in `/api/info` and `/v1/models`.
    pub model_name: String,
    /// Whether the model is the small one for demonstrations.
    pub demo: bool,
    /// Sessions: pictures and prompts that are worked on at the same time. Each has scratch memory of its own.
    pub sessions: usize,
    /// Requests that may wait for a session; one more is refused with 429.
    pub queue: usize,
    /// Keys of which a request must bring one; with none, anybody may do anything.
    pub api_keys: Vec<String>,
    /// Whether pictures may be fetched from, and webhooks sent to, addresses that callers name.
    pub allow_fetch: bool,
    /// Whether such an address may be this machine or lie in a private network. For tests and closed networks only.
    pub fetch_private: bool,
    /// Encryption.
    pub tls: Tls,
    /// Where results and uploads are kept; without a directory they are kept in memory.
    pub dir: Option<PathBuf>,
    /// Bytes of results and uploads that are kept.
    pub file_bytes: usize,
    /// How long results, uploads and queued requests are kept.
    pub lifetime: Duration,
    /// Bytes of encoded pictures that are kept.
    pub cache_bytes: usize,
    /// Longest body of a request. The default takes a picture of 50 MiB as base64.
    pub max_body: usize,
    /// Bytes of all bodies that are read or worked on at the same time.
    pub bodies_bytes: usize,
    /// Largest picture, in pixels.
    pub max_pixels: u64,
    /// Longest time for one request, waiting included.
    pub timeout: Duration,
    /// Longest time for a body to arrive.
    pub body_timeout: Duration,
    /// How long requests under way may go on after a signal to stop.
    pub drain: Duration,
    /// Connections at the same time; more wait.
    pub connections: usize,
    /// Whether to write a log to standard error.
    pub log: bool,
}

/// Encryption of connections.
#[derive(Clone, Debug, Default)]
pub enum Tls {
    /// None: plain HTTP.
    #[default]
    Off,
    /// A chain of certificates and its key, PEM files.
    Files {
        /// The chain, the server's own certificate first.
        cert: PathBuf,
        /// Its private key.
        key: PathBuf,
    },
    /// A certificate for `localhost`, made at every start and written to this file for clients to trust.
    SelfSigned(PathBuf),
}

impl Default for Options {
    fn default() -> Self {
        Self {
            addr: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8333),
            model_name: "sam3".into(),
            demo: false,
            sessions: 2,
            queue: 32,
            api_keys: Vec::new(),
            allow_fetch: false,
            fetch_private: false,
            tls: Tls::Off,
            dir: None,
            file_bytes: 512 << 20,
            lifetime: Duration::from_secs(3600),
            // A picture of 12 megapixels and its features at the published size, 133 MB in f32: six of them.
            cache_bytes: 1 << 30,
            max_body: 68 << 20,
            bodies_bytes: 512 << 20,
            // 8192 × 8192, above any single camera's.
            max_pixels: 1 << 26,
            timeout: Duration::from_secs(600),
            body_timeout: Duration::from_secs(60),
            drain: Duration::from_secs(30),
            connections: 1024,
            log: true,
        }
    }
}

impl Options {
    /// Refuses what cannot work.
    pub(super) fn check(&self) -> Result<()> {
        // Threads and semaphores are made of these numbers.
        for (name, value, most) in [("sessions", self.sessions, 256), ("connections", self.connections, 1 << 20)] {
            if !(1..=most).contains(&value) {
                return Err(Error::invalid(format!("{name}: expected 1 to {most}, found {value}")));
            }
        }
        if self.queue > 1 << 20 {
            return Err(Error::invalid(format!("queue: expected at most {}, found {}", 1 << 20, self.queue)));
        }
        if self.max_body == 0 || self.max_body > self.bodies_bytes {
            let (body, all) = (self.max_body, self.bodies_bytes);
            return Err(Error::invalid(format!("longest body: expected 1 to {all} bytes, found {body}")));
        }
        if let Some(key) = self.api_keys.iter().find(|k| k.len() < 8) {
            let n = key.len();
            return Err(Error::invalid(format!("API key: expected at least 8 characters, found {n}")));
        }
        Ok(())
    }
}
