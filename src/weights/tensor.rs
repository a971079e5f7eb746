//! One tensor of a checkpoint on the host.

use std::ops::Range;

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use super::mmap::Blob;
use crate::error::{Error, ErrorKind, Result};

/// Element types that weights may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dtype {
    /// IEEE 754 single precision.
    F32,
    /// IEEE 754 half precision.
    F16,
    /// The upper half of a single.
    Bf16,
}

impl Dtype {
    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            Dtype::F32 => 4,
            Dtype::F16 | Dtype::Bf16 => 2,
        }
    }
}

impl std::fmt::Display for Dtype {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Dtype::F32 => "F32",
            Dtype::F16 => "F16",
            Dtype::Bf16 => "BF16",
        })
    }
}

/// A named, shaped stretch of a checkpoint's bytes. Cloning copies the name and the shape, never the data.
///
/// The invariant, made by the constructors: the byte range lies inside the blob and is as long as the shape's product
/// times the element size.
#[derive(Clone, Debug)]
pub struct HostTensor {
    name: String,
    shape: Vec<usize>,
    dtype: Dtype,
    blob: Blob,
    range: Range<usize>,
}

impl HostTensor {
    /// A tensor over `range` of `blob`.
    ///
    /// # Errors
    ///
    /// `Internal` if the range is outside the blob or of another length than shape and type ask for.
    pub(super) fn new(name: &str, shape: &[usize], dtype: Dtype, blob: Blob, range: Range<usize>) -> Result<Self> {
        let bytes = elements(shape).and_then(|n| n.checked_mul(dtype.size()));
        if blob.get(range.clone()).map(<[u8]>::len) != bytes || bytes.is_none() {
            return Err(Error::new(
                ErrorKind::Internal,
                format!("{name}: expected {shape:?} {dtype}, found bytes {range:?} of {}", blob.len()),
            ));
        }
        Ok(Self { name: name.to_owned(), shape: shape.to_vec(), dtype, blob, range })
    }

    /// A tensor over the whole of `bytes`, little-endian elements of `dtype`.
    ///
    /// # Errors
    ///
    /// `Internal` if `shape` and `dtype` ask for another number of bytes.
    pub fn from_bytes(name: &str, shape: &[usize], dtype: Dtype, bytes: impl Into<Blob>) -> Result<Self> {
        let blob = bytes.into();
        let range = 0..blob.len();
        Self::new(name, shape, dtype, blob, range)
    }

    /// A tensor made by the program: folded, split or merged weights.
    ///
    /// # Errors
    ///
    /// `Internal` if `shape` does not multiply to the number of `values`.
    pub fn from_f32(name: &str, shape: &[usize], values: Vec<f32>) -> Result<Self> {
        let range = 0..values.len() * Dtype::F32.size();
        Self::new(name, shape, Dtype::F32, Blob::from_f32(values), range)
    }

    /// The same elements under another shape.
    ///
    /// # Errors
    ///
    /// `Internal` if `shape` does not multiply to the number of elements.
    pub fn reshaped(self, shape: &[usize]) -> Result<Self> {
        Self::new(&self.name, shape, self.dtype, self.blob, self.range)
    }

    /// The published name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Axes, outermost first; empty for a scalar.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Type of the stored elements.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.range.len() / self.dtype.size()
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.range.is_empty()
    }

    /// The elements as stored: row-major, little-endian, and possibly not aligned to the element size, which the file
    /// format does not promise.
    pub fn bytes(&self) -> &[u8] {
        &self.blob[self.range.clone()]
    }

    /// The elements as f32. Widening is exact, since every f16 and bf16 is an f32.
    pub fn to_f32(&self) -> Vec<f32> {
        let mut out = vec![0.0; self.len()];
        self.widen(&mut out);
        out
    }

    fn widen(&self, out: &mut [f32]) {
        let bytes = self.bytes();
        match self.dtype {
            Dtype::F32 => bytemuck::cast_slice_mut(out).copy_from_slice(bytes),
            Dtype::F16 => match bytemuck::try_cast_slice::<u8, f16>(bytes) {
                Ok(halves) => halves.convert_to_f32_slice(out),
                Err(_) => {
                    for (o, b) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                        *o = f16::from_le_bytes(*b).to_f32();
                    }
                }
            },
            Dtype::Bf16 => {
                for (o, b) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                    *o = bf16::from_le_bytes(*b).to_f32();
                }
            }
        }
    }
}

/// Product of a shape, if it fits.
pub(super) fn elements(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_widens_exactly_aligned_or_not() {
        let patterns: Vec<u16> = (0..=u16::MAX).collect();
        for offset in 0..2 {
            let mut bytes = vec![0u8; offset];
            bytes.extend(patterns.iter().flat_map(|p| p.to_le_bytes()));
            let range = offset..bytes.len();
            let blob = Blob::from(bytes);
            for dtype in [Dtype::F16, Dtype::Bf16] {
                let t = HostTensor::new("t", &[65536], dtype, blob.clone(), range.clone()).unwrap();
                for (p, got) in patterns.iter().zip(t.to_f32()) {
                    let want = match dtype {
                        Dtype::F16 => half(*p, 5, 10),
                        _ => half(*p, 8, 7),
                    };
                    assert!(got as f64 == want || (got.is_nan() && want.is_nan()), "{dtype} {p:#06x}: {want} {got}");
                }
            }
        }
    }

    /// The value of a 16-bit float by the definition: sign, exponent, fraction.
    fn half(bits: u16, exponent_bits: i32, fraction_bits: i32) -> f64 {
        let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
        let exponent = i32::from(bits >> fraction_bits) & ((1 << exponent_bits) - 1);
        let fraction = f64::from(bits & ((1 << fraction_bits) - 1)) / f64::from(1 << fraction_bits);
        let bias = (1 << (exponent_bits - 1)) - 1;
        sign * match exponent {
            0 => fraction * 2f64.powi(1 - bias),
            e if e == (1 << exponent_bits) - 1 => return if fraction == 0.0 { sign * f64::INFINITY } else { f64::NAN },
            e => (1.0 + fraction) * 2f64.powi(e - bias),
        }
    }

    #[test]
    fn derived_tensors_check_their_shape() {
        let t = HostTensor::from_f32("x", &[2, 3], vec![1.0, -0.0, f32::MIN_POSITIVE, 4.0, 5.0, 6.0]).unwrap();
        assert_eq!((t.len(), t.shape(), t.bytes().len()), (6, &[2, 3][..], 24));
        assert_eq!(t.to_f32(), [1.0, 0.0, f32::MIN_POSITIVE, 4.0, 5.0, 6.0]);
        let e = HostTensor::from_f32("x", &[2, 2], vec![1.0]).unwrap_err();
        assert!(e.kind() == ErrorKind::Internal && e.to_string().starts_with("x: expected [2, 2] F32"), "{e}");
        assert!(HostTensor::from_f32("x", &[usize::MAX, 2, 0], vec![]).is_err());
        assert_eq!(HostTensor::from_f32("x", &[], vec![7.0]).unwrap().to_f32(), [7.0]);
    }
}
