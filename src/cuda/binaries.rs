//! The kernels' binaries, made by `tools/build_kernels.py`, and which of them a device takes.
//!
//! They are embedded compressed: of a program's bytes they are a fifth of what they would be, and unpacking the one that
//! a device takes is a few milliseconds of opening it.

use std::io::Read;

use crate::error::{Error, ErrorKind, Result};

/// What a binary is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// Text that the driver compiles for this or any newer capability.
    Ptx,
    /// Code for devices of this major capability and at least this minor one.
    Cubin,
    /// Code for exactly this capability, with instructions that no other has.
    Exact,
}

/// A compiled module for some devices.
pub struct Binary {
    kind: Kind,
    capability: (u32, u32),
    /// As the compiler calls its target.
    target: &'static str,
    packed: &'static [u8],
}

macro_rules! binary {
    ($kind:ident, $capability:expr, $target:literal, $ending:literal) => {
        Binary {
            kind: Kind::$kind,
            capability: $capability,
            target: $target,
            packed: include_bytes!(concat!("../../kernels/prebuilt/", $target, ".", $ending, ".zlib")),
        }
    };
}

static BINARIES: [Binary; 5] = [
    binary!(Cubin, (8, 0), "sm_80", "cubin"),
    binary!(Exact, (9, 0), "sm_90a", "cubin"),
    binary!(Cubin, (10, 0), "sm_100", "cubin"),
    binary!(Cubin, (12, 0), "sm_120", "cubin"),
    binary!(Ptx, (8, 0), "compute_80", "ptx"),
];

impl Binary {
    fn runs_on(&self, capability: (u32, u32)) -> bool {
        match self.kind {
            Kind::Exact => self.capability == capability,
            Kind::Cubin => self.capability.0 == capability.0 && self.capability.1 <= capability.1,
            Kind::Ptx => self.capability <= capability,
        }
    }

    /// As the compiler calls its target.
    pub fn target(&self) -> &'static str {
        self.target
    }

    /// The module as the driver takes it: a whole cubin, or text with one NUL, at its end.
    ///
    /// # Errors
    ///
    /// `Internal` if the embedded bytes are damaged.
    pub fn unpack(&self) -> Result<Vec<u8>> {
        let damaged =
            || Error::new(ErrorKind::Internal, format!("the embedded kernels for {} are damaged", self.target));
        let mut bytes = Vec::new();
        flate2::read::ZlibDecoder::new(self.packed).read_to_end(&mut bytes).map_err(|_| damaged())?;
        let whole = match self.kind {
            Kind::Cubin | Kind::Exact => bytes.starts_with(b"\x7fELF"),
            Kind::Ptx => bytes.iter().position(|b| *b == 0) == Some(bytes.len().wrapping_sub(1)),
        };
        if whole { Ok(bytes) } else { Err(damaged()) }
    }
}

/// The binary for a device: the closest code, or the text where there is none; `None` for devices before Ampere.
pub(super) fn choose(capability: (u32, u32)) -> Option<&'static Binary> {
    let fit = BINARIES.iter().filter(|b| b.runs_on(capability));
    fit.max_by_key(|b| (b.kind, b.capability))
}

/// All of them.
pub fn all() -> &'static [Binary] {
    &BINARIES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_get_the_closest() {
        for (capability, expected) in [
            ((7, 5), None),
            ((8, 0), Some("sm_80")),
            ((8, 7), Some("sm_80")),
            ((8, 9), Some("sm_80")),
            ((9, 0), Some("sm_90a")),
            ((10, 0), Some("sm_100")),
            ((10, 3), Some("sm_100")),
            ((11, 0), Some("compute_80")),
            ((12, 1), Some("sm_120")),
            ((13, 0), Some("compute_80")),
        ] {
            assert_eq!(choose(capability).map(Binary::target), expected, "{capability:?}");
        }
    }

    #[test]
    fn binaries_are_what_they_say() {
        for b in &BINARIES {
            let bytes = b.unpack().unwrap();
            if b.kind == Kind::Ptx {
                assert!(std::str::from_utf8(&bytes).unwrap().contains(".target sm_80"));
                continue;
            }
            // EM_CUDA; ABI version 7 or, from 10.0 on, 8: what a compiler of CUDA 12 writes.
            assert_eq!(u16::from_le_bytes([bytes[18], bytes[19]]), 190);
            assert_eq!(bytes[8], if b.capability.0 < 10 { 7 } else { 8 });
        }
    }

    #[test]
    fn damage_is_an_error() {
        let whole = &BINARIES[0];
        for packed in [&whole.packed[..whole.packed.len() / 2], b"", b"not compressed"] {
            let damaged = Binary { packed, ..binary!(Cubin, (8, 0), "sm_80", "cubin") };
            assert_eq!(damaged.unpack().unwrap_err().kind(), ErrorKind::Internal);
        }
    }
}
