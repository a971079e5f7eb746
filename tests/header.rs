//! `include/sam3.h` is what cbindgen makes of `src/ffi`, and fits the crate.
//!
//! A change of the interface changes the committed header: `SAM3_BLESS=1 cargo test --test header` writes it anew.

use std::path::{Path, PathBuf};

/// The files of the interface, in the order of the header.
const FILES: [&str; 16] = [
    "version", "status", "plain", "error", "log", "devices", "options", "reader", "lent", "open", "image", "prompt",
    "session", "job", "result", "mask",
];
const LAST: &str = "shapes";

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The comment at the top of the header: rules, and an example that lives as a file of its own.
fn preamble() -> String {
    let mut text = String::from("/*\n");
    let example = read("examples/c/segment.c").replace("/*", "//").replace(" */", "");
    assert!(!example.contains("*/"), "a comment in a comment");
    let example = example.lines().map(|l| if l.is_empty() { l.to_string() } else { format!("    {l}") });
    let prose = read("src/ffi/preamble.txt");
    for line in prose.lines().map(str::to_string).chain(example) {
        text.push_str(format!(" * {line}").trim_end());
        text.push('\n');
    }
    text + " */"
}

fn generate() -> String {
    let dir = root().join("src/ffi");
    let mut config = cbindgen::Config::from_file(dir.join("cbindgen.toml")).unwrap();
    config.header = Some(preamble());
    let mut builder = cbindgen::Builder::new().with_config(config);
    for name in FILES.iter().chain([&LAST]) {
        builder = builder.with_src(dir.join(format!("{name}.rs")));
    }
    let mut text = Vec::new();
    builder.generate().unwrap().write(&mut text);
    String::from_utf8(text).unwrap()
}

#[test]
fn header_is_what_the_sources_say() {
    let (path, made) = (root().join("include/sam3.h"), generate());
    if std::env::var_os("SAM3_BLESS").is_some_and(|v| v == "1") {
        std::fs::write(&path, &made).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    if let Some((i, (a, b))) = committed.lines().zip(made.lines()).enumerate().find(|(_, (a, b))| a != b) {
        panic!("include/sam3.h:{}: found {a:?}, the sources say {b:?}; SAM3_BLESS=1 writes it anew", i + 1);
    }
    assert_eq!(committed.len(), made.len(), "include/sam3.h ends early or late; SAM3_BLESS=1 writes it anew");
}

/// Every file with functions is part of the header, and every function has its documentation there, which says on which
/// threads it may be called, or names the function that it is like.
#[test]
fn every_function_is_declared_and_documented() {
    let header = read("include/sam3.h");
    let mut functions = 0;
    for entry in std::fs::read_dir(root().join("src/ffi")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "rs") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        for (i, line) in lines.iter().enumerate() {
            let Some((_, rest)) = line.split_once("extern \"C\" fn sam3_") else { continue };
            let name = format!("sam3_{}", rest.split('(').next().unwrap());
            functions += 1;
            assert!(header.contains(&format!("{name}(")), "{name} of {} is not in the header", path.display());
            assert_eq!(lines[i - 1], "#[unsafe(no_mangle)]", "{name}");
            let doc = lines[i - 2];
            assert!(doc.starts_with("/// "), "{name} has no documentation");
            let start = lines[..i - 1].iter().rposition(|l| !l.starts_with("///")).unwrap();
            let docs = lines[start + 1..i - 1].iter().map(|l| l.trim_start_matches('/')).collect::<String>();
            let says = ["ny thread", "ike `sam3_"].iter().any(|words| docs.contains(words));
            let says = says || docs.starts_with(" `sam3_");
            assert!(says, "{name} does not say on which threads it may be called");
        }
    }
    assert!(functions > 60, "found only {functions} functions");
}

#[test]
fn version_macros_are_the_crates_version() {
    let header = read("include/sam3.h");
    let value = |name: &str| -> String {
        let line = header.lines().find_map(|l| l.strip_prefix(&format!("#define {name} ")));
        line.unwrap_or_else(|| panic!("no {name}")).trim().to_string()
    };
    let found = ["MAJOR", "MINOR", "PATCH"].map(|part| value(&format!("SAM3_VERSION_{part}"))).join(".");
    assert_eq!(found, env!("CARGO_PKG_VERSION"));
}
