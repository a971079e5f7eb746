//! The one place that knows which back ends there are: picks one, and hides its types.
//!
//! The model is generic over [`Ops`]; everything above it is not. [`Running`] is the seam: a dozen object-safe calls a
//! session makes, with features passed as `dyn Any` and recognised by the back end that made them.

use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::cpu::{CpuOps, Isa};
use crate::error::{Error, ErrorKind, Result};
use crate::image::ImageView;
use crate::model::{
    Control, Exemplar, Grounding, ImageFeatures, Masks, ObjectAnswer, ObjectPrompt, Sam3, Scratch, Stage, TextFeatures,
    Wanted,
};
use crate::ops::{Cut, Ops};
use crate::options::{Device, ModelOptions, Precision};
use crate::reference::ReferenceOps;
use crate::weights::Checkpoint;

/// What comes before [`Stage::EncodeImage`], in timing tables.
pub const RESIZE: &str = "resize";

/// Features of a picture or a phrase, on whatever device.
pub type Features = Arc<dyn Any + Send + Sync>;

/// Weights on a device, shared by sessions.
pub trait Loaded: Send + Sync {
    /// New scratch on the same weights.
    fn start(self: Arc<Self>) -> Box<dyn Running>;
    /// Side of a low-resolution mask.
    fn mask_side(&self) -> usize;
    /// [`Ops::cut`]
    fn cut(&self, cut: &Cut, masks: &mut [(&[f32], &mut [u64])]) -> Result<()>;
}

/// The stages of one session.
pub trait Running: Send {
    /// Takes the picture that [`Running::encode_image`] is to look at.
    fn ingest(&mut self, picture: &ImageView<'_>) -> Result<()>;
    fn encode_image(&mut self, wanted: Wanted, control: &Control<'_>) -> Result<Features>;
    fn encode_text(&mut self, ids: &[u32], control: &Control<'_>) -> Result<Features>;
    fn ground(
        &mut self,
        image: &Features,
        text: &Features,
        exemplars: &[Exemplar],
        control: &Control<'_>,
    ) -> Result<Grounding>;
    fn masks(
        &mut self,
        image: &Features,
        grounding: &Grounding,
        queries: &[usize],
        semantic: bool,
        control: &Control<'_>,
    ) -> Result<Masks>;
    fn segment(
        &mut self,
        image: &Features,
        prompt: &ObjectPrompt,
        multimask: bool,
        control: &Control<'_>,
    ) -> Result<ObjectAnswer>;
    /// What the stages since the last call of this took where they ran, in their order; waits for them.
    fn take_times(&mut self) -> Vec<(&'static str, Duration)>;
}

/// A back end with a model on it.
struct OnDevice<O: Ops> {
    ops: O,
    model: Sam3<O>,
}

impl<O: Ops> Loaded for OnDevice<O> {
    fn start(self: Arc<Self>) -> Box<dyn Running> {
        Box::new(Worker { on: self, scratch: Scratch::default(), times: Vec::new(), running: VecDeque::new() })
    }

    fn mask_side(&self) -> usize {
        self.model.mask_side()
    }

    fn cut(&self, cut: &Cut, masks: &mut [(&[f32], &mut [u64])]) -> Result<()> {
        self.ops.cut(cut, masks)
    }
}

/// A session's scratch beside the shared weights.
struct Worker<O: Ops> {
    on: Arc<OnDevice<O>>,
    scratch: Scratch<O>,
    /// Times of stages that have ended.
    times: Vec<(&'static str, Duration)>,
    /// Clocks of the latest stages, which may still run.
    running: VecDeque<(&'static str, O::Clock)>,
}

/// Stages that have ended when so many later ones were asked for: a call waits for its answer after five at most.
const RUNNING: usize = 8;

impl<O: Ops> Worker<O> {
    /// Runs a stage under its clock.
    fn timed<T>(
        &mut self,
        name: &'static str,
        work: impl FnOnce(&OnDevice<O>, &mut Scratch<O>) -> Result<T>,
    ) -> Result<T> {
        let (result, clock) = self.on.ops.stage(|| work(&self.on, &mut self.scratch))?;
        if self.running.len() == RUNNING {
            self.read_clock();
        }
        self.running.push_back((name, clock));
        Ok(result)
    }

    /// Reads the oldest clock. One that cannot be read was broken by what the next download reports.
    fn read_clock(&mut self) {
        let Some((name, clock)) = self.running.pop_front() else { return };
        let took = self.on.ops.elapsed(clock).unwrap_or_default();
        match self.times.iter_mut().find(|(known, _)| *known == name) {
            Some((_, sum)) => *sum += took,
            None => self.times.push((name, took)),
        }
    }
}

impl<O: Ops> Running for Worker<O> {
    fn ingest(&mut self, picture: &ImageView<'_>) -> Result<()> {
        self.timed(RESIZE, |on, scratch| on.model.ingest(&on.ops, picture, scratch))
    }

    fn encode_image(&mut self, wanted: Wanted, control: &Control<'_>) -> Result<Features> {
        self.timed(Stage::EncodeImage.name(), |on, scratch| {
            Ok(Arc::new(on.model.encode_image(&on.ops, wanted, scratch, control)?) as Features)
        })
    }

    fn encode_text(&mut self, ids: &[u32], control: &Control<'_>) -> Result<Features> {
        self.timed(Stage::EncodeText.name(), |on, scratch| {
            Ok(Arc::new(on.model.encode_text(&on.ops, ids, scratch, control)?) as Features)
        })
    }

    fn ground(
        &mut self,
        image: &Features,
        text: &Features,
        exemplars: &[Exemplar],
        control: &Control<'_>,
    ) -> Result<Grounding> {
        let image = known::<ImageFeatures<O>>(image)?;
        let text = known::<TextFeatures<O>>(text)?;
        self.timed(Stage::Ground.name(), |on, scratch| {
            on.model.ground(&on.ops, image, text, exemplars, scratch, control)
        })
    }

    fn masks(
        &mut self,
        image: &Features,
        grounding: &Grounding,
        queries: &[usize],
        semantic: bool,
        control: &Control<'_>,
    ) -> Result<Masks> {
        let image = known::<ImageFeatures<O>>(image)?;
        self.timed(Stage::Masks.name(), |on, scratch| {
            on.model.masks(&on.ops, image, grounding, queries, semantic, scratch, control)
        })
    }

    fn segment(
        &mut self,
        image: &Features,
        prompt: &ObjectPrompt,
        multimask: bool,
        control: &Control<'_>,
    ) -> Result<ObjectAnswer> {
        let image = known::<ImageFeatures<O>>(image)?;
        self.timed(Stage::Segment.name(), |on, scratch| {
            on.model.segment(&on.ops, image, prompt, multimask, scratch, control)
        })
    }

    fn take_times(&mut self) -> Vec<(&'static str, Duration)> {
        while !self.running.is_empty() {
            self.read_clock();
        }
        std::mem::take(&mut self.times)
    }
}

/// Sessions compare models before they come here, so features are always of the back end's own types.
fn known<T: 'static>(features: &Features) -> Result<&T> {
    features.downcast_ref().ok_or_else(|| Error::new(ErrorKind::Internal, "features of another back end"))
}

/// Most threads of a CPU back end. No machine has more cores; a slip of the finger must not start 100,000 of them.
const MAX_THREADS: usize = 1024;

/// A model on a device.
pub struct Opened {
    pub loaded: Arc<dyn Loaded>,
    /// Which device that is, in words.
    pub device: String,
    /// Why it is no GPU although one would have been taken.
    pub passed_over: Option<PassedOver>,
}

/// Why a model runs on the CPU although the device was left open ([`Device::Auto`]).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PassedOver {
    /// Whether there is a driver at all. Without one nobody expects a GPU to be used; with one somebody may.
    pub driver: bool,
    /// What kept the GPU from being used, and what to do.
    pub reason: String,
}

impl fmt::Display for PassedOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

/// Loads `checkpoint` on the device that `options` ask for.
pub fn load(checkpoint: &Checkpoint, options: &ModelOptions) -> Result<Opened> {
    if let Some(n) = options.threads.filter(|n| !(1..=MAX_THREADS).contains(n)) {
        return Err(Error::invalid(format!("threads: expected 1 to {MAX_THREADS}, found {n}")));
    }
    // Also where none of them is used.
    options.isa.as_deref().map(Isa::named).transpose()?;
    match options.device {
        #[cfg(feature = "cuda")]
        Device::Auto => match load_any_cuda(options, checkpoint)? {
            Ok(opened) => Ok(opened),
            Err(passed_over) => {
                let refused = |e: Error| match e.kind() {
                    ErrorKind::Unsupported => e.with_source(passed_over.reason.clone()),
                    _ => e,
                };
                let opened = load_cpu(options, checkpoint).map_err(refused)?;
                Ok(Opened { passed_over: Some(passed_over), ..opened })
            }
        },
        #[cfg(not(feature = "cuda"))]
        Device::Auto => load_cpu(options, checkpoint),
        Device::Cpu => load_cpu(options, checkpoint),
        Device::Reference => {
            in_f32("reference", options.precision)?;
            on(ReferenceOps, checkpoint, "reference, f64, 1 thread".into())
        }
        #[cfg(feature = "cuda")]
        Device::Cuda(index) => load_cuda(index, options, checkpoint),
        #[cfg(not(feature = "cuda"))]
        Device::Cuda(index) => {
            let message = format!("device cuda:{index}: this build has no CUDA back end; use the CPU");
            Err(Error::new(ErrorKind::Unsupported, message))
        }
    }
}

/// Loads `checkpoint` on the CPU.
fn load_cpu(options: &ModelOptions, checkpoint: &Checkpoint) -> Result<Opened> {
    in_f32("cpu", options.precision)?;
    let ops = CpuOps::new(options.threads, options.isa.as_deref().map_or_else(Isa::from_env, Isa::named)?)?;
    let words = format!("CPU, {} threads, {} kernels", ops.threads(), ops.isa());
    on(ops, checkpoint, words)
}

/// What back ends without matrix units for short floats have to say about a wish for them.
fn in_f32(device: &str, precision: Precision) -> Result<()> {
    match precision {
        Precision::Auto | Precision::F32 => Ok(()),
        Precision::Bf16 => {
            let message = format!("precision: device {device} computes in f32 alone, found bf16");
            Err(Error::new(ErrorKind::Unsupported, message))
        }
    }
}

/// Loads `checkpoint` on the first GPU that can take it, or says why there is none.
#[cfg(feature = "cuda")]
fn load_any_cuda(options: &ModelOptions, checkpoint: &Checkpoint) -> Result<Result<Opened, PassedOver>> {
    use crate::cuda;

    let count = match cuda::devices() {
        Ok(count) => count,
        Err(e) => return Ok(Err(PassedOver { driver: cuda::has_driver(), reason: e.to_string() })),
    };
    let mut reasons = Vec::new();
    for index in 0..count {
        match load_cuda(index, options, checkpoint) {
            Ok(opened) => return Ok(Ok(opened)),
            // A damaged checkpoint is as damaged on a CPU.
            Err(e) if !matches!(e.kind(), ErrorKind::Device | ErrorKind::Unsupported | ErrorKind::OutOfMemory) => {
                return Err(e);
            }
            Err(e) => reasons.push(e.to_string()),
        }
    }
    Ok(Err(PassedOver { driver: true, reason: reasons.join("; ") }))
}

/// Loads `checkpoint` on the CUDA device of this index.
#[cfg(feature = "cuda")]
fn load_cuda(index: usize, options: &ModelOptions, checkpoint: &Checkpoint) -> Result<Opened> {
    use crate::cuda::{self, CudaOps};

    let precision = match options.precision {
        Precision::Auto => cuda::Precision::from_env()?,
        Precision::F32 => cuda::Precision::F32,
        Precision::Bf16 => cuda::Precision::Bf16,
    };
    let place = |e: Error| e.at(format!("device cuda:{index}"));
    let mut ops = CudaOps::new(index, precision).map_err(place)?;
    // Slowness is no matter: it is a few megaflops.
    cuda::check(&mut ops, &CpuOps::new(Some(1), Isa::best())?).map_err(place)?;
    let (major, minor) = ops.device().capability();
    let words = format!("cuda:{index}, {}, compute capability {major}.{minor}, {precision:?}", ops.device().name());
    on(ops, checkpoint, words).map_err(|e| match e.kind() {
        ErrorKind::Device | ErrorKind::OutOfMemory => place(e),
        _ => e,
    })
}

fn on<O: Ops>(ops: O, checkpoint: &Checkpoint, device: String) -> Result<Opened> {
    let model = Sam3::load(&ops, checkpoint)?;
    Ok(Opened { loaded: Arc::new(OnDevice { ops, model }), device, passed_over: None })
}

/// What this machine offers.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Machine {
    /// The processor's name as the system has it; `None` where the system does not say (`/proc/cpuinfo`).
    pub cpu: Option<String>,
    /// Physical cores, the CPU back end's default number of threads.
    pub cores: usize,
    /// The instruction set whose kernels are chosen: the best there is, or `SAM3_ISA`.
    pub isa: &'static str,
    /// Instruction sets this machine has kernels for.
    pub isas: Vec<&'static str>,
    /// Devices a model can be opened on, as [`Device`] spells them.
    pub devices: Vec<String>,
    /// Bytes of main memory, installed and not in use; `None` where the system does not say (`/proc/meminfo`).
    pub memory: Option<(u64, u64)>,
    /// NVIDIA GPUs that there are kernels for; none in a build without CUDA, and where there is no driver.
    pub gpus: Vec<Gpu>,
    /// Why there is no GPU, or why some that are there are not listed; `None` in a build without CUDA.
    pub passed_over: Option<PassedOver>,
}

/// An NVIDIA GPU.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Gpu {
    /// What [`Device::Cuda`] takes.
    pub index: usize,
    /// What the driver calls it.
    pub name: String,
    /// Compute capability, major and minor.
    pub capability: (u32, u32),
    /// Bytes of its memory, installed and not in use; `None` where the driver does not say.
    pub memory: Option<(u64, u64)>,
}

impl Machine {
    /// Looks at the machine. Fails if `SAM3_ISA` names an instruction set that is not there.
    pub fn look() -> Result<Self> {
        let (gpus, passed_over) = gpus();
        Ok(Self {
            cpu: std::fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| processor(&text)),
            cores: crate::cpu::physical_cores(),
            isa: Isa::from_env()?.name(),
            isas: Isa::available().iter().map(|i| i.name()).collect(),
            devices: devices(&gpus).map(|d| d.to_string()).collect(),
            memory: std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| memory(&text)),
            gpus,
            passed_over,
        })
    }
}

/// Devices a model can be opened on, the fastest first.
fn devices(gpus: &[Gpu]) -> impl Iterator<Item = Device> {
    gpus.iter().map(|gpu| Device::Cuda(gpu.index)).chain([Device::Cpu, Device::Reference])
}

/// GPUs that there are kernels for, and what is wrong with the others.
#[cfg(feature = "cuda")]
fn gpus() -> (Vec<Gpu>, Option<PassedOver>) {
    use crate::cuda::{Listing, devices, has_driver};

    let count = match devices() {
        Ok(count) => count,
        // No driver is no failure: there is the CPU.
        Err(e) => return (Vec::new(), Some(PassedOver { driver: has_driver(), reason: e.to_string() })),
    };
    let (mut gpus, mut reasons) = (Vec::new(), Vec::new());
    for index in 0..count {
        match Listing::of(index) {
            Ok(Listing { name, capability, memory }) => gpus.push(Gpu { index, name, capability, memory }),
            Err(e) => reasons.push(format!("cuda:{index}: {e}")),
        }
    }
    let reason = Some(reasons.join("; ")).filter(|r| !r.is_empty());
    (gpus, reason.map(|reason| PassedOver { driver: true, reason }))
}

#[cfg(not(feature = "cuda"))]
fn gpus() -> (Vec<Gpu>, Option<PassedOver>) {
    (Vec::new(), None)
}

/// The first processor's name: a line of its own on x86, on Arm only the numbers of its maker and its design.
fn processor(cpuinfo: &str) -> Option<String> {
    let field = |name: &str| {
        let line = cpuinfo.lines().find_map(|l| l.strip_prefix(name)?.trim_start().strip_prefix(':'))?;
        Some(line.trim().to_owned()).filter(|v| !v.is_empty())
    };
    let arm = || Some(format!("implementer {}, part {}", field("CPU implementer")?, field("CPU part")?));
    field("model name").or_else(arm)
}

/// Installed and available bytes by the account of Linux, whose `kB` are 1024 bytes.
fn memory(meminfo: &str) -> Option<(u64, u64)> {
    let bytes = |name: &str| {
        let line = meminfo.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
    };
    Some((bytes("MemTotal")?, bytes("MemAvailable")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_have_names_or_numbers() {
        let x86 = "processor\t: 0\nmodel\t\t: 2\nmodel name\t: A CPU @ 2 GHz\nmodel name\t: B\n";
        assert_eq!(processor(x86).as_deref(), Some("A CPU @ 2 GHz"));
        let arm = "processor : 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd40\n";
        assert_eq!(processor(arm).as_deref(), Some("implementer 0x41, part 0xd40"));
        assert_eq!(processor("model name :\nCPU part : 1"), None);
    }

    #[test]
    fn memory_is_read_from_the_lines_that_name_it() {
        let text = "MemTotal:       24000000 kB\nMemFree:  1 kB\nMemAvailable:    9000 kB\n";
        assert_eq!(memory(text), Some((24_000_000 * 1024, 9000 * 1024)));
        for damaged in ["", "MemTotal: 5 kB", "MemTotal: x kB\nMemAvailable: 1 kB", "MemTotal: 5\nMemAvailable: 5"] {
            assert_eq!(memory(damaged), None, "{damaged:?}");
        }
    }
}
