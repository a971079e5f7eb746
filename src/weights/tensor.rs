//! Placeholder until the `weights` branch lands; same interface.

/// Element types a weight may be stored in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dtype {
    /// IEEE binary32.
    F32,
    /// IEEE binary16.
    F16,
    /// bfloat16.
    Bf16,
}

/// A tensor on the host.
#[derive(Clone, Debug)]
pub struct HostTensor {
    name: String,
    shape: Vec<usize>,
    dtype: Dtype,
    data: std::sync::Arc<Vec<u8>>,
}

impl HostTensor {
    /// A tensor made here, not read.
    pub fn from_f32(name: impl Into<String>, shape: &[usize], values: Vec<f32>) -> Self {
        assert_eq!(shape.iter().product::<usize>(), values.len());
        let data = bytemuck::cast_slice(&values).to_vec();
        Self { name: name.into(), shape: shape.to_vec(), dtype: Dtype::F32, data: data.into() }
    }

    /// Any type, little-endian bytes.
    pub fn from_bytes(name: impl Into<String>, shape: &[usize], dtype: Dtype, bytes: Vec<u8>) -> Self {
        Self { name: name.into(), shape: shape.to_vec(), dtype, data: bytes.into() }
    }

    /// Name in the published layout.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Dimensions, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Stored type.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Little-endian elements as stored; of any alignment.
    pub fn bytes(&self) -> &[u8] {
        &self.data
    }

    /// Elements widened to f32, exactly.
    pub fn to_f32(&self) -> Vec<f32> {
        match self.dtype {
            Dtype::F32 => self.data.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
            Dtype::F16 => self.data.chunks_exact(2).map(|b| half::f16::from_le_bytes([b[0], b[1]]).to_f32()).collect(),
            Dtype::Bf16 => {
                self.data.chunks_exact(2).map(|b| half::bf16::from_le_bytes([b[0], b[1]]).to_f32()).collect()
            }
        }
    }
}
