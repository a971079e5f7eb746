//! Tokens, merges and added tokens, from files of unknown origin or from the embedded standard vocabulary.
//!
//! Everything the tokenizer is built from passes [`Vocabulary::check`], which holds what the `tokenizers` crate takes
//! for granted: ids are in range and belong to one token each, merges join tokens into tokens, added tokens are in the
//! vocabulary and do not overlap by stripping white space.

use std::collections::HashMap;
use std::io::Read;
use std::path::Path;

use serde::Deserialize;
use tokenizers::models::bpe::Vocab;

use crate::{Error, ErrorKind, Result};

/// The mark before every phrase.
pub(super) const START: &str = "<|startoftext|>";
/// The mark behind every phrase, which stands for unknown characters, too.
pub(super) const END: &str = "<|endoftext|>";

/// Tokens of the standard CLIP vocabulary: 2 × 256 characters, 48,894 merges, 2 marks.
pub const STANDARD_SIZE: usize = 512 + 48_894 + 2;

/// The largest tokenizer file that is read: CLIP's `tokenizer.json` has 3.6 MB, indented; this is nine times as much.
pub const MAX_FILE_BYTES: u64 = 32 << 20;

/// The merges of the standard vocabulary; see `assets/clip/README.md` for where they come from.
const STANDARD_MERGES: &str = include_str!("../../assets/clip/merges.txt");

/// What a tokenizer is built from.
pub(super) struct Vocabulary {
    pub tokens: Vocab,
    pub merges: Vec<(String, String)>,
    pub added: Vec<Added>,
}

/// A token that is found in the text as it is, before words are split (`AddedToken`).
#[derive(Deserialize)]
pub(super) struct Added {
    pub id: u32,
    pub content: String,
    /// Whether it is searched for after lower-casing.
    #[serde(default)]
    pub normalized: bool,
    #[serde(default)]
    pub special: bool,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
}

/// The parts of a `tokenizer.json` that upstream uses; see the module documentation of `text`.
#[derive(Deserialize)]
struct File {
    model: Model,
    #[serde(default)]
    added_tokens: Vec<Added>,
    #[serde(default)]
    post_processor: Option<PostProcessor>,
}

#[derive(Deserialize)]
struct Model {
    #[serde(rename = "type")]
    kind: Option<String>,
    end_of_word_suffix: Option<String>,
    vocab: HashMap<String, u32>,
    merges: Vec<Merge>,
}

/// `"left right"` in files of old, `["left", "right"]` in new ones.
#[derive(Deserialize)]
#[serde(untagged)]
enum Merge {
    Pair(String, String),
    Line(String),
}

/// `RobertaProcessing`: `(token, id)` of the end and of the start mark.
#[derive(Deserialize)]
struct PostProcessor {
    #[serde(rename = "type")]
    kind: String,
    sep: Option<(String, u32)>,
    cls: Option<(String, u32)>,
}

/// The contents of a file, or `None` if there is none.
pub(super) fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    let failed = |e: std::io::Error| Error::new(ErrorKind::Io, "cannot read it").with_source(e).at(path.display());
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(failed(e)),
    };
    let mut bytes = Vec::new();
    // One byte more than allowed tells a file that is too large, whatever its metadata say.
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    check_bytes(&bytes).map_err(|e| e.at(path.display()))?;
    Ok(Some(bytes))
}

fn check_bytes(bytes: &[u8]) -> Result<()> {
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(Error::checkpoint(format!("expected at most {MAX_FILE_BYTES} bytes, found more")));
    }
    Ok(())
}

fn parse<'a, T: Deserialize<'a>>(json: &'a [u8], what: &str) -> Result<T> {
    check_bytes(json)?;
    serde_json::from_slice(json).map_err(|e| Error::checkpoint(format!("expected {what}")).with_source(e))
}

impl Vocabulary {
    pub fn from_json(json: &[u8]) -> Result<Self> {
        let File { model, mut added_tokens, post_processor } = parse(json, "a CLIP tokenizer.json")?;
        for (what, found, expected) in
            [("model.type", &model.kind, "BPE"), ("model.end_of_word_suffix", &model.end_of_word_suffix, "</w>")]
        {
            if found.as_deref().is_some_and(|f| f != expected) {
                return Err(Error::checkpoint(format!("{what}: expected {expected:?}, found {found:?}")));
            }
        }
        let merges = model.merges.into_iter().enumerate().map(|(i, merge)| match merge {
            Merge::Pair(left, right) => Ok((left, right)),
            Merge::Line(line) => split_merge(&line, i),
        });
        let merges = merges.collect::<Result<_>>()?;
        let mut tokens: Vocab = model.vocab.into_iter().collect();
        // An added token may be missing from the model's own table.
        for token in &added_tokens {
            let id = *tokens.entry(token.content.clone()).or_insert(token.id);
            if id != token.id {
                return Err(Error::checkpoint(format!(
                    "added token {:?}: expected id {id} as in the vocabulary, found {}",
                    token.content, token.id
                )));
            }
        }
        if let Some(marks) = post_processor {
            let expected = [END, START].map(|mark| tokens.get(mark).map(|&id| (mark.to_owned(), id)));
            if marks.kind != "RobertaProcessing" || [&marks.sep, &marks.cls] != [&expected[0], &expected[1]] {
                return Err(Error::checkpoint(format!(
                    "post_processor: expected RobertaProcessing with {expected:?}, found {} with {:?}, {:?}",
                    marks.kind, marks.sep, marks.cls
                )));
            }
        }
        // Upstream adds the marks that the file does not list.
        for mark in marks(&tokens) {
            if !added_tokens.iter().any(|t| t.content == mark.content) {
                added_tokens.push(mark);
            }
        }
        Ok(Self { tokens, merges, added: added_tokens })
    }

    pub fn from_vocab_and_merges(vocab: &[u8], merges: &[u8]) -> Result<Self> {
        let tokens: HashMap<String, u32> = parse(vocab, "vocab.json to be an object of token to id")?;
        check_bytes(merges)?;
        let merges = std::str::from_utf8(merges)
            .map_err(|e| Error::checkpoint("expected merges.txt to be UTF-8").with_source(e))?;
        let lines = merges.lines().enumerate().filter(|(i, line)| {
            // A first line that starts so is a comment; later ones are merges of the character '#'.
            !(line.is_empty() || *i == 0 && line.starts_with("#version"))
        });
        let merges = lines.map(|(i, line)| split_merge(line, i)).collect::<Result<_>>()?;
        let tokens: Vocab = tokens.into_iter().collect();
        let added = marks(&tokens);
        Ok(Self { tokens, merges, added })
    }

    pub fn standard(size: usize) -> Result<Self> {
        if !(514..=STANDARD_SIZE).contains(&size) {
            return Err(Error::checkpoint(format!(
                "without tokenizer files a text encoder must know 514 to {STANDARD_SIZE} tokens, the standard CLIP \
                 vocabulary or its beginning; this one knows {size}"
            )));
        }
        let mut tokens = Vocab::with_capacity(size);
        let mut push = |token: String| {
            let id = tokens.len() as u32;
            tokens.insert(token, id);
        };
        byte_characters().for_each(|c| push(c.into()));
        byte_characters().for_each(|c| push(format!("{c}</w>")));
        let mut merges = Vec::with_capacity(size - 514);
        for (i, line) in STANDARD_MERGES.lines().take(size - 514).enumerate() {
            let (left, right) = split_merge(line, i)?;
            push(format!("{left}{right}"));
            merges.push((left, right));
        }
        push(START.into());
        push(END.into());
        let added = marks(&tokens);
        Ok(Self { tokens, merges, added })
    }

    /// Checks all that the module documentation promises; the ids of the start and the end mark.
    pub fn check(&self, vocab_size: usize) -> Result<(u32, u32)> {
        let mut owner: HashMap<u32, &str> = HashMap::with_capacity(self.tokens.len());
        for (token, &id) in &self.tokens {
            if id as usize >= vocab_size {
                return Err(Error::checkpoint(format!(
                    "token {}: expected an id below the text encoder's {vocab_size} tokens, found {id}",
                    quote(token)
                )));
            }
            if let Some(other) = owner.insert(id, token) {
                return Err(Error::checkpoint(format!(
                    "expected one token for each id, found {} and {} for {id}",
                    quote(token),
                    quote(other)
                )));
            }
        }
        for (i, (left, right)) in self.merges.iter().enumerate() {
            let joined = format!("{left}{right}");
            if let Some(missing) = [left, right, &joined].into_iter().find(|&t| !self.tokens.contains_key(t)) {
                return Err(Error::checkpoint(format!(
                    "merge {i}, {} and {}: {} is not in the vocabulary",
                    quote(left),
                    quote(right),
                    quote(missing)
                )));
            }
        }
        for token in &self.added {
            if token.single_word || token.lstrip || token.rstrip {
                return Err(Error::new(
                    ErrorKind::Unsupported,
                    format!("added token {}: single_word, lstrip and rstrip are not supported", quote(&token.content)),
                ));
            }
            if token.content.is_empty() {
                return Err(Error::checkpoint("added tokens: expected text, found an empty token"));
            }
        }
        let id = |mark: &str| {
            let id = self.tokens.get(mark).copied();
            id.ok_or_else(|| Error::checkpoint(format!("expected the mark {mark:?} in the vocabulary, found none")))
        };
        Ok((id(START)?, id(END)?))
    }
}

/// The two marks as upstream adds them where no file says otherwise, if the vocabulary has them.
fn marks(tokens: &Vocab) -> Vec<Added> {
    let mark = |content: &str| {
        let id = *tokens.get(content)?;
        let content = content.to_owned();
        Some(Added { id, content, normalized: false, special: true, single_word: false, lstrip: false, rstrip: false })
    };
    [START, END].into_iter().filter_map(mark).collect()
}

fn split_merge(line: &str, i: usize) -> Result<(String, String)> {
    match line.split_once(' ') {
        Some((left, right)) if !left.is_empty() && !right.is_empty() && !right.contains(' ') => {
            Ok((left.to_owned(), right.to_owned()))
        }
        _ => Err(Error::checkpoint(format!(
            "merge {i}: expected two tokens with a space between, found {}",
            quote(line)
        ))),
    }
}

/// A token of a file in a message: escaped, and not by the megabyte.
fn quote(token: &str) -> String {
    let short: String = token.chars().take(40).collect();
    if short.len() < token.len() { format!("{short:?}...") } else { format!("{short:?}") }
}

/// The printable characters that stand for the 256 bytes, in CLIP's order of ids (`bytes_to_unicode`): first those
/// that print as themselves, in Latin-1, then the others, moved behind U+00FF.
fn byte_characters() -> impl Iterator<Item = char> {
    let prints = |b: &u32| matches!(b, 33..=126 | 161..=172 | 174..=255);
    let moved = (0..256).filter(move |b| !prints(b)).count() as u32;
    (0..256).filter(prints).chain(256..256 + moved).map(|c| char::from_u32(c).expect("below the surrogates"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn standard_ids() {
        let all = Vocabulary::standard(STANDARD_SIZE).unwrap();
        assert_eq!(all.tokens.len(), STANDARD_SIZE);
        assert_eq!(all.check(STANDARD_SIZE).unwrap(), (49_406, 49_407));
        assert_eq!(STANDARD_MERGES.lines().count(), STANDARD_SIZE - 514);
        // The first and last of each part, as in the published vocab.json.
        for (token, id) in
            [("!", 0), ("ÿ", 187), ("Ā", 188), ("Ń", 255), ("!</w>", 256), ("in", 512), ("jekyll</w>", 49_405)]
        {
            assert_eq!(all.tokens.get(token), Some(&id), "{token}");
        }
        let longest = all.tokens.keys().map(|t| t.trim_end_matches("</w>").chars().count()).max();
        assert_eq!(longest, Some(32), "the figure behind MAX_PHRASE_BYTES");
        assert!(Vocabulary::standard(513).is_err() && Vocabulary::standard(STANDARD_SIZE + 1).is_err());
    }
}
