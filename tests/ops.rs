//! Conformance: every operation, on every implementation, against the definition in `sam3::reference`.
//!
//! A case makes its inputs once, runs on the reference and on the implementation, and says how far the two may be apart
//! from the arithmetic it stands for, never from what an implementation happens to reach. See `ops/harness.rs` for what
//! is checked beside the values, and `ops/spoiled.rs` for the proof that a wrong element is found.

mod ops {
    pub mod attention;
    pub mod boxes;
    pub mod dense;
    pub mod harness;
    pub mod norm;
    pub mod picture;
    pub mod rows;
    pub mod spoiled;
}

use ops::harness::Suite;
use ops::spoiled::{Fault, Spoiled};
use sam3::cpu::{CpuOps, Isa};
use sam3::ops::Ops;
use sam3::reference::ReferenceOps;

/// Every group of cases.
const GROUPS: [&str; 6] = ["dense", "attention", "norm", "rows", "picture", "boxes"];

/// Runs one group on the implementation that `make` builds for a number of threads.
fn conformance<O: Ops>(name: &str, group: &str, make: impl Fn(usize) -> O) -> Suite<O> {
    let mut suite = Suite::new(name, make(1), make(2));
    match group {
        "dense" => ops::dense::all(&mut suite),
        "attention" => ops::attention::all(&mut suite),
        "norm" => ops::norm::all(&mut suite),
        "rows" => ops::rows::all(&mut suite),
        "picture" => ops::picture::all(&mut suite),
        "boxes" => ops::boxes::all(&mut suite),
        _ => unreachable!("one of GROUPS"),
    }
    suite
}

/// The cases are sound: finite and repeatable on the reference itself. No operation is without them.
#[test]
fn reference_conforms_to_itself() {
    let mut operations = Vec::new();
    for group in GROUPS {
        let suite = conformance("reference", group, |_| ReferenceOps);
        operations.extend(suite.operations());
        suite.finish();
    }
    operations.sort_unstable();
    // The trait's functions without `operand`, `reserve`, `upload` and `matrix`, which the cases of the others call, and the
    // two that only say when work is done and how long it took (tests/gpu).
    let source = include_str!("../src/ops.rs");
    let body = &source[source.find("pub trait Ops").expect("the trait")..];
    let mut functions: Vec<_> = body
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix("fn ")?.split(['(', '<']).next())
        .filter(|name| !["stage", "elapsed", "operand", "reserve", "upload", "matrix"].contains(name))
        .collect();
    functions.sort_unstable();
    assert_eq!(operations, functions);
}

/// A wrong element is found in every case of every operation, and so is one whose bits change from call to call.
#[test]
fn faults_are_found() {
    for fault in [Fault::Wrong, Fault::Unsteady] {
        for group in GROUPS {
            let suite = conformance("spoiled", group, |_| Spoiled::new(fault));
            for op in suite.operations().filter(|&op| op != "download") {
                assert_eq!(suite.failures_of(op), suite.cases_of(op), "cases of {op} in which a fault was found");
            }
        }
    }
}

/// The CPU back end with each instruction set this processor has.
fn cpu(group: &str) {
    for isa in Isa::available() {
        let name = format!("cpu {}", isa.name());
        conformance(&name, group, |threads| CpuOps::new(Some(threads), isa).expect("threads start")).finish();
    }
}

#[test]
fn cpu_dense() {
    cpu("dense");
}

#[test]
fn cpu_attention() {
    cpu("attention");
}

#[test]
fn cpu_norm() {
    cpu("norm");
}

#[test]
fn cpu_rows() {
    cpu("rows");
}

#[test]
fn cpu_picture() {
    cpu("picture");
}

#[test]
fn cpu_boxes() {
    cpu("boxes");
}

/// The CUDA back end, on the device there is or on the simulated one.
#[cfg(feature = "cuda")]
mod cuda {
    use sam3::cuda::{CudaOps, Listing, Precision, devices};

    /// Says to a test that it is the child process of one.
    const CHILD: &str = "SAM3_TEST_IN_HALF";

    /// Beside the simulator, and on a machine that is known to have a GPU, nothing may be skipped.
    fn required() -> bool {
        std::env::var_os("SAM3_REQUIRE_CUDA").is_some_and(|v| v == "1")
    }

    fn conforms(group: &str) {
        match devices() {
            Err(e) if !required() => println!("skipped: {e}"),
            Err(e) => panic!("{e}"),
            Ok(_) => {
                let make = |_| CudaOps::new(0, Precision::F32).expect("the device opens");
                super::conformance("cuda f32", group, make).finish();
            }
        }
    }

    /// In half precision: on the kernels for Ampere, and on a Hopper of one multiprocessor, for which its kernels are never
    /// too large; copies and products as early and as late as they may happen. Each in a process of its own, since the
    /// driver reads its settings from the environment.
    fn conforms_in_half(group: &str) {
        if std::env::var_os(CHILD).is_some() {
            super::ops::harness::use_half();
            let make = |_| CudaOps::new(0, Precision::Bf16).expect("the device opens");
            return super::conformance("cuda bf16", group, make).finish();
        }
        if let Err(e) = devices() {
            assert!(!required(), "{e}");
            return println!("skipped: {e}");
        }
        let settings: &[[&str; 3]] = if Listing::of(0).is_ok_and(|device| device.name == "CPU simulator") {
            &[["80", "late", "132"], ["90", "early", "1"], ["90", "late", "1"]]
        } else {
            // A real driver knows nothing of these.
            &[["", "", ""]]
        };
        for [capability, order, processors] in settings {
            let mut command = std::process::Command::new(std::env::current_exe().unwrap());
            command.args(["--exact", &format!("cuda::{group}_in_half"), "--nocapture"]).env(CHILD, "1");
            command.env("SAM3_SIM_CAPABILITY", capability).env("SAM3_SIM_ASYNC", order);
            let output = command.env("SAM3_SIM_PROCESSORS", processors).output().unwrap();
            let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "capability {capability}, {order}: {text}");
            println!("capability {capability}, {order}: {text}");
        }
    }

    #[test]
    fn dense_in_half() {
        conforms_in_half("dense");
    }

    #[test]
    fn attention_in_half() {
        conforms_in_half("attention");
    }

    #[test]
    fn norm_in_half() {
        conforms_in_half("norm");
    }

    #[test]
    fn rows_in_half() {
        conforms_in_half("rows");
    }

    #[test]
    fn picture_in_half() {
        conforms_in_half("picture");
    }

    #[test]
    fn dense() {
        conforms("dense");
    }

    #[test]
    fn attention() {
        conforms("attention");
    }

    #[test]
    fn norm() {
        conforms("norm");
    }

    #[test]
    fn rows() {
        conforms("rows");
    }

    #[test]
    fn picture() {
        conforms("picture");
    }

    #[test]
    fn boxes() {
        conforms("boxes");
    }
}
