//! The rules of the source tree that the compiler does not know: which module may use which, where `unsafe` may stand,
//! how long a file may be, and what must not be left behind.
//!
//! Rules about code do not look at comments and the contents of strings; rules about modules do not look at unit tests,
//! which may compare any two. A finding names file, line and rule.

use std::fs;
use std::path::Path;

/// Longest file, in lines.
const LONGEST: usize = 700;

/// Where `unsafe` and its permission may stand; a folder ends with a slash.
const UNSAFE: [&str; 14] = [
    "src/weights/mmap.rs",
    "src/cpu/simd/",
    "src/cpu/crew.rs",
    // Counts allocations.
    "tests/no_alloc.rs",
    "src/image/avif/av1.rs",
    "benches/opponent/",
    "src/ffi/",
    // Calls the C interface as a host would.
    "tests/c_abi/",
    "src/cuda/arena.rs",
    "src/cuda/clock.rs",
    "src/cuda/driver.rs",
    "src/cuda/graph.rs",
    "src/cuda/launch.rs",
    "src/cuda/tensor_map.rs",
];

/// The back ends and what stands on them.
const ABOVE_OPS: [&str; 9] = ["model", "reference", "cpu", "cuda", "engine", "options", "prompt", "ffi", "serve"];

/// Everything but `error`; what a leaf must not use, itself aside.
const NOT_LEAF: [&str; 14] = [
    "weights",
    "image",
    "text",
    "instance",
    "ops",
    "model",
    "reference",
    "cpu",
    "cuda",
    "engine",
    "options",
    "prompt",
    "ffi",
    "serve",
];

/// What code under a path must not use.
struct Fence {
    /// `src/name` stands for the file `src/name.rs` and the folder `src/name/`.
    path: &'static str,
    /// Modules of this crate.
    modules: &'static [&'static str],
    /// Other crates and paths.
    others: &'static [&'static str],
}

const THREADS: [&str; 2] = ["rayon", "std::thread"];

const FENCES: [Fence; 13] = [
    Fence {
        path: "src/model",
        modules: &["reference", "cpu", "cuda", "engine", "options", "ffi"],
        others: &["rayon", "std::thread", "cudarc"],
    },
    Fence { path: "src/ops", modules: &ABOVE_OPS, others: &THREADS },
    Fence { path: "src/reference", modules: &ABOVE_OPS, others: &THREADS },
    Fence { path: "src/cpu", modules: &ABOVE_OPS, others: &["cudarc"] },
    Fence { path: "src/cuda", modules: &ABOVE_OPS, others: &["rayon"] },
    Fence { path: "src/error", modules: &NOT_LEAF, others: &[] },
    Fence { path: "src/weights", modules: &NOT_LEAF, others: &[] },
    Fence { path: "src/image", modules: &NOT_LEAF, others: &[] },
    Fence { path: "src/text", modules: &NOT_LEAF, others: &[] },
    Fence { path: "src/instance", modules: &NOT_LEAF, others: &[] },
    Fence {
        path: "src/ffi",
        modules: &["ops", "model", "reference", "cpu", "cuda", "engine"],
        others: &["rayon", "cudarc"],
    },
    // The server, too, though it stands in the library.
    Fence {
        path: "src/serve",
        modules: &["ops", "model", "reference", "cpu", "cuda", "engine", "ffi"],
        others: &["rayon", "cudarc"],
    },
    // The program uses what every other user of the library has.
    Fence { path: "src/bin", modules: &["ops", "model", "reference", "cpu", "cuda"], others: &[] },
];

impl Fence {
    fn holds(&self, path: &str) -> bool {
        path.strip_prefix(self.path).is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
    }

    /// Offsets and names of what `code` uses against the fence.
    fn breaches(&self, code: &str) -> Vec<(usize, String)> {
        // In the program `crate` is the program itself, and the library goes by its name.
        let roots: &[&str] = if self.path == "src/bin" { &["sam3"] } else { &["crate", "super", "sam3"] };
        let mut found = Vec::new();
        for root in roots {
            let own = self.path.trim_start_matches("src/");
            let names = used(code, root).into_iter();
            found.extend(names.filter(|(_, name)| name != own && self.modules.contains(&name.as_str())));
        }
        for other in self.others {
            let uses: Vec<_> = match other.split_once("::") {
                Some((root, name)) => used(code, root).into_iter().filter(|(_, used)| used == name).collect(),
                None => words(code, other).map(|at| (at, String::new())).collect(),
            };
            found.extend(uses.into_iter().map(|(at, _)| (at, (*other).to_string())));
        }
        found
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Offsets at which `word` stands as a whole word.
fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    code.match_indices(word)
        .map(|(at, _)| at)
        .filter(move |&at| !code[..at].ends_with(is_word) && !code[at + word.len()..].starts_with(is_word))
}

/// What is named right below `root`: `a` and `b` of `root::a::x` and of `root::{a::{x}, b}`.
fn used(code: &str, root: &str) -> Vec<(usize, String)> {
    let name = |at: usize| {
        let start = at + (code[at..].len() - code[at..].trim_start().len());
        let end = code[start..].find(|c| !is_word(c)).map_or(code.len(), |n| start + n);
        (start, code[start..end].to_string())
    };
    let mut found = Vec::new();
    for at in words(code, root) {
        let Some(rest) = code[at + root.len()..].trim_start().strip_prefix("::") else { continue };
        let Some(group) = rest.trim_start().strip_prefix('{') else {
            found.push(name(code.len() - rest.len()));
            continue;
        };
        let start = code.len() - group.len();
        found.push(name(start));
        let mut depth = 1;
        for (i, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 1 => found.push(name(start + i + 1)),
                _ => {}
            }
            if depth == 0 {
                break;
            }
        }
    }
    found
}

/// `text` with comments and the contents of strings blanked, every other character where it was.
fn code(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    // Appends the first `keep` bytes as they are, and the others up to `end` as spaces and line ends.
    let mut take = |rest: &mut &str, keep: usize, end: usize| {
        out.push_str(&rest[..keep]);
        out.extend(rest[keep..end].bytes().map(|b| if b == b'\n' { '\n' } else { ' ' }));
        *rest = &rest[end..];
    };
    let mut after_word = false;
    while let Some(c) = rest.chars().next() {
        let end = |at: Option<usize>, len: usize| at.map_or(rest.len(), |at| at + len);
        let raw = rest.strip_prefix('b').unwrap_or(rest).strip_prefix('r').filter(|_| !after_word);
        let hashes = raw.map(|r| r.len() - r.trim_start_matches('#').len());
        if rest.starts_with("//") {
            let n = end(rest.find('\n'), 0);
            take(&mut rest, 0, n);
        } else if rest.starts_with("/*") {
            let n = block_comment(rest);
            take(&mut rest, 0, n);
        } else if let (Some(raw), Some(n)) = (raw, hashes)
            && raw[n..].starts_with('"')
        {
            let open = rest.len() - raw.len() + n + 1;
            let close = format!("\"{}", "#".repeat(n));
            let n = end(rest[open..].find(&close), open + close.len());
            take(&mut rest, 0, n);
        } else if c == '"' {
            let n = quoted(rest, '"');
            take(&mut rest, 0, n);
        } else if c == '\'' && is_char_literal(rest) {
            let n = quoted(rest, '\'');
            take(&mut rest, 0, n);
        } else {
            let n = c.len_utf8();
            // Only what is not ASCII may change its length, and no rule is about that.
            take(&mut rest, if c.is_ascii() { n } else { 0 }, n);
        }
        after_word = is_word(c);
    }
    out
}

/// Length of the block comment at the start of `text`; they nest.
fn block_comment(text: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < text.len() {
        let rest = &text.as_bytes()[at..];
        match rest {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at.min(text.len())
}

/// Length of the literal at the start of `text` up to its closing `quote`.
fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (i, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == quote => return i + c.len_utf8(),
            _ => {}
        }
    }
    text.len()
}

/// Whether the `'` at the start of `text` opens a character and not a lifetime.
fn is_char_literal(text: &str) -> bool {
    let mut next = text.chars().skip(1);
    matches!((next.next(), next.next()), (Some('\\'), _) | (_, Some('\'')))
}

/// `code` with its `#[cfg(test)] mod … { … }` blanked.
fn without_tests(code: &str) -> String {
    let mut code = code.to_string();
    let mut from = 0;
    while let Some(at) = code[from..].find("#[cfg(test)]").map(|n| from + n) {
        from = at + 1;
        let Some(open) = code[at..].find(['{', ';']).map(|n| at + n) else { break };
        if code.as_bytes()[open] == b'{' && words(&code[at..open], "mod").next().is_some() {
            let mut depth = 0;
            let close = code[open..].char_indices().find(|(_, c)| {
                depth += i32::from(*c == '{') - i32::from(*c == '}');
                depth == 0
            });
            let close = close.map_or(code.len(), |(n, _)| open + n);
            let blank: String = code[at..close].chars().map(|c| if c == '\n' { c } else { ' ' }).collect();
            code.replace_range(at..close, &blank);
        }
    }
    code
}

/// Whether the permission at `at` is for a module that may have it: `#[allow(…)] mod simd;` in the folder's parent.
fn permits_its_place(path: &str, code: &str, at: usize) -> bool {
    let item = &code[at..code[at..].find([';', '{']).map_or(code.len(), |n| at + n)];
    let folder = path.strip_suffix("mod.rs").map_or_else(|| path.replace(".rs", "/"), str::to_string);
    let folder = if path == "src/lib.rs" { "src/" } else { &folder };
    words(item, "mod").next().is_some_and(|at| {
        let module = item[at + 3..].trim();
        UNSAFE.contains(&format!("{folder}{module}.rs").as_str())
            || UNSAFE.contains(&format!("{folder}{module}/").as_str())
    })
}

/// Words no file keeps. Put together here, so that this file does not hold them: macros, marks, and folders of machines.
fn leftovers() -> [(String, &'static str); 8] {
    [
        (["to", "do!"].concat(), "unfinished code"),
        (["unimple", "mented!"].concat(), "unfinished code"),
        (["db", "g!"].concat(), "debugging output"),
        (["FIX", "ME"].concat(), "an unfinished mark"),
        (["TO", "DO"].concat(), "an unfinished mark"),
        (["/ro", "ot/"].concat(), "a path of a machine"),
        (["/ho", "me/"].concat(), "a path of a machine"),
        (["/wo", "rk/"].concat(), "a path of a machine"),
    ]
}

/// All findings in one file; `path` is relative to the package, with `/` between.
fn check(path: &str, text: &str) -> Vec<String> {
    let mut findings = Vec::new();
    let mut find = |at: usize, rule: String| {
        let line = text[..at].matches('\n').count() + 1;
        findings.push(format!("{path}:{line}: {rule}"));
    };

    let lines = text.lines().count();
    if lines > LONGEST {
        find(text.len(), format!("{lines} lines, at most {LONGEST}"));
    }
    for (word, what) in leftovers() {
        for (at, _) in text.match_indices(&word).filter(|&(at, _)| !text[..at].ends_with(|c| is_word(c) || c == '.')) {
            find(at, format!("{what}, `{word}`"));
        }
    }

    let code = code(text);
    if !UNSAFE.iter().any(|&place| path == place || place.ends_with('/') && path.starts_with(place)) {
        for at in words(&code, "unsafe") {
            find(at, "`unsafe` outside of the places it is confined to".to_string());
        }
        for at in words(&code, "unsafe_code") {
            let open = code[..at].rfind("#").unwrap_or(0);
            if !code[open..at].contains("deny(") && !permits_its_place(path, &code, at) {
                find(at, "permission for `unsafe` outside of the places it is confined to".to_string());
            }
        }
    }
    if !path.ends_with("/tests.rs") {
        let code = without_tests(&code);
        for fence in FENCES.iter().filter(|fence| fence.holds(path)) {
            for (at, name) in fence.breaches(&code) {
                find(at, format!("`{}` must not use `{name}`", fence.path));
            }
        }
    }
    findings
}

/// Findings in all Rust files below `folder`, and how many files there were.
fn walk(root: &Path, folder: &str, findings: &mut Vec<String>) -> usize {
    let Ok(entries) = fs::read_dir(root.join(folder)) else { return 0 };
    let mut names: Vec<_> = entries
        .map(|entry| entry.expect("a folder can be listed").file_name().into_string().expect("names are UTF-8"))
        .collect();
    names.sort_unstable();
    let mut files = 0;
    for name in names {
        let path = format!("{folder}/{name}");
        if root.join(&path).is_dir() {
            files += walk(root, &path, findings);
        } else if name.ends_with(".rs") {
            findings.extend(check(&path, &fs::read_to_string(root.join(&path)).expect("sources are UTF-8")));
            files += 1;
        }
    }
    files
}

#[test]
fn source_tree_is_tidy() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut findings = Vec::new();
    let files: usize = ["src", "tests", "benches"].map(|folder| walk(root, folder, &mut findings)).iter().sum();
    assert!(files > 10, "found only {files} files below {}", root.display());
    assert!(findings.is_empty(), "\n{}", findings.join("\n"));
}

#[test]
fn planted_violations_are_found() {
    let long = "\n".repeat(LONGEST + 1);
    let left = |i: usize| format!("fn f() {{}}\n// {}\n", leftovers()[i].0);
    let planted = [
        ("src/model/vit.rs", "\nuse crate::cpu::CpuOps;\n", "2: `src/model` must not use `cpu`"),
        (
            "src/model/vit.rs",
            "use crate::{ops::{Ops, View},\n  reference::Buffer};",
            "2: `src/model` must not use `reference`",
        ),
        ("src/model/vit.rs", "use rayon::prelude::*;", "1: `src/model` must not use `rayon`"),
        ("src/model/vit.rs", "use std::{sync, thread};", "1: `src/model` must not use `std::thread`"),
        ("src/model/vit.rs", "fn f() { let x = unsafe { g() }; }", "1: `unsafe`"),
        ("src/reference/mod.rs", "#[cfg(test)]\nmod tests;\nuse super::cpu;", "3: `src/reference` must not use `cpu`"),
        ("src/reference/dense.rs", "fn f(x: &crate::model::Vit) {}", "1: `src/reference` must not use `model`"),
        ("src/cpu/mod.rs", "use crate :: reference :: Buffer;", "1: `src/cpu` must not use `reference`"),
        ("src/cpu/gemm/mod.rs", "use crate::engine::Model;", "1: `src/cpu` must not use `engine`"),
        ("src/serve/app.rs", "use crate::engine::Model;", "1: `src/serve` must not use `engine`"),
        ("src/ops.rs", "use crate::cpu::CpuOps;", "1: `src/ops` must not use `cpu`"),
        ("src/error.rs", "use crate::weights::Store;", "1: `src/error` must not use `weights`"),
        ("src/weights/store.rs", "use crate::ops::Ops;", "1: `src/weights` must not use `ops`"),
        ("src/text/mod.rs", "use crate::image::ImageView;", "1: `src/text` must not use `image`"),
        ("src/ffi/open.rs", "use crate::engine::Model;", "1: `src/ffi` must not use `engine`"),
        ("src/bin/sam3/main.rs", "use sam3::{Model, cpu::Isa};", "1: `src/bin` must not use `cpu`"),
        ("src/bin/sam3/main.rs", "fn f() -> sam3::ops::Activation {}", "1: `src/bin` must not use `ops`"),
        ("src/cpu/norm.rs", "#[allow(unsafe_code)]\nmod fast;", "1: permission"),
        ("src/lib.rs", "#![deny(unsafe_code)]\n#[expect(unsafe_code)]\nmod cpu;", "2: permission"),
        ("src/text/mod.rs", &long, "701 lines, at most 700"),
        ("src/text/mod.rs", &left(0), "2: unfinished code"),
        ("tests/a.rs", &left(1), "2: unfinished code"),
        ("tests/a.rs", &left(2), "2: debugging output"),
        ("benches/a.rs", &left(3), "2: an unfinished mark"),
        ("benches/a.rs", &left(5), "2: a path of a machine"),
    ];
    for (path, text, expected) in planted {
        let found = check(path, text);
        let named = found.iter().any(|f| f.starts_with(path) && f.contains(expected));
        assert!(found.len() == 1 && named, "{path} {text:?}: expected one finding `{expected}`, found {found:?}");
    }
}

#[test]
fn what_is_allowed_is_not_found() {
    let allowed = [
        ("src/model/vit.rs", "//! Not unsafe, see [`crate::cpu`].\nuse crate::{ops::Ops, weights::HostTensor};"),
        (
            "src/model/vit.rs",
            "/* unsafe /* nested */ use crate::cpu; */ fn f<'a>(x: &'a str) { g(\"crate::cpu\", '\"') }",
        ),
        ("src/model/vit.rs", "const A: &str = r#\"unsafe \"quoted\" crate::cpu\"#;\nfn unsafely(cpu: u8) {}"),
        ("src/cpu/norm.rs", "use super::pool;\n#[cfg(test)]\nmod tests {\n    use crate::reference::ReferenceOps;\n}"),
        ("src/cpu/tests.rs", "use crate::reference::ReferenceOps;"),
        ("src/cpu/simd/avx2.rs", "#![allow(unsafe_code)]\nfn f() { unsafe { g() } }"),
        ("src/cpu/mod.rs", "#[allow(unsafe_code)]\npub mod simd;"),
        ("src/lib.rs", "#![deny(unsafe_code)]\nmod cpu;"),
        (
            "src/weights/mod.rs",
            "#[allow(unsafe_code)]\nmod mmap;\nuse crate::weights::Dtype;\nuse crate::error::Error;",
        ),
        ("src/engine.rs", "use crate::{cpu::CpuOps, model::Sam3, reference::ReferenceOps};"),
        ("src/bin/sam3/main.rs", "mod ops;\nuse crate::ops::run;\nuse sam3::Model;"),
        ("tests/ops.rs", "use sam3::cpu::CpuOps;\nuse sam3::ops::Ops;\n// see https://example.org/a/work/b"),
    ];
    for (path, text) in allowed {
        let found = check(path, text);
        assert!(found.is_empty(), "{path} {text:?}: found {found:?}");
    }
}
