//! Phrases in, token ids out: CLIP's byte-pair encoding as `transformers` 5.23 runs it.
//!
//! Text is normalised, split and merged by the `tokenizers` crate, upstream's own implementation, so that it cannot
//! drift. The pipeline around it, however, is always the one that `CLIPTokenizer.__init__`
//! (`models/clip/tokenization_clip.py`) builds: upstream takes vocabulary, merges, added tokens and the two marks from a
//! `tokenizer.json`, and ignores the normaliser and splitter written there. Doing the same is exact, and it keeps
//! foreign regular expressions and model types, some of which the crate panics on, out of reach of a checkpoint.

mod vocabulary;

use std::path::Path;

use tokenizers::models::bpe::BPE;
use tokenizers::normalizers::replace::ReplacePattern;
use tokenizers::normalizers::{Lowercase, NFC, NormalizerWrapper, Replace, Sequence as Normalizers};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence as Splitters;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::processors::roberta::RobertaProcessing;
use tokenizers::{AddedToken, SplitDelimiterBehavior, TokenizerBuilder, TokenizerImpl};

use crate::{Error, ErrorKind, Result};
use vocabulary::{END, START, Vocabulary};
pub use vocabulary::{MAX_FILE_BYTES, STANDARD_SIZE};

/// The longest phrase that is looked at, in bytes. The text encoder takes 32 tokens, CLIP's 77, and the longest token
/// of the standard vocabulary stands for 32 bytes, so that every phrase that fits is far shorter; but white space counts
/// for nothing, and a caller may send a page of it. 16 KiB take 30 ms at worst.
pub const MAX_PHRASE_BYTES: usize = 16 * 1024;

/// The words CLIP is split into, before bytes and merges (`tokenization_clip.py`, `Split`).
const WORDS: &str = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";

/// A CLIP tokenizer. Immutable and shareable between threads.
pub struct Tokenizer {
    inner: TokenizerImpl<BPE, Normalizers, Splitters, RobertaProcessing, ByteLevel>,
    start: u32,
    end: u32,
    source: &'static str,
}

impl Tokenizer {
    /// The tokenizer of the checkpoint in `dir`, whose text encoder knows `vocab_size` tokens: from `tokenizer.json`;
    /// else from `vocab.json` and `merges.txt`; else, if there is none of these, [`Tokenizer::clip`].
    ///
    /// # Errors
    /// [`ErrorKind::Io`] if a file is there but cannot be read; [`ErrorKind::Checkpoint`], naming the file, if it
    /// is larger than [`MAX_FILE_BYTES`], damaged, not CLIP's kind of tokenizer, or has an id from `vocab_size` on.
    pub fn open(dir: &Path, vocab_size: usize) -> Result<Self> {
        let path = dir.join("tokenizer.json");
        if let Some(json) = vocabulary::read(&path)? {
            return Self::from_json(&json, vocab_size).map_err(|e| e.at(path.display()));
        }
        let (vocab_path, merges_path) = (dir.join("vocab.json"), dir.join("merges.txt"));
        match (vocabulary::read(&vocab_path)?, vocabulary::read(&merges_path)?) {
            (Some(vocab), Some(merges)) => {
                Self::from_vocab_and_merges(&vocab, &merges, vocab_size).map_err(|e| e.at(dir.display()))
            }
            (None, None) => Self::clip(vocab_size),
            (Some(_), None) => Err(Error::checkpoint("expected merges.txt beside vocab.json").at(dir.display())),
            (None, Some(_)) => Err(Error::checkpoint("expected vocab.json beside merges.txt").at(dir.display())),
        }
    }

    /// From the bytes of a `tokenizer.json`.
    ///
    /// # Errors
    /// [`ErrorKind::Checkpoint`] as [`Tokenizer::open`]; [`ErrorKind::Unsupported`] if an added token strips white
    /// space or matches whole words only, which no CLIP tokenizer asks for.
    pub fn from_json(json: &[u8], vocab_size: usize) -> Result<Self> {
        Self::build(Vocabulary::from_json(json)?, vocab_size, "tokenizer.json")
    }

    /// From the bytes of a `vocab.json` (token to id) and a `merges.txt` (`left right` a line, most frequent first,
    /// an optional first line `#version: ...`).
    ///
    /// # Errors
    /// [`ErrorKind::Checkpoint`] as [`Tokenizer::open`].
    pub fn from_vocab_and_merges(vocab: &[u8], merges: &[u8], vocab_size: usize) -> Result<Self> {
        Self::build(Vocabulary::from_vocab_and_merges(vocab, merges)?, vocab_size, "vocab.json and merges.txt")
    }

    /// The standard CLIP vocabulary, which is part of this crate, cut to `vocab_size` tokens: 512 characters, the
    /// `vocab_size - 514` most frequent merges, and the two marks, which come last. [`STANDARD_SIZE`] is all of it.
    ///
    /// # Errors
    /// [`ErrorKind::Checkpoint`] unless `vocab_size` is 514 to [`STANDARD_SIZE`].
    pub fn clip(vocab_size: usize) -> Result<Self> {
        Self::build(Vocabulary::standard(vocab_size)?, vocab_size, "the embedded CLIP vocabulary")
    }

    /// Builds upstream's pipeline around a vocabulary.
    fn build(vocabulary: Vocabulary, vocab_size: usize, source: &'static str) -> Result<Self> {
        let (start, end) = vocabulary.check(vocab_size)?;
        let Vocabulary { tokens, merges, added } = vocabulary;
        let failed = |e| Error::checkpoint("the vocabulary and its merges do not fit together").with_source(e);
        let model = BPE::builder()
            .vocab_and_merges(tokens, merges)
            .unk_token(END.into())
            .continuing_subword_prefix(String::new())
            .end_of_word_suffix("</w>".into())
            .build()
            .map_err(failed)?;

        let defect = |e| Error::new(ErrorKind::Internal, "CLIP's own pipeline").with_source(e);
        let spaces = Replace::new(ReplacePattern::Regex(r"\s+".into()), " ").map_err(defect)?;
        let normalizers: Vec<NormalizerWrapper> = vec![NFC.into(), spaces.into(), Lowercase.into()];
        let words = SplitPattern::Regex(WORDS.into());
        let words = Split::new(words, SplitDelimiterBehavior::Removed, true).map_err(defect)?;
        let bytes = ByteLevel::default().add_prefix_space(false);
        let marks = RobertaProcessing::new((END.into(), end), (START.into(), start));
        let mut inner = TokenizerBuilder::new()
            .with_model(model)
            .with_normalizer(Some(Normalizers::new(normalizers)))
            .with_pre_tokenizer(Some(Splitters::new(vec![words.into(), bytes.into()])))
            .with_post_processor(Some(marks.trim_offsets(false).add_prefix_space(false)))
            .with_decoder(None)
            .build()
            .map_err(defect)?;
        let added: Vec<AddedToken> = added
            .into_iter()
            .map(|token| AddedToken::from(token.content, token.special).normalized(token.normalized))
            .collect();
        inner.add_tokens(&added);
        Ok(Self { inner, start, end, source })
    }

    /// The ids of a phrase between the start and the end mark: not padded, not cut. An empty phrase is two ids.
    ///
    /// As upstream, nothing is trusted to be plain text: `<|endoftext|>` written out becomes the end mark's id.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] if the phrase is longer than [`MAX_PHRASE_BYTES`].
    pub fn encode(&self, phrase: &str) -> Result<Vec<u32>> {
        if phrase.len() > MAX_PHRASE_BYTES {
            return Err(Error::invalid(format!(
                "expected a phrase of at most {MAX_PHRASE_BYTES} bytes, found {}",
                phrase.len()
            )));
        }
        let encoding = self.inner.encode_fast(phrase, true);
        let encoding = encoding.map_err(|e| Error::new(ErrorKind::Internal, "tokenizing a phrase").with_source(e))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Whether ids of [`Tokenizer::encode`] fit into a text encoder that takes `context` of them.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] if they do not. Upstream fails, too: a cut phrase means something else.
    pub fn check_length(ids: &[u32], context: usize) -> Result<()> {
        if ids.len() > context {
            return Err(Error::invalid(format!(
                "expected a phrase of at most {context} tokens with its start and end marks, found {}; use fewer words",
                ids.len()
            )));
        }
        Ok(())
    }

    /// Where the vocabulary came from, in words.
    pub fn source(&self) -> &'static str {
        self.source
    }

    /// Id of the start mark, `<|startoftext|>`.
    pub fn start_id(&self) -> u32 {
        self.start
    }

    /// Id of the end mark, `<|endoftext|>`, which upstream pads with, too.
    pub fn end_id(&self) -> u32 {
        self.end
    }
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tokenizer({} tokens, start {}, end {})", self.inner.get_vocab_size(true), self.start, self.end)
    }
}
