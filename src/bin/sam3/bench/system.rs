//! What the report says of the machine, the build and the memory. Linux tells most of it; where a system does not tell,
//! the report says nothing rather than something made up.

use std::fs;
use std::path::{Path, PathBuf};

use sam3::{Error, ErrorKind, Result};
use serde_json::Value;

use super::report::{Machine, Memory, Program, WeightFile};
use super::sha256;
use crate::segment::io_error;

/// Longest index of a sharded checkpoint that is read; the engine, which opened it before, allows no longer one.
const MAX_INDEX_BYTES: u64 = 4 << 20;

/// The machine before the measurement.
pub fn machine(isa: Option<&str>) -> Result<Machine> {
    let machine = sam3::Machine::look()?;
    let read = |path: &str| fs::read_to_string(path).ok();
    let release = read("/proc/sys/kernel/osrelease").map(|r| format!(" {}", r.trim())).unwrap_or_default();
    let load = read("/proc/loadavg").and_then(|text| text.split_whitespace().next()?.parse().ok());
    Ok(Machine {
        cpu: machine.cpu,
        cores: machine.cores,
        isa: isa.unwrap_or(machine.isa).to_owned(),
        os: format!("{}{release}", std::env::consts::OS),
        arch: std::env::consts::ARCH.to_owned(),
        memory_bytes: machine.memory.map(|(total, _)| total),
        load_average: load,
    })
}

/// This build.
pub fn program() -> Program {
    let file = std::env::current_exe().ok().and_then(|path| sha256::of_file(&path).ok());
    Program {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        commit: option_env!("SAM3_COMMIT").map(str::to_owned),
        sha256: file.map(|(_, sum)| sum),
        build: if cfg!(debug_assertions) { "debug" } else { "release" }.to_owned(),
    }
}

/// Peak resident bytes so far (`VmHWM`), pages of mapped files included.
pub fn peak() -> Option<u64> {
    status("VmHWM")
}

/// The account at the end.
pub fn memory(peak_after_opening: Option<u64>, peak_after_first: Option<u64>) -> Memory {
    let (file_backed, anonymous) = (status("RssFile"), status("RssAnon"));
    Memory { peak_after_opening, peak_after_first, peak: peak(), file_backed, anonymous }
}

/// A line of Linux's account of this process, whose `kB` are 1024 bytes.
fn status(name: &str) -> Option<u64> {
    let text = fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':'))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The weight files of the checkpoint that was opened at `path`, each with its sum; without one, the embedded file.
pub fn weight_files(path: Option<&Path>) -> Result<Vec<WeightFile>> {
    let Some(path) = path else {
        return Ok(embedded());
    };
    let file = if path.is_dir() {
        let single = path.join("model.safetensors");
        if single.exists() { single } else { path.join("model.safetensors.index.json") }
    } else {
        path.to_path_buf()
    };
    let files = if file.to_string_lossy().ends_with(".index.json") { shards(&file)? } else { vec![file] };
    let sum = |path: PathBuf| {
        let (bytes, sha256) = sha256::of_file(&path)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(WeightFile { name, bytes, sha256 })
    };
    files.into_iter().map(sum).collect()
}

#[cfg(feature = "demo-model")]
fn embedded() -> Vec<WeightFile> {
    let bytes = sam3::demo::weights();
    let name = "model.safetensors".to_owned();
    vec![WeightFile { name, bytes: bytes.len() as u64, sha256: sha256::of_bytes(bytes) }]
}

#[cfg(not(feature = "demo-model"))]
fn embedded() -> Vec<WeightFile> {
    Vec::new()
}

/// The files an index names, in the order of their names.
fn shards(index: &Path) -> Result<Vec<PathBuf>> {
    let size = fs::metadata(index).map_err(|e| io_error(index, "cannot be read", e))?.len();
    let changed = || Error::new(ErrorKind::Io, "the index changed while the model was open").at(index.display());
    if size > MAX_INDEX_BYTES {
        return Err(changed());
    }
    let text = fs::read_to_string(index).map_err(|e| io_error(index, "cannot be read", e))?;
    let value: Value = serde_json::from_str(&text).map_err(|_| changed())?;
    let names = value["weight_map"].as_object().ok_or_else(changed)?.values().filter_map(Value::as_str);
    let names: std::collections::BTreeSet<&str> = names.collect();
    Ok(names.into_iter().map(|name| index.with_file_name(name)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn memory_is_what_the_process_holds() {
        let before = peak().unwrap();
        let held = vec![1u8; 32 << 20];
        let after = peak().unwrap();
        assert!(after >= before.max(32 << 20) && held.iter().all(|&b| b == 1), "{before} {after}");
        let account = memory(None, Some(before));
        assert!(account.anonymous.unwrap() + account.file_backed.unwrap() <= account.peak.unwrap() + (1 << 20));
    }
}
