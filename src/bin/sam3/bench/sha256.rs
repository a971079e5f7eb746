//! SHA-256 (FIPS 180-4), for naming files and outputs: the sums are those of `sha256sum` and of the pages that publish
//! checkpoints, so that anybody can check which weights a report is about.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use sam3::Result;

use crate::segment::io_error;

/// Bytes of one block.
const BLOCK: usize = 64;

/// Hashes what it is fed.
pub struct Sha256 {
    state: [u32; 8],
    round: [u32; 64],
    pending: Vec<u8>,
    length: u64,
}

impl Sha256 {
    pub fn new() -> Self {
        let primes = primes();
        let state = std::array::from_fn(|i| fraction(f64::from(primes[i]).sqrt()));
        let round = std::array::from_fn(|i| cube_root_fraction(primes[i]));
        Self { state, round, pending: Vec::with_capacity(BLOCK), length: 0 }
    }

    pub fn update(&mut self, mut bytes: &[u8]) {
        self.length += bytes.len() as u64;
        if !self.pending.is_empty() {
            let (head, rest) = bytes.split_at(bytes.len().min(BLOCK - self.pending.len()));
            self.pending.extend_from_slice(head);
            bytes = rest;
            if self.pending.len() < BLOCK {
                return;
            }
            let block = std::mem::take(&mut self.pending);
            self.blocks(&block);
        }
        let whole = bytes.len() / BLOCK * BLOCK;
        self.blocks(&bytes[..whole]);
        self.pending.extend_from_slice(&bytes[whole..]);
    }

    /// The sum in hexadecimal digits.
    pub fn finish(mut self) -> String {
        let bits = self.length.wrapping_mul(8);
        let zeros = (BLOCK + 55 - self.pending.len()) % BLOCK;
        let mut tail = std::mem::take(&mut self.pending);
        tail.push(0x80);
        tail.resize(tail.len() + zeros, 0);
        tail.extend_from_slice(&bits.to_be_bytes());
        self.blocks(&tail);
        self.state.iter().map(|word| format!("{word:08x}")).collect()
    }

    /// Whole blocks.
    fn blocks(&mut self, bytes: &[u8]) {
        for block in bytes.as_chunks::<BLOCK>().0 {
            let mut w = [0u32; 64];
            for (word, four) in w.iter_mut().zip(block.as_chunks::<4>().0) {
                *word = u32::from_be_bytes(*four);
            }
            for i in 16..64 {
                let a = w[i - 15].rotate_right(7) ^ w[i - 15].rotate_right(18) ^ (w[i - 15] >> 3);
                let b = w[i - 2].rotate_right(17) ^ w[i - 2].rotate_right(19) ^ (w[i - 2] >> 10);
                w[i] = w[i - 16].wrapping_add(a).wrapping_add(w[i - 7]).wrapping_add(b);
            }
            let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = self.state;
            for i in 0..64 {
                let sum1 = e.rotate_right(6) ^ e.rotate_right(11) ^ e.rotate_right(25);
                let choice = (e & f) ^ (!e & g);
                let t1 = h.wrapping_add(sum1).wrapping_add(choice).wrapping_add(self.round[i]).wrapping_add(w[i]);
                let sum0 = a.rotate_right(2) ^ a.rotate_right(13) ^ a.rotate_right(22);
                let majority = (a & b) ^ (a & c) ^ (b & c);
                let t2 = sum0.wrapping_add(majority);
                (h, g, f, e, d, c, b, a) = (g, f, e, d.wrapping_add(t1), c, b, a, t1.wrapping_add(t2));
            }
            for (word, add) in self.state.iter_mut().zip([a, b, c, d, e, f, g, h]) {
                *word = word.wrapping_add(add);
            }
        }
    }
}

/// The sum of some bytes.
pub fn of_bytes(bytes: &[u8]) -> String {
    let mut sum = Sha256::new();
    sum.update(bytes);
    sum.finish()
}

/// Length and sum of a file, read piece by piece: the weights are gigabytes.
pub fn of_file(path: &Path) -> Result<(u64, String)> {
    let unread = |e| io_error(path, "cannot be read", e);
    let mut file = File::open(path).map_err(unread)?;
    let (mut sum, mut piece) = (Sha256::new(), vec![0; 1 << 20]);
    loop {
        match file.read(&mut piece) {
            Ok(0) => return Ok((sum.length, sum.finish())),
            Ok(n) => sum.update(&piece[..n]),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(unread(e)),
        }
    }
}

/// The first 64 primes.
fn primes() -> [u32; 64] {
    let mut found = [0; 64];
    let mut count = 0;
    for n in 2u32.. {
        if found[..count].iter().all(|p| n % p != 0) {
            found[count] = n;
            count += 1;
            if count == found.len() {
                break;
            }
        }
    }
    found
}

/// The first 32 bits of a number's fraction.
fn fraction(value: f64) -> u32 {
    (value.fract() * 2f64.powi(32)) as u32
}

/// The first 32 bits of the fraction of a prime's cube root, by integers: the largest `r` with `r³ ≤ p·2⁹⁶`, whose low
/// 32 bits they are.
fn cube_root_fraction(prime: u32) -> u32 {
    // The roots are below 7, so `r` has 35 bits and `r³` fits.
    let target = u128::from(prime) << 96;
    let mut root = 0u128;
    for bit in (0..35).rev() {
        let larger = root | 1 << bit;
        if larger * larger * larger <= target {
            root = larger;
        }
    }
    root as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_the_standard() {
        assert_eq!(of_bytes(b""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        assert_eq!(of_bytes(b"abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        let two = b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
        assert_eq!(of_bytes(two), "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
        let million = vec![b'a'; 1_000_000];
        let expected = "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0";
        assert_eq!(of_bytes(&million), expected);
        // In pieces of every length up to two blocks.
        let mut sum = Sha256::new();
        let mut rest = million.as_slice();
        for size in (1..=2 * BLOCK).cycle() {
            if rest.is_empty() {
                break;
            }
            let (head, tail) = rest.split_at(size.min(rest.len()));
            sum.update(head);
            rest = tail;
        }
        assert_eq!(sum.finish(), expected);
    }
}
