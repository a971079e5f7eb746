//! The driver: whether it is there, and a device of it. All of it is reached through cudarc's thin layer, since a missing
//! library or symbol makes cudarc panic, and these calls are made only after what they need was seen.

use std::ffi::{CString, c_void};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cudarc::driver::{DriverError, result, sys};

use super::arena::Kept;
pub use super::arena::Memory;
use super::batch::Batches;
use super::binaries::{self, Binary};
use super::clock::Events;
use crate::error::{Error, ErrorKind, Result};

/// What `cuDriverGetVersion` says at least: the kernels' binaries load from CUDA 12.0 on (driver 525).
const OLDEST_DRIVER: i32 = 12_000;

/// Turns a driver's refusal into an error that says what was tried and, where there is something, what to do.
pub(super) fn failed(what: &str, e: DriverError) -> Error {
    use sys::CUresult as R;
    let kind = match e.0 {
        R::CUDA_ERROR_OUT_OF_MEMORY => ErrorKind::OutOfMemory,
        R::CUDA_ERROR_NO_BINARY_FOR_GPU
        | R::CUDA_ERROR_INVALID_IMAGE
        | R::CUDA_ERROR_INVALID_PTX
        | R::CUDA_ERROR_UNSUPPORTED_PTX_VERSION => ErrorKind::Unsupported,
        _ => ErrorKind::Device,
    };
    let advice = match e.0 {
        R::CUDA_ERROR_OUT_OF_MEMORY => "; close what else uses the device, or use the CPU",
        R::CUDA_ERROR_NO_DEVICE => {
            "; see whether nvidia-smi lists one and CUDA_VISIBLE_DEVICES hides none, or use the CPU"
        }
        R::CUDA_ERROR_NO_BINARY_FOR_GPU
        | R::CUDA_ERROR_INVALID_IMAGE
        | R::CUDA_ERROR_INVALID_PTX
        | R::CUDA_ERROR_UNSUPPORTED_PTX_VERSION
        | R::CUDA_ERROR_SYSTEM_DRIVER_MISMATCH => "; update NVIDIA's driver, or use the CPU",
        // After these the driver refuses everything in this process.
        R::CUDA_ERROR_ILLEGAL_ADDRESS
        | R::CUDA_ERROR_LAUNCH_FAILED
        | R::CUDA_ERROR_LAUNCH_TIMEOUT
        | R::CUDA_ERROR_HARDWARE_STACK_ERROR
        | R::CUDA_ERROR_ILLEGAL_INSTRUCTION
        | R::CUDA_ERROR_MISALIGNED_ADDRESS
        | R::CUDA_ERROR_INVALID_ADDRESS_SPACE
        | R::CUDA_ERROR_INVALID_PC
        | R::CUDA_ERROR_ECC_UNCORRECTABLE => "; the device is lost to this process: start it anew, or use the CPU",
        _ => "",
    };
    let name = e.error_name().map_or_else(|_| format!("error {}", e.0 as u32), |name| name.to_string_lossy().into());
    Error::new(kind, format!("{what}: {name}{advice}"))
}

/// Number of CUDA devices, at least 1.
///
/// # Errors
///
/// `Device` if there is no driver or no device; `Unsupported` if the driver is too old.
pub fn devices() -> Result<usize> {
    // SAFETY: loading libcuda runs its initialisers, which every CUDA program relies on being harmless.
    if !unsafe { sys::is_culib_present() } {
        let message =
            "no CUDA: the driver's library libcuda.so.1 was not found; install NVIDIA's driver, or use the CPU";
        return Err(Error::new(ErrorKind::Device, message));
    }
    result::init().map_err(|e| failed("no CUDA: the driver does not start", e))?;
    let mut version = 0;
    // SAFETY: the library is there, and writes one integer.
    unsafe { sys::cuDriverGetVersion(&mut version) }.result().map_err(|e| failed("version of the CUDA driver", e))?;
    if version < OLDEST_DRIVER {
        let (major, minor) = (version / 1000, version % 1000 / 10);
        let message = format!(
            "no CUDA: expected a driver for CUDA 12.0 or newer (525), found one for {major}.{minor}; update it, or use the CPU"
        );
        return Err(Error::new(ErrorKind::Unsupported, message));
    }
    let count = result::device::get_count().map_err(|e| failed("no CUDA: counting devices", e))?;
    match usize::try_from(count) {
        Ok(count) if count > 0 => Ok(count),
        _ => Err(failed("no CUDA", DriverError(sys::CUresult::CUDA_ERROR_NO_DEVICE))),
    }
}

/// Whether there is a driver at all, of whatever age.
pub fn has_driver() -> bool {
    // SAFETY: as in `devices`.
    unsafe { sys::is_culib_present() }
}

/// What can be said of a device without opening it.
pub struct Listing {
    /// What the device calls itself.
    pub name: String,
    /// Compute capability, major and minor.
    pub capability: (u32, u32),
    /// Bytes of its memory, all and free; `None` where the driver does not say, as of a device that another process has
    /// for itself.
    pub memory: Option<(u64, u64)>,
}

impl Listing {
    /// Looks at the device of this index. The driver tells free memory within a context alone, so this makes the
    /// device's own for a moment, unless it is in use already; the calling thread gets its own back.
    ///
    /// # Errors
    ///
    /// Those of [`devices`]; `InvalidArgument` for an index that is not there; `Unsupported` if there are no kernels
    /// for it.
    pub fn of(index: usize) -> Result<Self> {
        let Found { device, name, capability, .. } = find(index)?;
        Ok(Self { name, capability, memory: memory_of(device) })
    }
}

/// All and free bytes of a device's memory.
fn memory_of(device: sys::CUdevice) -> Option<(u64, u64)> {
    let before = result::ctx::get_current().ok()?;
    // SAFETY: `device` was given out by the driver; released below, once.
    let context = unsafe { result::primary_ctx::retain(device) }.ok()?;
    // SAFETY: the context is retained.
    let bound = unsafe { result::ctx::set_current(context) };
    let told = bound.and_then(|()| result::mem_get_info());
    // SAFETY: `before` was current on this thread, or is null and leaves it without one; `context` is used no more.
    unsafe {
        let _ = result::ctx::set_current(before.unwrap_or(std::ptr::null_mut()));
        let _ = result::primary_ctx::release(device);
    }
    told.ok().map(|(free, total)| (total as u64, free as u64))
}

/// A device that there are kernels for.
struct Found {
    device: sys::CUdevice,
    name: String,
    capability: (u32, u32),
    binary: &'static Binary,
}

/// An attribute of a device, 0 for what is negative.
fn attribute(device: sys::CUdevice, which: sys::CUdevice_attribute) -> Result<u32> {
    // SAFETY: `device` was given out by the driver.
    let value = unsafe { result::device::get_attribute(device, which) };
    value.map(|v| v.max(0) as u32).map_err(|e| failed("attribute of the device", e))
}

/// The device of this index, if it is there and there are kernels for it.
fn find(index: usize) -> Result<Found> {
    let count = devices()?;
    if index >= count {
        return Err(Error::invalid(format!("device cuda:{index}: expected an index below {count}")));
    }
    let device = result::device::get(index as i32).map_err(|e| failed(&format!("opening device cuda:{index}"), e))?;
    let name = result::device::get_name(device).map_err(|e| failed("name of the device", e))?;
    use sys::CUdevice_attribute as A;
    let capability = (
        attribute(device, A::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
        attribute(device, A::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
    );
    let Some(binary) = binaries::choose(capability) else {
        let (major, minor) = capability;
        let message = format!("{name}: expected compute capability 8.0 or newer, found {major}.{minor}");
        return Err(Error::new(ErrorKind::Unsupported, message));
    };
    if attribute(device, A::CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED)? == 0 {
        let message = format!("{name}: expected stream-ordered memory, found a device without");
        return Err(Error::new(ErrorKind::Unsupported, message));
    }
    Ok(Found { device, name, capability, binary })
}

/// A device with its context, one stream, and the kernels for it.
pub struct Device {
    context: sys::CUcontext,
    stream: sys::CUstream,
    module: sys::CUmodule,
    device: sys::CUdevice,
    name: String,
    capability: (u32, u32),
    processors: u32,
    binary: &'static Binary,
    kept: Mutex<Kept>,
    batches: Mutex<Batches>,
    events: Mutex<Events>,
}

// SAFETY: the handles are the driver's, which may be used from any thread; `bind` makes the context current first.
unsafe impl Send for Device {}
// SAFETY: as above; the driver locks what it shares, and one stream keeps the order in which work was enqueued.
unsafe impl Sync for Device {}

impl Device {
    /// Opens the device of this index and loads the kernels for it.
    ///
    /// # Errors
    ///
    /// Those of [`devices`]; `InvalidArgument` for an index that is not there; `Unsupported` below compute capability
    /// 8.0.
    pub fn open(index: usize) -> Result<Arc<Self>> {
        let Found { device, name, capability, binary } = find(index)?;
        let (major, minor) = capability;
        let processors = attribute(device, sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?;
        // SAFETY: `device` was given out by the driver; `drop` releases the context once.
        let context = unsafe { result::primary_ctx::retain(device) }.map_err(|e| failed("context of the device", e))?;
        // From here on `drop` cleans up, also what is still null.
        let (stream, module) = (std::ptr::null_mut(), std::ptr::null_mut());
        let mut this = Self {
            context,
            stream,
            module,
            device,
            name,
            capability,
            processors,
            binary,
            kept: Mutex::default(),
            batches: Mutex::default(),
            events: Mutex::default(),
        };
        this.bind()?;
        this.stream = result::stream::create(result::stream::StreamKind::NonBlocking)
            .map_err(|e| failed("stream of the device", e))?;
        let image = binary.unpack()?;
        // SAFETY: `unpack` gives out a whole cubin, or PTX that ends with a NUL.
        this.module = unsafe { result::module::load_data(image.as_ptr().cast::<c_void>()) }
            .map_err(|e| failed(&format!("loading the kernels for compute capability {major}.{minor}"), e))?;
        Ok(Arc::new(this))
    }

    /// What the device calls itself.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Compute capability, major and minor.
    pub fn capability(&self) -> (u32, u32) {
        self.capability
    }

    /// Multiprocessors.
    pub fn processors(&self) -> u32 {
        self.processors
    }

    /// What the loaded kernels were compiled for, as `sm_90a`.
    pub fn target(&self) -> &'static str {
        self.binary.target()
    }

    pub(super) fn stream(&self) -> sys::CUstream {
        self.stream
    }

    pub(super) fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn batches(&self) -> MutexGuard<'_, Batches> {
        self.batches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn events(&self) -> MutexGuard<'_, Events> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the context current on this thread.
    pub(super) fn bind(&self) -> Result<()> {
        // SAFETY: the context lives as long as `self`.
        unsafe { result::ctx::set_current(self.context) }.map_err(|e| failed("binding the device's context", e))
    }

    /// A kernel of the module, by name; called once per kernel at start.
    pub(super) fn function(&self, name: &'static str) -> Result<sys::CUfunction> {
        let symbol = CString::new(name).expect("names of kernels hold no NUL");
        // SAFETY: the module was loaded by `open`; the function lives as long as it.
        unsafe { result::module::get_function(self.module, symbol) }
            .map_err(|e| failed(&format!("kernel {name} of the device's binary"), e))
    }

    /// Lets launches of a kernel have more shared memory than the 48 KiB that every kernel may.
    pub(super) fn allow_shared(&self, function: sys::CUfunction, bytes: u32) -> Result<()> {
        let which = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        // SAFETY: the function is of this device's module.
        unsafe { result::function::set_function_attribute(function, which, bytes as i32) }
            .map_err(|e| failed(&format!("{bytes} bytes of shared memory"), e))
    }

    /// Waits for all enqueued work.
    pub(super) fn synchronize(&self) -> Result<()> {
        self.bind()?;
        // SAFETY: the stream is this device's.
        unsafe { result::stream::synchronize(self.stream) }.map_err(|e| failed("waiting for the device", e))
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // Nobody is left to be told of a failure, and a context that failed is of no more use.
        let _ = self.bind();
        // SAFETY: each handle was made by `open`, or is null and skipped, and is not used again. All memory is gone or kept,
        // and all clocks, since they hold the device.
        unsafe {
            if !self.stream.is_null() {
                let _ = result::stream::synchronize(self.stream);
                self.batches.get_mut().unwrap_or_else(PoisonError::into_inner).clear();
                self.events.get_mut().unwrap_or_else(PoisonError::into_inner).clear();
                self.kept.get_mut().unwrap_or_else(PoisonError::into_inner).release(self.stream);
                if !self.module.is_null() {
                    let _ = result::module::unload(self.module);
                }
                let _ = result::stream::destroy(self.stream);
            }
            let _ = result::primary_ctx::release(self.device);
        }
    }
}
