//! The binary interface as others see it: symbols, and layouts of structs. It changes only where somebody says so:
//! `SAM3_BLESS=1` writes `tests/c/abi.txt` anew, and a change that breaks programs raises `SAM3_ABI_VERSION`.

use std::collections::BTreeSet;
use std::process::Command;

use crate::tools::{Program, available, libraries, root, succeed};

/// Names of the functions that the header declares.
fn declared(header: &str) -> BTreeSet<String> {
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
        assert!(
            missing.is_empty(),
            "declared, but not in the library: {missing:?}; was it built without `capi` since?"
        );
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
        if std::env::var_os("SAM3_BLESS").is_some_and(|v| v == "1") {
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
