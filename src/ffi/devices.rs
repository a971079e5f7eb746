//! What models can run on here.

use std::ffi::{CString, c_char};

use super::boundary::{call, give, given, handle_out, optional, release};
use super::error::{c_string, sam3_error};
use super::plain::{Sized32, fill};
use crate::{Error, Machine};

/// The fastest device that this build and this machine have.
pub const SAM3_DEVICE_AUTO: u32 = 0;
/// SIMD kernels on all cores.
pub const SAM3_DEVICE_CPU: u32 = 1;
/// An NVIDIA GPU.
pub const SAM3_DEVICE_CUDA: u32 = 2;
/// Plain loops in double precision, thousands of times slower: what the other devices are checked against.
pub const SAM3_DEVICE_REFERENCE: u32 = 3;

/// The devices of this machine, as they were when it was asked. Never changes: any thread may read it.
pub struct sam3_devices {
    entries: Vec<Entry>,
}

struct Entry {
    kind: u32,
    index: u32,
    name: CString,
    isas: CString,
    memory: (u64, u64),
}

/// One device. Set `size` to `sizeof(sam3_device)` before the call that fills it. Strings are lent by the list.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct sam3_device {
    /// `sizeof(sam3_device)`.
    pub size: u32,
    /// `SAM3_DEVICE_CPU`, `_CUDA` or `_REFERENCE`.
    pub kind: u32,
    /// Which of its kind, from 0: what `sam3_model_options_set_device` takes.
    pub index: u32,
    /// 0.
    pub reserved: u32,
    /// Bytes of its memory; 0 where the system does not tell.
    pub memory_total: u64,
    /// Bytes of it that were free; 0 where the system does not tell.
    pub memory_free: u64,
    /// For people, UTF-8.
    pub name: *const c_char,
    /// Instruction sets of a CPU that there are kernels for, best first, separated by spaces: what
    /// `sam3_model_options_set_isa` takes. "" for other devices.
    pub isas: *const c_char,
}

// SAFETY: u32 ×4, u64 ×2, two pointers: no padding; NULL and stray pointers are values of pointers.
unsafe impl Sized32 for sam3_device {
    const FIRST: usize = 32 + 2 * size_of::<*const c_char>();
    const NAME: &'static str = "sam3_device";
}

/// Lists the devices that a model can be opened on: the CPU first, then GPUs that there are kernels for, none without a
/// driver or where `sam3_build_info()` says `cuda: no`, and the reference last. Asking a GPU that is not in use for its
/// free memory takes a tenth of a second. `*out` is the caller's, freed with `sam3_devices_free`; NULL after a failure.
/// Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sam3_devices_new(out: *mut *mut sam3_devices, error: *mut *mut sam3_error) -> i32 {
    let body = || {
        // SAFETY: the caller's promise, see the module's text.
        let out = unsafe { handle_out(out, "out") }?;
        let machine = Machine::look()?;
        let memory = machine.memory.unwrap_or_default();
        let entry = |kind, name: &str, isas: &str| {
            let (name, isas) = (c_string(name), c_string(isas));
            Entry { kind, index: 0, name, isas, memory }
        };
        let cpu = entry(SAM3_DEVICE_CPU, &format!("CPU, {} cores", machine.cores), &machine.isas.join(" "));
        let gpus = machine.gpus.iter().map(|gpu| {
            let (major, minor) = gpu.capability;
            Entry {
                kind: SAM3_DEVICE_CUDA,
                index: gpu.index as u32,
                name: c_string(&format!("{}, compute capability {major}.{minor}", gpu.name)),
                isas: CString::default(),
                memory: gpu.memory.unwrap_or_default(),
            }
        });
        let reference = entry(SAM3_DEVICE_REFERENCE, "reference, one core in double precision", "");
        *out = give(sam3_devices { entries: std::iter::once(cpu).chain(gpus).chain([reference]).collect() });
        Ok(())
    };
    // SAFETY: the caller's promise, see the module's text.
    unsafe { call(error, body) }
}

/// How many devices are listed; 0 for NULL. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sam3_devices_count(devices: *const sam3_devices) -> u32 {
    // SAFETY: the caller's promise, see the module's text.
    match unsafe { optional(devices, "devices") } {
        Ok(Some(devices)) => devices.entries.len() as u32,
        _ => 0,
    }
}

/// Fills `*device` with device `index` of the list, counted from 0. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sam3_devices_get(
    devices: *const sam3_devices,
    index: u32,
    device: *mut sam3_device,
    error: *mut *mut sam3_error,
) -> i32 {
    let body = || {
        // SAFETY: the caller's promise, see the module's text.
        let (devices, out) = unsafe { (given(devices, "devices")?, fill(device, "device")?) };
        let count = devices.entries.len();
        let found = devices.entries.get(index as usize);
        let found = found.ok_or_else(|| Error::invalid(format!("device: expected 0..{count}, found {index}")))?;
        out.write(sam3_device {
            size: 0,
            kind: found.kind,
            index: found.index,
            reserved: 0,
            memory_total: found.memory.0,
            memory_free: found.memory.1,
            name: found.name.as_ptr(),
            isas: found.isas.as_ptr(),
        });
        Ok(())
    };
    // SAFETY: the caller's promise, see the module's text.
    unsafe { call(error, body) }
}

/// Frees the list and its strings. NULL is ignored. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sam3_devices_free(devices: *mut sam3_devices) {
    // SAFETY: the caller's promise, see the module's text.
    unsafe { release(devices) }
}
