//! GPUs through the C interface, feature `cuda`. Under `tools/with_simulated_gpu.sh` the driver is the kernels' simulator;
//! otherwise it is this machine's, or none.

use std::ffi::{CStr, CString, c_void};
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicU32, Ordering};

use sam3::ffi::*;

use crate::tools::fixture;

/// A device as a program sees it: kind, index, memory, name, instruction sets.
type Listed = (u32, u32, (u64, u64), String, String);

fn listed() -> Vec<Listed> {
    let mut devices = null_mut();
    // SAFETY: variables and handles that live through the calls; strings are copied before their list is freed.
    unsafe {
        assert_eq!(sam3_devices_new(&mut devices, null_mut()), SAM3_OK);
        let get = |i| {
            let mut device: sam3_device = std::mem::zeroed();
            device.size = size_of::<sam3_device>() as u32;
            assert_eq!(sam3_devices_get(devices, i, &mut device, null_mut()), SAM3_OK);
            let text = |p| CStr::from_ptr(p).to_str().unwrap().to_owned();
            let memory = (device.memory_total, device.memory_free);
            (device.kind, device.index, memory, text(device.name), text(device.isas))
        };
        let all = (0..sam3_devices_count(devices)).map(get).collect();
        sam3_devices_free(devices);
        all
    }
}

#[test]
fn gpus_stand_between_the_cpu_and_the_reference() {
    let all = listed();
    let info = static_text(sam3_build_info());
    assert!(info.contains("; cuda: yes;"), "{info}");
    assert_eq!((all[0].0, all.last().unwrap().0), (SAM3_DEVICE_CPU, SAM3_DEVICE_REFERENCE), "{all:?}");
    let gpus = &all[1..all.len() - 1];
    for (i, (kind, index, (total, free), name, isas)) in gpus.iter().enumerate() {
        assert_eq!((*kind, *index), (SAM3_DEVICE_CUDA, i as u32), "{all:?}");
        assert!(*total >= 1 << 30 && free <= total && *free > 0, "{all:?}");
        assert!(name.contains("compute capability") && isas.is_empty(), "{all:?}");
    }
    if gpus.iter().any(|gpu| gpu.3.contains("simulator")) {
        assert_eq!(gpus.len(), 1, "{all:?}");
        assert_eq!((gpus[0].2.0, &*gpus[0].3), (8 << 30, "CPU simulator, compute capability 9.0"));
    }
}

fn static_text(text: *const std::ffi::c_char) -> String {
    // SAFETY: only called with static strings of the library.
    unsafe { CStr::from_ptr(text) }.to_str().unwrap().to_owned()
}

static RETURNED: AtomicU32 = AtomicU32::new(0);

unsafe extern "C" fn returned(_: *mut c_void) {
    RETURNED.fetch_add(1, Ordering::Relaxed);
}

/// Both precisions, and weights that are given back once they are on the device.
#[test]
fn precisions_and_lent_weights_on_a_gpu() {
    if listed().iter().all(|device| device.0 != SAM3_DEVICE_CUDA) {
        return println!("skipped: no CUDA device");
    }
    let file = |name: &str| std::fs::read(fixture().join(name)).unwrap();
    let (config, weights, tokenizer) = (file("config.json"), file("model.safetensors"), file("tokenizer.json"));
    let picture = CString::new(fixture().join("input.png").to_str().unwrap()).unwrap();
    for (n, (precision, word)) in [(SAM3_PRECISION_F32, "F32"), (SAM3_PRECISION_BF16, "Bf16")].into_iter().enumerate() {
        let (mut options, mut model, mut session, mut image) = (null_mut(), null_mut(), null_mut(), null_mut());
        let (mut click, mut result) = (null_mut(), null_mut());
        let point = sam3_point { x: 20.0, y: 20.0, positive: 1 };
        // SAFETY: strings, buffers, variables and handles that live through the calls; the weights live to the end.
        unsafe {
            assert_eq!(sam3_model_options_new(&mut options, null_mut()), SAM3_OK);
            assert_eq!(sam3_model_options_set_device(options, SAM3_DEVICE_CUDA, 0, null_mut()), SAM3_OK);
            assert_eq!(sam3_model_options_set_precision(options, precision, null_mut()), SAM3_OK);
            let (c, w, t) = (&config, &weights, &tokenizer);
            let status = sam3_model_open_lent(
                c.as_ptr(),
                c.len(),
                w.as_ptr(),
                w.len(),
                t.as_ptr(),
                t.len(),
                Some(returned),
                null_mut(),
                options,
                &mut model,
                null_mut(),
            );
            assert_eq!(status, SAM3_OK);
            assert_eq!(RETURNED.load(Ordering::Relaxed), n as u32 + 1, "the device has its own copy");
            let mut info: sam3_model_info = std::mem::zeroed();
            info.size = size_of::<sam3_model_info>() as u32;
            assert_eq!(sam3_model_get_info(model, &mut info, null_mut()), SAM3_OK);
            let device = static_text(info.device);
            assert!(device.starts_with("cuda:0") && device.contains(word), "{device}");
            assert_eq!(sam3_session_new(model, &mut session, null_mut()), SAM3_OK);
            assert_eq!(sam3_encode_file(session, picture.as_ptr(), &mut image, null_mut()), SAM3_OK);
            assert_eq!(sam3_prompt_new_object(&mut click, null_mut()), SAM3_OK);
            assert_eq!(sam3_prompt_add_points(click, &point, 1, null_mut()), SAM3_OK);
            let prompts = [click.cast_const()];
            let status = sam3_segment(session, image, prompts.as_ptr(), 1, null(), &mut result, null_mut());
            assert_eq!((status, sam3_result_count(result)), (SAM3_OK, 1));
            sam3_result_free(result);
            sam3_prompt_free(click);
            sam3_image_free(image);
            sam3_session_free(session);
            sam3_model_free(model);
            sam3_model_options_free(options);
        }
    }
}
