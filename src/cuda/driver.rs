//! The driver: whether it is there, a device of it, its memory. All of it is reached through cudarc's thin layer, since a
//! missing library or symbol makes cudarc panic, and these calls are made only after what they need was seen.

use std::ffi::{CString, c_void};
use std::sync::Arc;

use cudarc::driver::{DriverError, result, sys};

use super::binaries;
use crate::error::{Error, ErrorKind, Result};

/// What `cuDriverGetVersion` says at least: the kernels' binaries load from CUDA 12.0 on (driver 525).
const OLDEST_DRIVER: i32 = 12_000;

/// Turns a driver's refusal into an error that says what was tried.
pub(super) fn failed(what: &str, e: DriverError) -> Error {
    let kind = match e.0 {
        sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => ErrorKind::OutOfMemory,
        _ => ErrorKind::Device,
    };
    let name = e.error_name().map_or_else(|_| format!("error {}", e.0 as u32), |name| name.to_string_lossy().into());
    Error::new(kind, format!("{what}: {name}"))
}

/// Number of CUDA devices, at least 1.
///
/// # Errors
///
/// `Device` if there is no driver or no device; `Unsupported` if the driver is too old.
pub fn devices() -> Result<usize> {
    // SAFETY: loading libcuda runs its initialisers, which every CUDA program relies on being harmless.
    if !unsafe { sys::is_culib_present() } {
        return Err(Error::new(ErrorKind::Device, "no CUDA: the driver's library libcuda.so.1 was not found"));
    }
    result::init().map_err(|e| failed("no CUDA: the driver does not start", e))?;
    let mut version = 0;
    // SAFETY: the library is there, and writes one integer.
    unsafe { sys::cuDriverGetVersion(&mut version) }.result().map_err(|e| failed("version of the CUDA driver", e))?;
    if version < OLDEST_DRIVER {
        let (major, minor) = (version / 1000, version % 1000 / 10);
        let message = format!("no CUDA: expected a driver for CUDA 12.0 or newer, found one for {major}.{minor}");
        return Err(Error::new(ErrorKind::Unsupported, message));
    }
    let count = result::device::get_count().map_err(|e| failed("no CUDA: counting devices", e))?;
    match usize::try_from(count) {
        Ok(count) if count > 0 => Ok(count),
        _ => Err(Error::new(ErrorKind::Device, "no CUDA: the driver found no device")),
    }
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
    binary: &'static [u8],
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
        let mut this = Self { context, stream, module, device, name, capability, processors };
        this.bind()?;
        this.stream = result::stream::create(result::stream::StreamKind::NonBlocking)
            .map_err(|e| failed("stream of the device", e))?;
        // SAFETY: `choose` gives out a whole cubin, or PTX that ends with a NUL (`binaries_are_what_they_say`).
        this.module = unsafe { result::module::load_data(binary.as_ptr().cast::<c_void>()) }
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

    pub(super) fn stream(&self) -> sys::CUstream {
        self.stream
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

    /// Lets a kernel have this much dynamic shared memory; without it, 48 KiB are the most.
    pub(super) fn allow_shared(&self, function: sys::CUfunction, bytes: usize) -> Result<()> {
        let attribute = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        // SAFETY: the function is of this device's module.
        unsafe { result::function::set_function_attribute(function, attribute, bytes as i32) }
            .map_err(|e| failed(&format!("{bytes} bytes of shared memory for a kernel"), e))
    }

    /// Waits for all enqueued work.
    pub(super) fn synchronize(&self) -> Result<()> {
        self.bind()?;
        // SAFETY: the stream is this device's.
        unsafe { result::stream::synchronize(self.stream) }.map_err(|e| failed("waiting for the device", e))
    }

    /// Memory of at least one byte, with unspecified contents.
    pub(super) fn allocate(self: &Arc<Self>, bytes: usize) -> Result<Memory> {
        self.bind()?;
        // SAFETY: the stream is this device's, and `Memory` frees the address once, on the same stream.
        let address = unsafe { result::malloc_async(self.stream, bytes.max(1)) }
            .map_err(|e| failed(&format!("{bytes} bytes of device memory"), e))?;
        Ok(Memory { device: self.clone(), address, bytes })
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // Nobody is left to be told of a failure, and a context that failed is of no more use.
        let _ = self.bind();
        // SAFETY: each handle was made by `open`, or is null and skipped, and is not used again. All memory is gone, since
        // it holds the device.
        unsafe {
            if !self.stream.is_null() {
                let _ = result::stream::synchronize(self.stream);
                if !self.module.is_null() {
                    let _ = result::module::unload(self.module);
                }
                let _ = result::stream::destroy(self.stream);
            }
            let _ = result::primary_ctx::release(self.device);
        }
    }
}

/// Bytes of device memory.
pub struct Memory {
    device: Arc<Device>,
    address: sys::CUdeviceptr,
    bytes: usize,
}

impl Memory {
    /// Where it is, aligned to 256 bytes.
    pub(super) fn address(&self) -> u64 {
        self.address
    }

    /// How much it is.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The address of `bytes` bytes from `offset` on, which must lie inside.
    fn span(&self, offset: usize, bytes: usize) -> sys::CUdeviceptr {
        let end = offset.checked_add(bytes);
        assert!(
            end.is_some_and(|end| end <= self.bytes),
            "expected {bytes} bytes from {offset}, found {} bytes of device memory",
            self.bytes
        );
        self.address + offset as u64
    }

    /// Copies `src` to the byte `offset`, after all work enqueued before.
    pub(super) fn write<T: bytemuck::Pod>(&mut self, offset: usize, src: &[T]) -> Result<()> {
        if src.is_empty() {
            return Ok(());
        }
        let to = self.span(offset, size_of_val(src));
        self.device.bind()?;
        // SAFETY: `span` checked the destination. The driver has taken pageable memory over when the call returns.
        unsafe { result::memcpy_htod_async(to, src, self.device.stream) }
            .map_err(|e| failed("copying to the device", e))
    }

    /// Copies from the byte `offset` to `dst`, after all work enqueued before, and waits.
    pub(super) fn read<T: bytemuck::Pod>(&self, offset: usize, dst: &mut [T]) -> Result<()> {
        if dst.is_empty() {
            return Ok(());
        }
        let from = self.span(offset, size_of_val(dst));
        self.device.bind()?;
        // SAFETY: `span` checked the source; `dst` is borrowed until the stream has been waited for below, on success and
        // on failure. Any bits are a `Pod`.
        let copied = unsafe { result::memcpy_dtoh_async(dst, from, self.device.stream) };
        let waited = self.device.synchronize();
        copied.map_err(|e| failed("copying from the device", e))?;
        waited
    }

    /// Copies all of `src` to the start, after all work enqueued before.
    pub(super) fn take(&mut self, src: &Memory) -> Result<()> {
        let to = self.span(0, src.bytes);
        self.device.bind()?;
        // SAFETY: `span` checked the destination, the source is whole, and `&mut` keeps them apart. Freeing either is
        // enqueued behind the copy.
        unsafe { result::memcpy_dtod_async(to, src.address, src.bytes, self.device.stream) }
            .map_err(|e| failed("copying on the device", e))
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if self.device.bind().is_ok() {
            // SAFETY: `allocate` made the address, and nothing frees it but this. Work that uses it was enqueued before.
            // A failure can only mean that the context is lost, and the memory with it.
            let _ = unsafe { result::free_async(self.address, self.device.stream) };
        }
    }
}
