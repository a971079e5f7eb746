//! [`Ops`] on NVIDIA GPUs since Ampere, through the kernels of `kernels/` and nothing but the driver.
//!
//! In [`Precision::Bf16`] weights are stored as bf16, and so is what goes into products and attention and nothing else
//! (the buffers of [`Ops::operand`]). The residual stream, boxes and results are f32 in memory; sums, softmax, norms
//! and epilogues are f32 everywhere. An operand that is f32 in memory is rounded on its way to the tensor cores.
//! [`Precision::F32`] is for checking.
//!
//! All calls of one [`CudaOps`] are enqueued on one stream, from whatever thread; only downloads and masks wait. A stream for each
//! session would keep a device no busier than the encoder alone does, and every picture that sessions share would need
//! events between their streams.
//!
//! Buffers grow and never shrink, and what is given back is kept (`arena`), so that a warm call asks the driver for no
//! memory; what a call needs beside its output (the ids of a gather, the partial sums of a group norm) lies behind the
//! output's elements. A stage reaches the driver as one CUDA graph (`batch`, `graph`).

#[allow(unsafe_code)]
mod arena;
mod arguments;
mod attention;
mod batch;
mod binaries;
mod check;
#[allow(unsafe_code)]
mod clock;
mod dense;
#[allow(unsafe_code)]
mod driver;
mod functions;
#[allow(unsafe_code)]
mod graph;
#[allow(unsafe_code)]
mod launch;
mod masks;
mod memory;
mod norm;
mod picture;
mod rows;
#[allow(unsafe_code)]
mod tensor_map;

use std::sync::Arc;
use std::time::Duration;

pub use binaries::{Binary, all as binaries};
pub use check::check;
pub use clock::Clock;
pub use driver::{Device, Listing, devices, has_driver};
pub use functions::{Kernel, kernels};
pub use memory::{Act, Mat};

use crate::error::{Error, Result};
use crate::image::ImageView;
use crate::ops::{Activation, Attention, Cut, Epilogue, Linear, Norm, Ops, View};
use crate::weights::HostTensor;
use functions::Functions;

/// What matrices and the operands of products are rounded to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// bf16 operands, f32 sums.
    #[default]
    Bf16,
    /// f32 throughout, without tensor cores: to check the rest.
    F32,
}

impl Precision {
    /// What the environment variable `SAM3_PRECISION` asks for, `bf16` where there is none.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` for another value than `bf16` and `f32`.
    pub fn from_env() -> Result<Self> {
        match std::env::var("SAM3_PRECISION").as_deref() {
            Err(std::env::VarError::NotPresent) | Ok("bf16") => Ok(Self::Bf16),
            Ok("f32") => Ok(Self::F32),
            found => Err(Error::invalid(format!("SAM3_PRECISION: expected bf16 or f32, found {found:?}"))),
        }
    }
}

/// Tiles that several blocks may share.
const COUNTERS: usize = 1024;

/// The CUDA back end on one device.
pub struct CudaOps {
    functions: Functions,
    device: Arc<Device>,
    precision: Precision,
    /// Multiprocessors that work is divided among, and kernels are chosen for.
    processors: usize,
    /// What blocks count by that share a tile; all 0 between launches, of which there is one at a time on the one stream.
    counters: Act,
}

impl CudaOps {
    /// Opens the device of this index.
    ///
    /// # Errors
    ///
    /// Those of [`Device::open`].
    pub fn new(index: usize, precision: Precision) -> Result<Self> {
        let device = Device::open(index)?;
        device.bind()?;
        let processors = device.processors() as usize;
        let mut counters = Act::default();
        counters.output(&device, COUNTERS)?;
        counters.write(0, &[0u32; COUNTERS])?;
        Ok(Self { functions: Functions::load(&*device)?, device, precision, processors, counters })
    }

    /// The device.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Blocks of `threads` for `elements`, one each, up to what fills the device several times over.
    fn blocks(&self, elements: usize, threads: u32) -> [usize; 3] {
        let most = self.processors * 16;
        [elements.div_ceil(threads as usize).min(most.max(1)), 1, 1]
    }
}

/// The number that kernels know an activation by.
fn number(act: Activation) -> u32 {
    match act {
        Activation::None => 0,
        Activation::Gelu => 1,
        Activation::Relu => 2,
    }
}

impl Ops for CudaOps {
    type Act = Act;
    type Mat = Mat;
    type Clock = Clock;

    fn stage<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<(T, Clock)> {
        self.device.timed(work)
    }

    fn elapsed(&self, clock: Clock) -> Result<Duration> {
        clock.elapsed()
    }

    fn operand() -> Act {
        Act::operand()
    }

    fn reserve(&self, act: &mut Act, len: usize) -> Result<()> {
        act.reserve(&self.device, len)
    }

    fn upload(&self, src: &[f32], dst: &mut Act) -> Result<()> {
        dst.output(&self.device, src.len())?;
        dst.write(0, src)
    }

    fn download(&self, src: &Act, offset: usize, dst: &mut [f32]) -> Result<()> {
        src.read(offset, dst)
    }

    fn matrix(&self, parts: &[HostTensor]) -> Result<Mat> {
        Mat::stack(&self.device, parts, self.precision == Precision::Bf16)
    }

    fn linear(&self, x: View<'_, Act>, l: &Linear<Self>, m: usize, ep: Epilogue<'_, Act>, y: &mut Act) -> Result<()> {
        dense::linear(self, x, l, m, ep, y)
    }

    fn dot(&self, a: View<'_, Act>, m: usize, b: View<'_, Act>, n: usize, k: usize, y: &mut Act) -> Result<()> {
        dense::dot(self, a, m, b, n, k, y)
    }

    fn conv3x3(&self, x: &Act, l: &Linear<Self>, h: usize, w: usize, y: &mut Act) -> Result<()> {
        dense::conv3x3(self, x, l, [h, w], y)
    }

    fn deconv2x2(
        &self,
        x: &Act,
        l: &Linear<Self>,
        h: usize,
        w: usize,
        ep: Epilogue<'_, Act>,
        y: &mut Act,
    ) -> Result<()> {
        dense::deconv2x2(self, x, l, [h, w], ep, y)
    }

    fn attention(
        &self,
        q: View<'_, Act>,
        k: View<'_, Act>,
        v: View<'_, Act>,
        spec: &Attention<'_, Act>,
        y: &mut Act,
    ) -> Result<()> {
        attention::attention(self, q, k, v, spec, y)
    }

    fn layer_norm(&self, x: View<'_, Act>, norm: &Norm<Self>, rows: usize, act: Activation, y: &mut Act) -> Result<()> {
        norm::layer_norm(self, x, norm, rows, act, y)
    }

    fn group_norm(
        &self,
        x: &Act,
        norm: &Norm<Self>,
        groups: usize,
        rows: usize,
        act: Activation,
        y: &mut Act,
    ) -> Result<()> {
        norm::group_norm(self, x, norm, groups, rows, act, y)
    }

    fn add(
        &self,
        a: View<'_, Act>,
        b: View<'_, Act>,
        b_rows: usize,
        rows: usize,
        width: usize,
        y: &mut Act,
    ) -> Result<()> {
        rows::add(self, a, b, b_rows, [rows, width], y)
    }

    fn copy(&self, x: View<'_, Act>, rows: usize, width: usize, y: &mut Act, offset: usize) -> Result<()> {
        rows::copy(self, x, [rows, width], y, offset)
    }

    fn gather(&self, table: &Mat, ids: &[u32], y: &mut Act) -> Result<()> {
        rows::gather(self, table, ids, y)
    }

    fn mean_rows(&self, x: View<'_, Act>, rows: usize, width: usize, y: &mut Act) -> Result<()> {
        rows::mean_rows(self, x, [rows, width], y)
    }

    fn ingest(&self, picture: &ImageView<'_>, side: usize, y: &mut Act) -> Result<()> {
        picture::ingest(self, picture, side, y)
    }

    fn cut(&self, cut: &Cut, masks: &mut [(&[f32], &mut [u64])]) -> Result<()> {
        masks::cut(self, cut, masks)
    }

    fn patches(&self, x: &Act, h: usize, w: usize, c: usize, p: usize, y: &mut Act) -> Result<()> {
        picture::patches(self, x, [h, w], c, p, y)
    }

    fn upsample_add(
        &self,
        x: &Act,
        h: usize,
        w: usize,
        skip: &Act,
        oh: usize,
        ow: usize,
        c: usize,
        y: &mut Act,
    ) -> Result<()> {
        picture::upsample_add(self, x, [h, w], skip, [oh, ow], c, y)
    }

    fn roi_align(
        &self,
        x: &Act,
        h: usize,
        w: usize,
        c: usize,
        boxes: &[[f32; 4]],
        size: usize,
        y: &mut Act,
    ) -> Result<()> {
        picture::roi_align(self, x, [h, w], c, boxes, size, y)
    }

    fn box_sine(&self, boxes: &Act, n: usize, features: usize, y: &mut Act) -> Result<()> {
        picture::box_sine(self, boxes, n, features, y)
    }

    fn box_deltas(&self, boxes: &Act, n: usize, height: usize, width: usize, dx: &mut Act, dy: &mut Act) -> Result<()> {
        picture::box_deltas(self, boxes, n, [height, width], dx, dy)
    }

    fn box_refine(&self, delta: &Act, boxes: &Act, n: usize, y: &mut Act) -> Result<()> {
        picture::box_refine(self, delta, boxes, n, y)
    }
}
