//! Hashes, names nobody can guess, and comparisons that take the same time whatever they find.

use ring::rand::{SecureRandom, SystemRandom};
use ring::{digest, hmac};

/// SHA-256 in hex.
pub fn hex_digest(bytes: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, bytes).as_ref())
}

/// 128 random bits in hex: the name of a file, the id of a request.
pub fn id() -> String {
    let mut bytes = [0; 16];
    // The system's generator fails on no system this runs on; an id that somebody could guess must not go out.
    SystemRandom::new().fill(&mut bytes).expect("the system has random numbers");
    hex(&bytes)
}

/// Whether `text` is what [`id`] makes.
pub fn is_id(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// API keys.
pub struct Keys {
    key: hmac::Key,
    tags: Vec<hmac::Tag>,
}

impl Keys {
    /// Accepts these, and with none anything.
    pub fn new(keys: &[String]) -> Self {
        let mut secret = [0; 32];
        SystemRandom::new().fill(&mut secret).expect("the system has random numbers");
        let key = hmac::Key::new(hmac::HMAC_SHA256, &secret);
        let tags = keys.iter().map(|k| hmac::sign(&key, k.as_bytes())).collect();
        Self { key, tags }
    }

    /// Whether a key is asked for at all.
    pub fn required(&self) -> bool {
        !self.tags.is_empty()
    }

    /// Whether `given` is one of the keys. Tags under a secret of this process are compared, all of them and in
    /// constant time, so that neither the length of the wait nor the order of the keys says anything.
    pub fn accept(&self, given: &str) -> bool {
        let matches = |tag: &hmac::Tag| hmac::verify(&self.key, given.as_bytes(), tag.as_ref()).is_ok();
        self.tags.iter().fold(false, |found, tag| found | matches(tag))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_ids_and_differ() {
        let (a, b) = (id(), id());
        assert!(is_id(&a) && is_id(&b) && a != b);
        for wrong in
            ["", "..", "../../etc/passwd", &a[1..], &a.to_uppercase().replace('0', "A"), "g".repeat(32).as_str()]
        {
            assert!(!is_id(wrong) || wrong == a, "{wrong}");
        }
        assert_eq!(&hex_digest(b"abc")[..16], "ba7816bf8f01cfea");
    }

    #[test]
    fn keys_are_compared_whole() {
        let keys = Keys::new(&["alpha".into(), "beta".into()]);
        assert!(keys.required() && keys.accept("alpha") && keys.accept("beta"));
        for wrong in ["", "alph", "alphaa", "Alpha", "alpha\0"] {
            assert!(!keys.accept(wrong), "{wrong:?}");
        }
        assert!(!Keys::new(&[]).required());
    }
}
