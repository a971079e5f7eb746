//! The kernels' binaries, made by `tools/build_kernels.py`, and which of them a device takes.

/// What a binary is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// Text that the driver compiles for any newer device.
    Ptx,
    /// Code for devices of this major capability and at least this minor one.
    Cubin,
}

struct Binary {
    kind: Kind,
    capability: (u32, u32),
    bytes: &'static [u8],
}

macro_rules! binary {
    ($kind:ident, $capability:expr, $file:literal) => {
        Binary {
            kind: Kind::$kind,
            capability: $capability,
            bytes: include_bytes!(concat!("../../kernels/prebuilt/", $file)),
        }
    };
}

static BINARIES: [Binary; 4] = [
    binary!(Cubin, (8, 0), "sm_80.cubin"),
    binary!(Cubin, (9, 0), "sm_90a.cubin"),
    binary!(Cubin, (12, 0), "sm_120.cubin"),
    binary!(Ptx, (8, 0), "compute_80.ptx"),
];

impl Binary {
    fn runs_on(&self, capability: (u32, u32)) -> bool {
        match self.kind {
            Kind::Cubin => self.capability.0 == capability.0 && self.capability.1 <= capability.1,
            Kind::Ptx => self.capability <= capability,
        }
    }
}

/// The binary for a device: the closest code, or the text where there is none; `None` for devices before Ampere.
pub(super) fn choose(capability: (u32, u32)) -> Option<&'static [u8]> {
    let fit = BINARIES.iter().filter(|b| b.runs_on(capability));
    fit.max_by_key(|b| (b.kind, b.capability)).map(|b| b.bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The binary that a device gets, as `sm_80` or `compute_80`.
    fn chosen(capability: (u32, u32)) -> Option<(Kind, (u32, u32))> {
        let bytes = choose(capability)?;
        BINARIES.iter().find(|b| b.bytes.as_ptr() == bytes.as_ptr()).map(|b| (b.kind, b.capability))
    }

    #[test]
    fn devices_get_the_closest() {
        for (capability, expected) in [
            ((7, 5), None),
            ((8, 0), Some((Kind::Cubin, (8, 0)))),
            ((8, 7), Some((Kind::Cubin, (8, 0)))),
            ((8, 9), Some((Kind::Cubin, (8, 0)))),
            ((9, 0), Some((Kind::Cubin, (9, 0)))),
            ((10, 3), Some((Kind::Ptx, (8, 0)))),
            ((11, 0), Some((Kind::Ptx, (8, 0)))),
            ((12, 1), Some((Kind::Cubin, (12, 0)))),
            ((13, 0), Some((Kind::Ptx, (8, 0)))),
        ] {
            assert_eq!(chosen(capability), expected, "{capability:?}");
        }
    }

    #[test]
    fn binaries_are_what_they_say() {
        for b in &BINARIES {
            match b.kind {
                Kind::Cubin => {
                    assert!(b.bytes.starts_with(b"\x7fELF"));
                    // EM_CUDA; ABI version 7 or, for 12.0, 8: what a compiler of CUDA 12 writes.
                    assert_eq!(u16::from_le_bytes([b.bytes[18], b.bytes[19]]), 190);
                    assert_eq!(b.bytes[8], if b.capability.0 < 10 { 7 } else { 8 });
                }
                Kind::Ptx => {
                    let text = std::str::from_utf8(b.bytes).unwrap();
                    assert!(text.contains(".target sm_80") && text.ends_with('\0'));
                    assert_eq!(text.matches('\0').count(), 1);
                }
            }
        }
    }
}
