//! The tokenizer against `transformers`: 10,000 phrases in many scripts, from every source a vocabulary can come from,
//! and files that are damaged or lie.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use sam3::ErrorKind;
use sam3::text::{MAX_FILE_BYTES, MAX_PHRASE_BYTES, STANDARD_SIZE, Tokenizer};

fn fixture(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/text").join(name);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn phrases() -> Vec<String> {
    fixture("phrases.txt").lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// FNV-1a, 64 bits, of the ids as little-endian `u32`; as in generate.py.
fn fnv(ids: &[u32]) -> u64 {
    let bytes = ids.iter().flat_map(|id| id.to_le_bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

/// All 10,000 phrases must give upstream's ids.
fn compare_all(tokenizer: &Tokenizer) {
    let (phrases, expected) = (phrases(), fixture("ids.txt"));
    assert_eq!((phrases.len(), expected.lines().count()), (10_000, 10_000));
    let mut wrong = Vec::new();
    for (i, (phrase, expected)) in phrases.iter().zip(expected.lines()).enumerate() {
        let ids = tokenizer.encode(phrase).unwrap();
        if format!("{} {:016x}", ids.len(), fnv(&ids)) != expected {
            wrong.push((i, phrase.chars().take(60).collect::<String>(), ids.len()));
        }
    }
    assert!(wrong.is_empty(), "{} of {} differ, first: {:?}", wrong.len(), phrases.len(), &wrong[..wrong.len().min(5)]);
    // The same again in full for some, which also checks the hash.
    let full: BTreeMap<usize, Vec<u32>> = serde_json::from_str(&fixture("full.json")).unwrap();
    assert!(full.len() >= 200);
    for (i, ids) in full {
        assert_eq!(tokenizer.encode(&phrases[i]).unwrap(), ids, "phrase {i}: {:?}", phrases[i]);
    }
}

/// The first `merges` merges, the characters and the marks: `vocab.json` by id, and the merges.
fn standard(merges: usize) -> (Vec<String>, Vec<(String, String)>) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/clip/merges.txt");
    let text = fs::read_to_string(path).unwrap();
    let pairs: Vec<(String, String)> =
        text.lines().take(merges).map(|l| l.split_once(' ').unwrap()).map(|(a, b)| (a.into(), b.into())).collect();
    // Written out once more than in the library, on purpose: '!'..='~', '¡'..='¬', '®'..='ÿ', then U+0100 on.
    let ranges = [33..=126, 161..=172, 174..=255, 256..=323u32];
    let characters: Vec<String> = ranges.into_iter().flatten().map(|c| char::from_u32(c).unwrap().into()).collect();
    let mut tokens = characters.clone();
    tokens.extend(characters.iter().map(|c| format!("{c}</w>")));
    tokens.extend(pairs.iter().map(|(a, b)| format!("{a}{b}")));
    tokens.extend(["<|startoftext|>".into(), "<|endoftext|>".into()]);
    (tokens, pairs)
}

fn vocab_json(tokens: &[String]) -> String {
    let map: BTreeMap<&str, usize> = tokens.iter().enumerate().map(|(i, t)| (t.as_str(), i)).collect();
    serde_json::to_string(&map).unwrap()
}

/// A `tokenizer.json` as `save_pretrained` writes it, or as older versions did: merges as lines, `normalized` start mark.
fn tokenizer_json(merges: usize, old: bool) -> String {
    let (tokens, pairs) = standard(merges);
    let (start, end) = (tokens.len() - 2, tokens.len() - 1);
    let lines: Vec<String> = pairs.iter().map(|(a, b)| format!("{a} {b}")).collect();
    let merges = if old { serde_json::to_string(&lines) } else { serde_json::to_string(&pairs) }.unwrap();
    let flags = r#""single_word": false, "lstrip": false, "rstrip": false, "special": true"#;
    format!(
        r#"{{"version": "1.0", "truncation": {{"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0}},
"padding": null, "added_tokens": [
{{"id": {start}, "content": "<|startoftext|>", "normalized": {old}, {flags}}},
{{"id": {end}, "content": "<|endoftext|>", "normalized": false, {flags}}}],
"normalizer": {{"type": "Nonsense"}}, "pre_tokenizer": null,
"post_processor": {{"type": "RobertaProcessing", "sep": ["<|endoftext|>", {end}], "cls": ["<|startoftext|>", {start}],
"trim_offsets": false, "add_prefix_space": false}}, "decoder": null,
"model": {{"type": "BPE", "dropout": null, "unk_token": "<|endoftext|>", "end_of_word_suffix": "</w>",
"vocab": {}, "merges": {merges}}}}}"#,
        vocab_json(&tokens)
    )
}

#[test]
fn embedded_vocabulary_equals_upstream() {
    compare_all(&Tokenizer::clip(STANDARD_SIZE).unwrap());
}

#[test]
fn tokenizer_json_equals_upstream() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("tokenizer.json"), tokenizer_json(48_894, false)).unwrap();
    // Takes precedence over files that would be errors.
    fs::write(dir.path().join("vocab.json"), "damaged").unwrap();
    compare_all(&Tokenizer::open(dir.path(), STANDARD_SIZE).unwrap());
}

#[test]
fn vocab_and_merges_equal_upstream() {
    let dir = tempfile::tempdir().unwrap();
    let (tokens, pairs) = standard(48_894);
    let mut merges = String::from("#version: 0.2\n");
    pairs.iter().for_each(|(a, b)| writeln!(merges, "{a} {b}").unwrap());
    fs::write(dir.path().join("vocab.json"), vocab_json(&tokens)).unwrap();
    let missing = Tokenizer::open(dir.path(), STANDARD_SIZE).unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::Checkpoint, "{missing}");
    fs::write(dir.path().join("merges.txt"), merges).unwrap();
    compare_all(&Tokenizer::open(dir.path(), STANDARD_SIZE).unwrap());
}

#[test]
fn no_files_mean_the_embedded_vocabulary() {
    let dir = tempfile::tempdir().unwrap();
    let tokenizer = Tokenizer::open(dir.path(), STANDARD_SIZE).unwrap();
    assert_eq!((tokenizer.start_id(), tokenizer.end_id()), (49_406, 49_407));
    assert_eq!(tokenizer.encode("a photo of a cat").unwrap(), [49406, 320, 1125, 539, 320, 2368, 49407]);
}

/// A start mark that is searched for after lower-casing, as OpenAI's own tokenizer.json has it. Ids by transformers.
#[test]
fn added_tokens_keep_their_flags() {
    let old = Tokenizer::from_json(tokenizer_json(48_894, true).as_bytes(), STANDARD_SIZE).unwrap();
    assert_eq!(old.encode("a<|STARTOFTEXT|>").unwrap(), [49406, 320, 49406, 49407]);
    let new = Tokenizer::clip(STANDARD_SIZE).unwrap();
    assert_eq!(new.encode("a<|STARTOFTEXT|>").unwrap(), [49406, 320, 27, 347, 993, 6659, 4160, 91, 285, 49407]);
    let ids = [49406, 320, 1125, 49406, 343, 27, 347, 40786, 4160, 91, 285, 49407];
    for tokenizer in [old, new] {
        assert_eq!(tokenizer.encode("a photo <|startoftext|> x<|ENDOFTEXT|>").unwrap(), ids);
        assert_eq!(tokenizer.encode("").unwrap(), [49406, 49407]);
    }
}

/// Merges are ordered by frequency, so a smaller vocabulary is the beginning of the large one.
#[test]
fn smaller_vocabulary() {
    let small = Tokenizer::clip(8192).unwrap();
    assert_eq!((small.start_id(), small.end_id()), (8190, 8191));
    let whole = Tokenizer::clip(STANDARD_SIZE).unwrap();
    for phrase in ["red circle", "school bus", "a small dog"] {
        let (short, long) = (small.encode(phrase).unwrap(), whole.encode(phrase).unwrap());
        assert_eq!(short[1..short.len() - 1], long[1..long.len() - 1], "{phrase}");
    }
    let from_file = Tokenizer::from_json(tokenizer_json(8192 - 514, false).as_bytes(), 8192).unwrap();
    for phrase in phrases().iter().step_by(17) {
        let ids = small.encode(phrase).unwrap();
        assert_eq!(from_file.encode(phrase).unwrap(), ids, "{phrase:?}");
        assert!(ids.iter().all(|&id| id < 8192));
    }
}

#[test]
fn lengths_are_checked_apart() {
    let tokenizer = Tokenizer::clip(STANDARD_SIZE).unwrap();
    let ids = tokenizer.encode(&"dog ".repeat(40)).unwrap();
    assert_eq!(ids.len(), 42);
    assert!(Tokenizer::check_length(&ids, 42).is_ok());
    let error = Tokenizer::check_length(&ids, 32).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(error.to_string().contains("32") && error.to_string().contains("42"), "{error}");
}

/// The longest phrases are quick whatever they are made of, and longer ones are errors at once.
#[test]
fn long_phrases_are_bounded() {
    let tokenizer = Tokenizer::clip(STANDARD_SIZE).unwrap();
    for unit in [
        "a",
        " ",
        "é",
        "e\u{301}",
        "\u{300}",
        "\u{316}\u{301}",
        "🙂",
        "\u{200d}",
        "'",
        "1",
        "! ",
        "क्षि",
        "\0",
        "<|endoftext|>",
    ] {
        let phrase = unit.repeat(MAX_PHRASE_BYTES / unit.len());
        let start = Instant::now();
        let ids = tokenizer.encode(&phrase).unwrap();
        // A debug build on a busy machine; it takes some 30 ms at most when alone.
        assert!(start.elapsed() < Duration::from_secs(2), "{unit:?} took {:?}", start.elapsed());
        assert!(ids.len() >= 2 && ids.len() <= MAX_PHRASE_BYTES * 3);
        let error = tokenizer.encode(&(phrase + &"a".repeat(unit.len()))).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    }
    let error = tokenizer.encode(&"word ".repeat(200_000)).unwrap_err();
    assert!(error.to_string().contains("1000000"), "{error}");
}

#[test]
fn ids_beyond_the_embedding_are_errors() {
    let json = tokenizer_json(300, false);
    assert!(Tokenizer::from_json(json.as_bytes(), 814).is_ok());
    let error = Tokenizer::from_json(json.as_bytes(), 813).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Checkpoint);
    assert!(error.to_string().contains("813"), "{error}");
    for size in [0, 513, STANDARD_SIZE + 1, usize::MAX] {
        assert_eq!(Tokenizer::clip(size).unwrap_err().kind(), ErrorKind::Checkpoint);
    }
}

#[test]
fn lying_files_are_errors() {
    let good = tokenizer_json(300, false);
    for (from, to) in [
        (r#""type": "BPE""#, r#""type": "Unigram""#),
        (r#""end_of_word_suffix": "</w>""#, r#""end_of_word_suffix": "@@""#),
        (r#""id": 812"#, r#""id": 5"#),
        (r#""cls": ["<|startoftext|>", 812]"#, r#""cls": ["<|startoftext|>", 813]"#),
        ("RobertaProcessing", "ByteLevel"),
        (r#"["i","n"]"#, r#"["i","nowhere"]"#),
        (r#"["i","n"]"#, r#"["i"]"#),
        (r#"["i","n"]"#, r#""i n n""#),
        (r#""in":512"#, r#""in":513"#),
        (r#""in":512"#, r#""in":-1"#),
        (r#""in":512"#, r#""in":4294967296"#),
        (r#""lstrip": false"#, r#""lstrip": true"#),
        (r#""<|startoftext|>":812,"#, ""),
        ("{\"version\"", "[\"version\""),
    ] {
        assert!(good.contains(from), "{from} is not in the file");
        let bad = good.replace(from, to);
        // Without the mark in the vocabulary the added token brings it: that is no lie.
        let removed = to.is_empty();
        assert_eq!(Tokenizer::from_json(bad.as_bytes(), 814).is_ok(), removed, "{from} -> {to}");
    }
    let dir = tempfile::tempdir().unwrap();
    let huge = fs::File::create(dir.path().join("tokenizer.json")).unwrap();
    huge.set_len(MAX_FILE_BYTES + 1).unwrap();
    let error = Tokenizer::open(dir.path(), 814).unwrap_err();
    assert!(error.kind() == ErrorKind::Checkpoint && error.to_string().contains("tokenizer.json"), "{error}");
    let nested = "[".repeat(1 << 20);
    assert!(Tokenizer::from_json(nested.as_bytes(), 814).is_err());
    assert!(Tokenizer::from_vocab_and_merges(b"{}", b"\xff\xfe", 814).is_err());
    assert!(Tokenizer::from_vocab_and_merges(b"{}", b"", 814).is_err());
}

/// Damaged files are errors or work; nothing panics, neither building nor encoding.
#[test]
fn mutations_never_panic() {
    let good = tokenizer_json(40, false).into_bytes();
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = move |n: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % n as u64) as usize
    };
    let interesting: &[&[u8]] =
        &[b"\"", b",", b"[", b"}", b"\\u0000", b"true", b"null", b"-1", b"4294967295", b"</w>", b" ", b""];
    let (mut built, mut failed) = (0, 0);
    for round in 0..3000 {
        let mut bytes = good.clone();
        for _ in 0..=random(4) {
            let at = random(bytes.len());
            match random(5) {
                0 => bytes[at] = random(256) as u8,
                1 => bytes.truncate(at.max(1)),
                2 => drop(bytes.splice(at..at, interesting[random(interesting.len())].iter().copied())),
                3 => {
                    let end = (at + random(30)).min(bytes.len());
                    let piece = bytes[at..end].to_vec();
                    let to = random(bytes.len());
                    bytes.splice(to..to, piece);
                }
                _ => {
                    // A changed digit or letter keeps the JSON whole and changes its meaning.
                    if let Some(offset) = bytes[at..].iter().position(u8::is_ascii_alphanumeric) {
                        bytes[at + offset] = b"0123456789abitn"[random(15)];
                    }
                }
            }
            if bytes.is_empty() {
                bytes.push(b'{');
            }
        }
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let tokenizer = Tokenizer::from_json(&bytes, 560).ok()?;
            for phrase in ["a small dog's <|endoftext|> in the tin", "naïve ŉ 日本 \0", "", "<|STARTOFTEXT|>"] {
                assert!(tokenizer.encode(phrase).is_ok_and(|ids| ids.iter().all(|&id| id < 560)));
            }
            Some(())
        }));
        match outcome {
            Ok(Some(())) => built += 1,
            Ok(None) => failed += 1,
            Err(_) => panic!("round {round}: {}", String::from_utf8_lossy(&bytes)),
        }
    }
    assert!(built > 100 && failed > 100, "{built} built, {failed} failed: the mutations are too weak or too strong");
}
