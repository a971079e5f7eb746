//! What the copy engine of Hopper reads by: maps of operands, handed to kernels by value (`kernels/tile/tensor_maps.cuh`).

use bytemuck::{Pod, Zeroable};
use cudarc::driver::sys;

use super::arguments::{Arguments, AttentionArgs, GemmArgs};
use super::driver::failed;
use crate::error::Result;

/// Bytes that the addresses and strides of a map are multiples of.
pub(super) const ALIGNMENT: usize = 16;

/// Elements of bf16 in the 128 bytes of a swizzled row.
const ROW: u32 = 64;

/// `CUtensorMap`.
#[repr(C, align(64))]
#[derive(Clone, Copy, Default, Pod, Zeroable)]
pub struct TensorMap([u64; 16]);

impl TensorMap {
    /// Of bf16 at `address`: `lengths` are elements per dimension and `strides` elements between neighbours in the second
    /// and third, innermost first. A box is 64 elements of the first dimension by `boxes` of the others.
    ///
    /// The extent must lie in device memory, and its address and strides in bytes be multiples of [`ALIGNMENT`]; that is
    /// checked by who calls, since a map that cannot be made is a defect of this back end.
    pub(super) fn new(address: u64, lengths: [usize; 3], strides: [usize; 2], boxes: [u32; 2]) -> Result<Self> {
        let mut map = sys::CUtensorMap_st { opaque: [0; 16] };
        let lengths = lengths.map(|n| n as u64);
        let strides = strides.map(|n| (n * size_of::<half::bf16>()) as u64);
        let boxes = [ROW, boxes[0], boxes[1]];
        // SAFETY: the arrays have as many elements as the rank says; the driver writes the map and reads no device memory.
        unsafe {
            sys::cuTensorMapEncodeTiled(
                &raw mut map,
                sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
                3,
                address as *mut std::ffi::c_void,
                lengths.as_ptr(),
                strides.as_ptr(),
                boxes.as_ptr(),
                [1u32; 3].as_ptr(),
                sys::CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
                sys::CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_128B,
                sys::CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                sys::CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
            )
        }
        .result()
        .map_err(|e| failed("describing an operand to the copy engine", e))?;
        Ok(Self(map.opaque))
    }
}

/// A product of operands behind maps.
#[repr(C, align(64))]
#[derive(Clone, Copy, Default, Pod, Zeroable)]
pub struct TmaGemmArgs {
    pub x: TensorMap,
    pub w: TensorMap,
    pub gemm: GemmArgs,
    /// Up to a multiple of the alignment.
    pub reserved: [u32; 2],
}

impl Arguments for TmaGemmArgs {}

/// An attention of operands behind maps.
#[repr(C, align(64))]
#[derive(Clone, Copy, Default, Pod, Zeroable)]
pub struct TmaAttentionArgs {
    pub q: TensorMap,
    pub k: TensorMap,
    pub v: TensorMap,
    pub attention: AttentionArgs,
    pub windows: u32,
    /// Up to a multiple of the alignment.
    pub reserved: [u32; 13],
}

impl Arguments for TmaAttentionArgs {}

const _: () = assert!(size_of::<TmaAttentionArgs>() == 576);
const _: () = assert!(size_of::<TmaGemmArgs>() == 384);
