//! Devices that cannot be used: errors that say what to do, or the CPU and why.

use crate::harness::{click, info, simulated};

/// A machine on which `cuda` does not work: the driver's settings, and what is said of it.
type Useless = (&'static [(&'static str, &'static str)], &'static [&'static str]);

const USELESS: [Useless; 13] = [
    (&[("SAM3_SIM_INIT", "100")], &["CUDA_ERROR_NO_DEVICE", "nvidia-smi"]),
    (&[("SAM3_SIM_DEVICES", "0")], &["CUDA_ERROR_NO_DEVICE", "nvidia-smi"]),
    (&[("SAM3_SIM_VERSION", "11080")], &["expected a driver for CUDA 12.0", "found one for 11.8", "update it"]),
    (&[("SAM3_SIM_CAPABILITY", "75")], &["expected compute capability 8.0", "found 7.5"]),
    (&[("SAM3_SIM_FAIL_MODULE", "209")], &["CUDA_ERROR_NO_BINARY_FOR_GPU", "update NVIDIA's driver"]),
    (&[("SAM3_SIM_MEMORY", "100000")], &["CUDA_ERROR_OUT_OF_MEMORY", "bytes of device memory", "close what else"]),
    // Loading computes a little, and the first launch of it fails.
    (&[("SAM3_SIM_FAIL_LAUNCH", "1")], &["CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES"]),
    // Kernels that do not do what they should: of large tiles and small ones, on Hopper and elsewhere.
    (&[("SAM3_SIM_IDLE", "gemm_sm90a_192x128x64")], &["self-check of a product:", "report the GPU"]),
    (&[("SAM3_SIM_IDLE", "gemm_sm90a_192x256x64")], &["self-check of a turned product:"]),
    (&[("SAM3_SIM_IDLE", "gemm_few_32x64x64")], &["self-check of a product"]),
    (&[("SAM3_SIM_IDLE", "attention_join")], &["self-check of a biased attention:"]),
    (&[("SAM3_SIM_IDLE", "conv3x3_bf16_128x128x32"), ("SAM3_SIM_CAPABILITY", "80")], &["self-check of a convolution:"]),
    (&[("SAM3_SIM_IDLE", "layer_norm"), ("SAM3_PRECISION", "f32")], &["self-check of a layer norm:"]),
];

#[test]
fn a_device_that_cannot_be_used_is_an_error() {
    if !simulated() {
        return;
    }
    for (settings, words) in USELESS {
        let asked = click("cuda", settings);
        assert!(!asked.ok, "{settings:?}: {}", asked.out);
        asked.says(words);
        asked.nothing_is_left();
    }
    let index = click("cuda:3", &[("SAM3_SIM_DEVICES", "2")]);
    assert!(!index.ok);
    index.says(&["device cuda:3", "expected an index below 2"]);
}

#[test]
fn a_device_that_cannot_be_used_is_passed_over() {
    if !simulated() {
        return;
    }
    for (settings, words) in USELESS {
        let left_open = click("auto", settings);
        assert!(left_open.ok, "{settings:?}: {}", left_open.err);
        left_open.says(&["on the CPU"]);
        left_open.says(words);
        left_open.nothing_is_left();
    }
}

/// Without a driver there is nothing to tell: most machines have none. `sam3 info` tells all the same.
#[test]
fn without_a_driver_the_cpu_answers() {
    if !simulated() {
        return;
    }
    let none = [("LD_LIBRARY_PATH", "")];
    let told = info(&none);
    if told.out.contains("compute capability") {
        return println!("skipped: this machine has a GPU");
    }
    assert!(told.ok && told.out.contains("no GPU") && told.out.contains("libcuda.so.1"), "{}", told.out);
    let auto = click("auto", &none);
    assert!(auto.ok && auto.err.is_empty(), "{}", auto.err);
    let asked = click("cuda", &none);
    assert!(!asked.ok);
    asked.says(&["device cuda:0", "libcuda.so.1 was not found", "install NVIDIA's driver", "CPU"]);
}

#[test]
fn info_lists_devices() {
    if !simulated() {
        return;
    }
    let two = info(&[("SAM3_SIM_DEVICES", "2"), ("SAM3_SIM_CAPABILITY", "120")]);
    for words in ["cuda:0, cuda:1, cpu", "cuda:1        CPU simulator, compute capability 12.0, 8.6 of 8.6 GB free"] {
        assert!(two.ok && two.out.contains(words), "no {words:?} in {}", two.out);
    }
    two.nothing_is_left();
    let old = info(&[("SAM3_SIM_CAPABILITY", "75")]);
    assert!(
        old.ok && old.out.contains("no GPU        cuda:0: CPU simulator: expected compute capability 8.0"),
        "{}",
        old.out
    );
}

/// The whole program on the simulated GPU, every family of devices that there is a binary for.
#[test]
fn the_program_answers_as_on_the_cpu() {
    if !simulated() {
        return;
    }
    let answer = |run: crate::harness::Run| -> serde_json::Value {
        assert!(run.ok, "{}", run.err);
        run.nothing_is_left();
        serde_json::from_str(&run.out).unwrap()
    };
    let cpu = answer(click("cpu", &[]));
    for capability in ["80", "90", "120", "110"] {
        let gpu = answer(click("cuda", &[("SAM3_SIM_CAPABILITY", capability)]));
        let score = |answer: &serde_json::Value| answer["instances"][0]["score"].as_f64().unwrap();
        assert!((score(&gpu) - score(&cpu)).abs() < 0.05, "{capability}: {} and {}", score(&gpu), score(&cpu));
    }
}
