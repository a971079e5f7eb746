//! Every kernel, resolved once at start: a launch looks no name up.

use std::cell::RefCell;
use std::marker::PhantomData;

use cudarc::driver::sys;

use super::arguments::{Arguments, AttentionArgs, BoxArgs, CutArgs, GemmArgs, NormArgs, PictureArgs, RowsArgs};
use super::driver::Device;
use super::tensor_map::{TmaAttentionArgs, TmaGemmArgs};
use crate::error::Result;

/// A kernel that takes `A`, with its threads per block and its shared memory.
pub struct Function<A> {
    pub(super) handle: sys::CUfunction,
    pub(super) threads: u32,
    pub(super) shared_bytes: u32,
    arguments: PhantomData<fn(A)>,
}

/// Shared memory that every launch may have.
const SHARED_FOR_ALL: u32 = 48 << 10;

/// Where kernels are looked up.
pub trait Module {
    /// A kernel by its name, to be launched with so many threads and so much shared memory.
    fn kernel(&self, name: &'static str, threads: u32, shared_bytes: u32) -> Result<sys::CUfunction>;

    /// Whether those of compute capability 9.0 alone are there.
    fn has_hopper(&self) -> bool;
}

impl Module for Device {
    fn kernel(&self, name: &'static str, _threads: u32, shared_bytes: u32) -> Result<sys::CUfunction> {
        let function = self.function(name)?;
        if shared_bytes > SHARED_FOR_ALL {
            self.allow_shared(function, shared_bytes)?;
        }
        Ok(function)
    }

    fn has_hopper(&self) -> bool {
        self.capability() == (9, 0)
    }
}

/// How a kernel is launched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// As the binaries call it.
    pub name: &'static str,
    /// Threads of a block.
    pub threads: u32,
    /// Bytes of dynamic shared memory, 0 where it depends on the call.
    pub shared_bytes: u32,
}

/// Notes down what is looked up.
struct Names(RefCell<Vec<Kernel>>);

impl Module for Names {
    fn kernel(&self, name: &'static str, threads: u32, shared_bytes: u32) -> Result<sys::CUfunction> {
        self.0.borrow_mut().push(Kernel { name, threads, shared_bytes });
        Ok(std::ptr::null_mut())
    }

    fn has_hopper(&self) -> bool {
        true
    }
}

/// All kernels there are, for checks without a device.
pub fn kernels() -> Vec<Kernel> {
    let names = Names(RefCell::default());
    // Noting down does not fail.
    let _ = Functions::load(&names);
    names.0.into_inner()
}

impl<A: Arguments> Function<A> {
    fn new(module: &dyn Module, name: &'static str, threads: u32, shared_bytes: usize) -> Result<Self> {
        let shared_bytes = u32::try_from(shared_bytes).expect("shared memory fits 32 bits");
        let handle = module.kernel(name, threads, shared_bytes)?;
        Ok(Self { handle, threads, shared_bytes, arguments: PhantomData })
    }
}

/// A GEMM with the tile of y that one block makes.
pub struct Gemm {
    pub(super) function: Function<GemmArgs>,
    pub(super) tile: usize,
}

/// The kernels of compute capability 9.0 alone. Products by sides of 128 columns of their tiles of y, one or two.
pub struct Hopper {
    pub(super) gemm: [Function<TmaGemmArgs>; 2],
    pub(super) conv3x3: [Function<TmaGemmArgs>; 2],
    pub(super) deconv2x2: [Function<TmaGemmArgs>; 2],
    /// By width of a head, 64 and 32.
    pub(super) attention: [Function<TmaAttentionArgs>; 2],
}

impl Hopper {
    fn load(d: &dyn Module) -> Result<Self> {
        // Stages of rows and columns of 64 bf16, notes on each row and column, and two barriers for each stage and for the
        // notes (kernels/gemm_sm90a.cu).
        let gemm = |name, columns: usize, stages: usize| {
            let bytes = stages * (192 + columns) * 64 * 2 + (192 + columns) * 4 + (stages + 1) * 2 * 8;
            Function::new(d, name, 512, bytes)
        };
        // Rows of 64 bf16, of two tiles of 192 queries and four stages of 96 keys and values, two barriers for each, and one
        // for the turn of each of three warpgroups (kernels/attention_sm90a.cu).
        let attention = |name| Function::new(d, name, 512, (2 * 192 + 4 * 2 * 96) * 64 * 2 + (2 + 4) * 2 * 8 + 3 * 8);
        Ok(Self {
            gemm: [gemm("gemm_sm90a_192x128x64", 128, 5)?, gemm("gemm_sm90a_192x256x64", 256, 4)?],
            conv3x3: [gemm("conv3x3_sm90a_192x128x64", 128, 5)?, gemm("conv3x3_sm90a_192x256x64", 256, 4)?],
            deconv2x2: [gemm("deconv2x2_sm90a_192x128x64", 128, 5)?, gemm("deconv2x2_sm90a_192x256x64", 256, 4)?],
            attention: [attention("attention_sm90a_192x96_d64")?, attention("attention_sm90a_192x96_d32")?],
        })
    }
}

/// Attention kernels by padded width of a head, with the queries of one block.
pub struct Heads {
    pub(super) widths: [(usize, Function<AttentionArgs>); 3],
    pub(super) queries: usize,
}

/// All kernels.
pub struct Functions {
    pub(super) gemm_f32: Gemm,
    pub(super) conv3x3_f32: Gemm,
    pub(super) deconv2x2_f32: Gemm,
    pub(super) gemm_bf16: [Gemm; 2],
    pub(super) gemm_few: Function<GemmArgs>,
    pub(super) conv3x3_bf16: [Gemm; 2],
    pub(super) dot_bf16: Gemm,
    pub(super) deconv2x2_bf16: Gemm,
    pub(super) attention_f32: Heads,
    pub(super) attention_bf16: Heads,
    pub(super) attention_join: Function<AttentionArgs>,
    pub(super) layer_norm: Function<NormArgs>,
    pub(super) group_norm_partial: Function<NormArgs>,
    /// Its shared memory, `groups · 8` bytes, depends on the call.
    pub(super) group_norm_apply: Function<NormArgs>,
    pub(super) add: Function<RowsArgs>,
    pub(super) copy: Function<RowsArgs>,
    pub(super) pad: Function<RowsArgs>,
    pub(super) gather: Function<RowsArgs>,
    pub(super) mean_rows: Function<RowsArgs>,
    pub(super) ingest: Function<PictureArgs>,
    pub(super) patches: Function<PictureArgs>,
    pub(super) upsample_add: Function<PictureArgs>,
    pub(super) roi_align: Function<PictureArgs>,
    pub(super) cut: Function<CutArgs>,
    pub(super) box_sine: Function<BoxArgs>,
    pub(super) box_deltas: Function<BoxArgs>,
    pub(super) box_refine: Function<BoxArgs>,
    pub(super) hopper: Option<Hopper>,
}

impl Functions {
    /// Looks all kernels up.
    pub fn load(d: &dyn Module) -> Result<Self> {
        // Two operands of 16 × 65 floats (kernels/gemm_f32.cu).
        let full =
            |name| -> Result<Gemm> { Ok(Gemm { function: Function::new(d, name, 256, 2 * 16 * 65 * 4)?, tile: 64 }) };
        // Two stages of two operands of tile × 32 bf16 (kernels/gemm_bf16.cu).
        let half = |name, tile: usize| -> Result<Gemm> {
            let threads = if tile == 64 { 128 } else { 256 };
            Ok(Gemm { function: Function::new(d, name, threads, 2 * 2 * tile * 32 * 2)?, tile })
        };
        // Rows of `width + 1` floats for 16 queries, 32 keys and 32 values, and 16 × 32 probabilities.
        let full_heads = |name, width: usize| -> Result<(usize, Function<AttentionArgs>)> {
            Ok((width, Function::new(d, name, 128, ((16 + 2 * 32) * (width + 1) + 16 * 32) * 4)?))
        };
        // Rows of `width` bf16 for 64 queries, 64 keys and 64 values.
        let half_heads = |name, width: usize| -> Result<(usize, Function<AttentionArgs>)> {
            Ok((width, Function::new(d, name, 128, 3 * 64 * width * 2)?))
        };
        Ok(Self {
            gemm_f32: full("gemm_f32_64x64x16")?,
            conv3x3_f32: full("conv3x3_f32_64x64x16")?,
            deconv2x2_f32: full("deconv2x2_f32_64x64x16")?,
            // Four stages of 32 rows of f32 and 64 of bf16, of 64 each (kernels/gemm_few.cu).
            gemm_few: Function::new(d, "gemm_few_32x64x64", 128, 4 * (32 * 4 + 64 * 2) * 64)?,
            gemm_bf16: [half("gemm_bf16_128x128x32", 128)?, half("gemm_bf16_64x64x32", 64)?],
            conv3x3_bf16: [half("conv3x3_bf16_128x128x32", 128)?, half("conv3x3_bf16_64x64x32", 64)?],
            dot_bf16: half("dot_bf16_64x64x32", 64)?,
            deconv2x2_bf16: half("deconv2x2_bf16_64x64x32", 64)?,
            attention_f32: Heads {
                widths: [
                    full_heads("attention_f32_16x32_d32", 32)?,
                    full_heads("attention_f32_16x32_d64", 64)?,
                    full_heads("attention_f32_16x32_d128", 128)?,
                ],
                queries: 16,
            },
            attention_bf16: Heads {
                widths: [
                    half_heads("attention_bf16_64x64_d32", 32)?,
                    half_heads("attention_bf16_64x64_d64", 64)?,
                    half_heads("attention_bf16_64x64_d128", 128)?,
                ],
                queries: 64,
            },
            attention_join: Function::new(d, "attention_join", 256, 0)?,
            layer_norm: Function::new(d, "layer_norm", 256, 0)?,
            group_norm_partial: Function::new(d, "group_norm_partial", 256, 0)?,
            group_norm_apply: Function::new(d, "group_norm_apply", 256, 0)?,
            add: Function::new(d, "add_rows", 256, 0)?,
            copy: Function::new(d, "copy_rows", 256, 0)?,
            pad: Function::new(d, "pad_rows", 256, 0)?,
            gather: Function::new(d, "gather_rows", 256, 0)?,
            mean_rows: Function::new(d, "mean_rows", 64, 0)?,
            ingest: Function::new(d, "ingest_f32", 256, 0)?,
            patches: Function::new(d, "patches_f32", 256, 0)?,
            upsample_add: Function::new(d, "upsample_add", 256, 0)?,
            roi_align: Function::new(d, "roi_align_f32", 128, 0)?,
            cut: Function::new(d, "cut_f32", 128, 0)?,
            box_sine: Function::new(d, "box_sine_f32", 128, 0)?,
            box_deltas: Function::new(d, "box_deltas_f32", 128, 0)?,
            box_refine: Function::new(d, "box_refine_f32", 128, 0)?,
            hopper: if d.has_hopper() { Some(Hopper::load(d)?) } else { None },
        })
    }
}
