//! Gates on the CUDA kernels' binaries that need no GPU: they are what the sources compile to, they have the instructions
//! they are meant to have, nothing spills, and enough of each fits a multiprocessor.
//!
//! The binaries themselves are read, not a compiler's report of them. How a file of machine code is laid out was taken from
//! NVIDIA's disassembler, whose counts these agree with.

#![cfg(feature = "cuda")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use sam3::cuda::{Kernel, binaries, kernels};

/// Instructions that are looked for: the lower 9 bits of their 128. The three above them say where operands come from.
const OPCODE: u64 = 0x1ff;
const HMMA: u64 = 0x03c;
const HGMMA: u64 = 0x1f0;
const LDL: u64 = 0x183;
const STL: u64 = 0x187;

/// Fewest warps that a multiprocessor holds at once of the kernels that its matrix units wait for, by the beginning of
/// their names, and of all others. Two blocks of four warps hide the latency of each other's copies; Hopper's kernel has
/// warps that do nothing but copy, and one block of it fills the registers. Of few rows there are few blocks, which do
/// better with more on its way in each.
const FEWEST_WARPS: [(&str, u32); 4] = [("gemm_sm90a", 12), ("gemm_few", 4), ("attention", 8), ("", 16)];

/// Kernels that may use local memory: the sine of angles beyond 10⁵, which boxes do not have, is computed there.
const LOCAL: [&str; 1] = ["box_sine_f32"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels")
}

/// A kernel in a binary.
struct Code {
    registers: u32,
    /// How often each opcode stands in it.
    opcodes: BTreeMap<u64, usize>,
}

impl Code {
    fn count(&self, opcode: u64) -> usize {
        self.opcodes.get(&opcode).copied().unwrap_or(0)
    }
}

/// A file of 64-bit ELF, little-endian.
struct Elf<'a>(&'a [u8]);

impl<'a> Elf<'a> {
    fn u16(&self, at: usize) -> usize {
        u16::from_le_bytes(self.0[at..at + 2].try_into().unwrap()).into()
    }

    fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.0[at..at + 4].try_into().unwrap())
    }

    fn u64(&self, at: usize) -> usize {
        u64::from_le_bytes(self.0[at..at + 8].try_into().unwrap()) as usize
    }

    /// Where the header of section `i` is.
    fn header(&self, i: usize) -> usize {
        self.u64(40) + i * self.u16(58)
    }

    fn content(&self, i: usize) -> &'a [u8] {
        let (from, bytes) = (self.u64(self.header(i) + 24), self.u64(self.header(i) + 32));
        &self.0[from..from + bytes]
    }

    /// A name in a section of names.
    fn name(&self, names: usize, at: u32) -> &'a str {
        let text = &self.content(names)[at as usize..];
        std::str::from_utf8(&text[..text.iter().position(|b| *b == 0).unwrap()]).unwrap()
    }

    /// Sections by their names.
    fn sections(&self) -> BTreeMap<&'a str, usize> {
        let names = self.u16(62);
        (0..self.u16(60)).map(|i| (self.name(names, self.u32(self.header(i))), i)).collect()
    }
}

/// The kernels of a cubin: a section `.text.NAME` for each, and one of facts, `.nv.info`.
fn read(file: &[u8]) -> BTreeMap<String, Code> {
    let elf = Elf(file);
    let sections = elf.sections();
    let symbols = sections[".symtab"];
    let names = elf.u32(elf.header(symbols) + 40) as usize;
    let symbol =
        |i: u32| elf.name(names, u32::from_le_bytes(elf.content(symbols)[24 * i as usize..][..4].try_into().unwrap()));
    // Each fact: a form, what it is of, its bytes or its value; of form 4, as many bytes follow. 0x2f is the number of
    // registers of a symbol.
    let (mut registers, mut facts) = (BTreeMap::new(), elf.content(sections[".nv.info"]));
    while let [form, what, size_low, size_high, rest @ ..] = facts {
        let size = if *form == 4 { usize::from(u16::from_le_bytes([*size_low, *size_high])) } else { 0 };
        if (*form, *what) == (4, 0x2f) {
            let number = |at: usize| u32::from_le_bytes(rest[at..at + 4].try_into().unwrap());
            registers.insert(symbol(number(0)), number(4));
        }
        facts = &rest[size..];
    }
    let kernel = |(section, i): (&&str, &usize)| {
        let name = section.strip_prefix(".text.")?;
        let mut opcodes = BTreeMap::new();
        for instruction in elf.content(*i).chunks_exact(16) {
            let low = u64::from_le_bytes(instruction[..8].try_into().unwrap());
            *opcodes.entry(low & OPCODE).or_default() += 1;
        }
        Some((name.to_owned(), Code { registers: registers[name], opcodes }))
    };
    sections.iter().filter_map(kernel).collect()
}

/// All kernels of all binaries of machine code, by target.
fn cubins() -> BTreeMap<&'static str, BTreeMap<String, Code>> {
    let cubins = binaries().iter().filter(|b| b.target().starts_with("sm_"));
    cubins.map(|b| (b.target(), read(&b.unpack().unwrap()))).collect()
}

/// Whether a kernel is in the binary of a target: those of Hopper alone say so.
fn belongs(kernel: &str, target: &str) -> bool {
    !kernel.contains("sm90a") || target == "sm_90a"
}

/// `kernels/prebuilt/kernels.txt`: the hash of the sources, and a line per target and kernel.
fn table() -> (String, BTreeMap<(String, String), [u32; 4]>) {
    let text = std::fs::read_to_string(root().join("prebuilt/kernels.txt")).unwrap();
    let mut sources = String::new();
    let mut rows = BTreeMap::new();
    for line in text.lines() {
        match line.split_whitespace().collect::<Vec<_>>()[..] {
            ["compiler", ..] => {}
            ["sources", hash] => sources = hash.to_owned(),
            [target, name, "registers", r, "shared", s, "stack", f, "spill", l] => {
                let numbers = [r, s, f, l].map(|n| n.parse().unwrap());
                assert!(rows.insert((target.into(), name.into()), numbers).is_none(), "{line}");
            }
            _ => panic!("kernels.txt: {line}"),
        }
    }
    (sources, rows)
}

/// FNV-1a of all sources, as `tools/build_kernels.py` makes it.
fn fingerprint() -> String {
    fn walk(folder: &Path, prefix: &str, files: &mut BTreeMap<String, Vec<u8>>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = format!("{prefix}{}", path.file_name().unwrap().to_str().unwrap());
            if path.is_dir() && name != "sim" {
                walk(&path, &format!("{name}/"), files);
            } else if name.ends_with(".cu") || name.ends_with(".cuh") {
                files.insert(name, std::fs::read(&path).unwrap());
            }
        }
    }
    let mut files = BTreeMap::new();
    walk(&root(), "", &mut files);
    let bytes = files.iter().flat_map(|(name, text)| [name.as_bytes(), &[0], text, &[0]].concat());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    format!("{hash:016x}")
}

#[test]
fn binaries_match_their_sources() {
    let (sources, rows) = table();
    assert_eq!(sources, fingerprint(), "kernels/ changed: run tools/build_kernels.py");
    let mut found = BTreeSet::new();
    for (target, kernels) in cubins() {
        for (name, code) in kernels {
            let row = rows.get(&(target.to_owned(), name.clone())).unwrap_or_else(|| panic!("{target} {name}: no row"));
            assert_eq!(row[0], code.registers, "{target} {name}: registers");
            found.insert((target.to_owned(), name));
        }
    }
    assert_eq!(found, rows.keys().cloned().collect(), "rows and kernels");
}

/// The compiler's bytes, where the pinned compiler is: the Python that the variable `SAM3_NVRTC` names has it.
#[test]
fn binaries_are_what_the_compiler_makes() {
    let Some(python) = std::env::var_os("SAM3_NVRTC") else {
        return println!("skipped: SAM3_NVRTC names no Python with the pinned compiler");
    };
    let script = root().with_file_name("tools").join("build_kernels.py");
    let output = Command::new(python).arg(script).arg("--check").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
}

/// Each kernel that the back end launches is in each binary that is to have it, and no other.
#[test]
fn kernels_are_all_there() {
    let launched: Vec<_> = kernels().iter().map(|kernel| kernel.name).collect();
    for (target, code) in cubins() {
        let expected: BTreeSet<_> =
            launched.iter().filter(|name| belongs(name, target)).map(|n| n.to_string()).collect();
        assert_eq!(code.keys().cloned().collect::<BTreeSet<_>>(), expected, "{target}");
    }
    let text = binaries().iter().find(|b| b.target().starts_with("compute_")).unwrap().unpack().unwrap();
    let text = String::from_utf8(text).unwrap();
    for name in launched.iter().filter(|name| belongs(name, "compute_80")) {
        assert!(text.contains(&format!(".entry {name}(")), "compute_80 {name}");
    }
}

#[test]
fn nothing_spills() {
    for ((target, name), [_, _, stack, spill]) in table().1 {
        assert_eq!(spill, 0, "{target} {name}: bytes of spills");
        assert!(stack == 0 || LOCAL.contains(&name.as_str()), "{target} {name}: {stack} bytes of stack");
    }
    for (target, kernels) in cubins() {
        for (name, code) in kernels.iter().filter(|(name, _)| !LOCAL.contains(&name.as_str())) {
            assert_eq!((code.count(LDL), code.count(STL)), (0, 0), "{target} {name}: loads and stores of local memory");
        }
    }
}

#[test]
fn products_are_on_the_matrix_units() {
    for (target, kernels) in cubins() {
        for (name, code) in &kernels {
            let product = ["gemm", "conv3x3", "deconv2x2", "dot", "attention"].iter().any(|p| name.starts_with(p));
            let (warp, group) = (code.count(HMMA), code.count(HGMMA));
            let meant = match () {
                () if product && name.contains("sm90a") => group > 0 && warp == 0,
                () if product && (name.contains("bf16") || name.starts_with("gemm_few")) => warp > 0 && group == 0,
                () => warp + group == 0,
            };
            assert!(meant, "{target} {name}: {warp} of mma.sync, {group} of wgmma");
        }
    }
}

/// What a multiprocessor has, by the CUDA programming guide: warps, blocks, bytes of shared memory of all blocks. 65,536
/// registers everywhere, given out to warps by 256; each block takes 1 KiB of shared memory for the system.
fn multiprocessor(target: &str) -> (u32, u32, u32) {
    match target {
        "sm_80" => (64, 32, 164 << 10),
        "sm_90a" | "sm_100" => (64, 32, 228 << 10),
        // What 8.6 and 8.9 have, too, which run the code of sm_80.
        "sm_86" | "sm_120" => (48, 24, 100 << 10),
        _ => panic!("{target}: what does a multiprocessor of it have?"),
    }
}

/// Warps of a kernel that a multiprocessor holds at once.
fn warps(kernel: &Kernel, registers: u32, target: &str) -> u32 {
    let (most_warps, most_blocks, shared) = multiprocessor(target);
    let warps = kernel.threads.div_ceil(32);
    let by_registers = 65_536 / ((registers * 32).next_multiple_of(256) * warps);
    let by_shared = shared / (kernel.shared_bytes + 1024);
    (most_warps / warps).min(most_blocks).min(by_registers).min(by_shared) * warps
}

#[test]
fn multiprocessors_are_occupied() {
    let cubins = cubins();
    for kernel in kernels() {
        let least = FEWEST_WARPS.iter().find(|(prefix, _)| kernel.name.starts_with(prefix)).unwrap().1;
        let targets = cubins.keys().filter(|target| belongs(kernel.name, target));
        let smaller = targets.clone().find(|target| **target == "sm_80").map(|_| "sm_86");
        for target in targets.copied().chain(smaller) {
            let registers = cubins[if target == "sm_86" { "sm_80" } else { target }][kernel.name].registers;
            let found = warps(&kernel, registers, target);
            println!("{target:7} {:32} {registers:3} registers, {found} warps", kernel.name);
            // Attention in f32 is for checking alone.
            let least = if kernel.name.starts_with("attention_f32") { 4 } else { least };
            assert!(found >= least, "{target} {}: {found} warps, at least {least}", kernel.name);
        }
    }
}

/// The gates see what they are to see.
#[test]
fn a_planted_kernel_is_found_out() {
    let kernel = Kernel { name: "k", threads: 256, shared_bytes: 32 << 10 };
    assert_eq!(warps(&kernel, 128, "sm_80"), 16);
    assert_eq!(warps(&kernel, 129, "sm_80"), 8);
    assert_eq!(warps(&Kernel { shared_bytes: 100 << 10, ..kernel }, 32, "sm_86"), 0);
    // Two instructions, HMMA and STL, put into the place of a real kernel's last ones.
    let binary = binaries().iter().find(|b| b.target() == "sm_80").unwrap().unpack().unwrap();
    let (elf, name) = (Elf(&binary), "add_rows");
    let text = elf.sections()[&*format!(".text.{name}")];
    let end = elf.u64(elf.header(text) + 24) + elf.u64(elf.header(text) + 32);
    let mut planted = binary.clone();
    planted[end - 32..end - 24].copy_from_slice(&0x0000_00ff_0000_723c_u64.to_le_bytes());
    planted[end - 16..end - 8].copy_from_slice(&0x0000_00ff_0000_7387_u64.to_le_bytes());
    let counts = |code: &Code| (code.count(HMMA), code.count(STL), code.count(LDL));
    assert_eq!((counts(&read(&binary)[name]), counts(&read(&planted)[name])), ((0, 0, 0), (1, 1, 0)));
}
