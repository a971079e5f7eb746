//! The binary interface as others see it: symbols, layouts of structs, types of parameters. It changes only where somebody
//! says so: `SAM3_BLESS=1` writes `tests/c/abi.txt` and `tests/c/sam3.abi` anew, and a change that breaks programs raises
//! `SAM3_ABI_VERSION`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::tools::{Program, available, bless, has, libraries, root, succeed};

/// Names of the functions that the header declares.
pub fn declared(header: &str) -> BTreeSet<String> {
    let names = header.split("SAM3_API").skip(1).filter_map(|rest| {
        let head = rest.split('(').next()?;
        let name = head.rsplit(|c: char| !c.is_alphanumeric() && c != '_').find(|w| !w.is_empty())?;
        name.starts_with("sam3_").then(|| name.to_string())
    });
    names.collect()
}

/// Structs with members: name, and names of the members.
fn structs(header: &str) -> Vec<(String, Vec<String>)> {
    let bodies = header.split("typedef struct ").skip(1).filter_map(|rest| {
        let (name, body) = (rest.split_whitespace().next()?, rest.split_once('{')?);
        if body.0.trim() != name {
            return None;
        }
        let body = body.1.split('}').next()?;
        let lines = body.lines().map(|l| l.split("//").next().unwrap_or("").trim());
        let member = |l: &str| l.strip_suffix(';')?.rsplit([' ', '*']).next().map(str::to_string);
        Some((name.to_string(), lines.filter_map(member).collect()))
    });
    bodies.collect()
}

#[test]
fn exports_are_the_functions_of_the_header() {
    let header = std::fs::read_to_string(root().join("include/sam3.h")).unwrap();
    let declared = declared(&header);
    assert!(declared.len() > 60, "{declared:?}");
    for nm in available(&["nm"]) {
        let library = libraries().join("libsam3.so");
        let output = succeed(Command::new(nm).args(["-D", "--defined-only"]).arg(library));
        let text = String::from_utf8(output.stdout).unwrap();
        let found: BTreeSet<String> = text.lines().filter_map(|l| l.split(' ').nth(2)).map(str::to_string).collect();
        let missing: Vec<_> = declared.difference(&found).collect();
        assert!(missing.is_empty(), "declared, but not in the library: {missing:?}");
        // The AVIF decoder marks its own C interface for export, and there is no way to take that back from here: the C
        // library is packaged without it.
        let foreign = |name: &&String| !(cfg!(feature = "avif") && name.starts_with("dav1d_"));
        let more: Vec<_> = found.difference(&declared).filter(foreign).collect();
        assert!(more.is_empty(), "exported, but not declared: {more:?}");
    }
}

#[test]
fn layouts_and_symbols_are_those_of_the_last_release() {
    let header = std::fs::read_to_string(root().join("include/sam3.h")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut source = String::from("#include <stddef.h>\n#include <stdio.h>\n#include \"sam3.h\"\nint main(void) {\n");
    let all = structs(&header);
    assert!(all.len() >= 9, "{all:?}");
    for (name, members) in &all {
        source += &format!("    printf(\"struct {name} %d\\n\", (int)sizeof({name}));\n");
        for member in members {
            let (at, size) = (format!("offsetof({name}, {member})"), format!("sizeof((({name} *)0)->{member})"));
            source += &format!("    printf(\"  {member} at %d, %d bytes\\n\", (int){at}, (int){size});\n");
        }
    }
    for line in header.lines().filter(|l| l.starts_with("#define SAM3_") && l.split(' ').count() == 3) {
        let name = line.split(' ').nth(1).unwrap();
        if !name.starts_with("SAM3_VERSION_") && name != "SAM3_API" {
            source += &format!("    printf(\"{name} %lld\\n\", (long long){name});\n");
        }
    }
    source += "    return 0;\n}\n";
    let path = dir.path().join("layout.c");
    std::fs::write(&path, source).unwrap();
    for compiler in available(&["gcc"]) {
        let exe = Program::new(compiler, path.to_str().unwrap()).link(dir.path());
        let mut found = String::from_utf8(succeed(&mut Command::new(exe)).stdout).unwrap();
        found.extend(declared(&header).iter().map(|name| format!("function {name}\n")));
        let snapshot = root().join("tests/c/abi.txt");
        if bless() {
            std::fs::write(&snapshot, &found).unwrap();
        }
        let committed = std::fs::read_to_string(&snapshot).unwrap_or_default();
        let lines = |text: &str| text.lines().map(str::to_string).collect::<BTreeSet<_>>();
        let (old, new) = (lines(&committed), lines(&found));
        let (gone, added): (Vec<_>, Vec<_>) = (old.difference(&new).collect(), new.difference(&old).collect());
        // Order matters too: members are added at the end.
        assert!(committed == found, "gone: {gone:?}\nadded: {added:?}\nSAM3_BLESS=1 writes tests/c/abi.txt anew");
    }
}

/// A library of the header's functions that do nothing, with debug information: what `abidw` reads types from. The real
/// library's describes the Rust behind the handles as well, which programs never see.
fn hollow(header: &str, dir: &Path) -> PathBuf {
    let code: String = header.lines().filter(|l| !l.trim_start().starts_with("//")).map(|l| format!("{l}\n")).collect();
    let code = &code[code.find("#ifdef __cplusplus").unwrap()..];
    let mut source = String::from("#include \"header.h\"\n");
    for declaration in code.split("SAM3_API").skip(1) {
        source += &format!("{} {{ __builtin_unreachable(); }}\n", declaration.split(';').next().unwrap());
    }
    std::fs::write(dir.join("header.h"), header).unwrap();
    std::fs::write(dir.join("hollow.c"), source).unwrap();
    let library = dir.join("libhollow.so");
    let mut command = Command::new("gcc");
    command.current_dir(dir).args(["-std=c99", "-g", "-shared", "-fPIC", "hollow.c", "-o"]);
    succeed(command.arg(&library));
    library
}

fn abidiff(old: &Path, new: &Path) -> Output {
    Command::new("abidiff").args(["--no-show-locs"]).args([old, new]).output().unwrap()
}

/// What the snapshot above cannot say: which types functions take and return. `abidiff` compares, and says in words what
/// changed. The dump is of one processor's types.
#[test]
#[cfg(target_arch = "x86_64")]
fn types_are_those_of_the_last_release() {
    let required = std::env::var_os("SAM3_REQUIRE_HOSTS").is_some_and(|v| v == "1");
    if !has("abidiff") || !has("abidw") || !has("gcc") {
        assert!(!required, "SAM3_REQUIRE_HOSTS=1, but there is no abidiff, abidw or gcc");
        return println!("skipped: no abidiff, abidw or gcc on this machine");
    }
    let header = std::fs::read_to_string(root().join("include/sam3.h")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let library = hollow(&header, dir.path());
    let dump = root().join("tests/c/sam3.abi");
    if bless() {
        let mut command = Command::new("abidw");
        command.args(["--no-corpus-path", "--no-comp-dir-path", "--no-show-locs", "--out-file"]);
        succeed(command.arg(&dump).arg(&library));
    }
    let same = abidiff(&dump, &library);
    let (out, err) = (String::from_utf8_lossy(&same.stdout), String::from_utf8_lossy(&same.stderr));
    assert!(same.status.success(), "{out}{err}SAM3_BLESS=1 writes tests/c/sam3.abi anew");

    // It tells a parameter, a member, and functions that came or went.
    let planted = [
        ("uint32_t threads,", "uint64_t threads,"),
        ("uint32_t positive;", "uint32_t positive;\n    float weight;"),
        ("int32_t sam3_encode(", "uint32_t sam3_encode("),
        ("SAM3_API uint32_t sam3_image_width(const struct sam3_image *image);", ""),
        ("uint32_t sam3_abi_version(void);", "uint32_t sam3_abi_version(void);\nSAM3_API int32_t sam3_more(void);"),
    ];
    for (i, (old, new)) in planted.into_iter().enumerate() {
        assert!(header.contains(old), "{old:?} is not in the header");
        let dir = dir.path().join(i.to_string());
        std::fs::create_dir(&dir).unwrap();
        let changed = hollow(&header.replacen(old, new, 1), &dir);
        assert!(!abidiff(&dump, &changed).status.success(), "{new:?} went unnoticed");
    }
}
