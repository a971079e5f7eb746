//! `Model → Session → ImageEmbedding → Segmentation`.
//!
//! A [`Model`] holds weights and never changes: clone it, share it between threads, open several. A [`Session`] holds
//! the scratch memory of one caller at a time. An [`ImageEmbedding`] is a picture the model has looked at: prompts on
//! it pay only for themselves, from any session of its model, on any thread.

mod backend;
mod postprocess;
mod session;

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

pub use backend::{Gpu, Machine, PassedOver};
pub use session::{CancelHandle, ImageEmbedding, Session};

use crate::error::{Error, ErrorKind, Result};
use crate::ops::Cut;
use crate::options::ModelOptions;
use crate::text::Tokenizer;
use crate::weights::{Blob, Checkpoint, Config, Summary};
use backend::{Features, Loaded, Opened};

/// Phrases whose features are kept. At the published size one is 32 KiB (32 tokens of 256 f32), so all are 8 MiB.
const TEXT_CACHE: usize = 256;

/// A SAM 3 model, ready to answer. Cheap to clone; all clones are one model.
#[derive(Clone)]
pub struct Model(Arc<Inner>);

struct Inner {
    loaded: Arc<dyn Loaded>,
    tokenizer: Option<Tokenizer>,
    info: ModelInfo,
    /// Features of the latest phrases, the one used last at the end.
    texts: Mutex<VecDeque<(String, Features)>>,
}

/// What a model is and where it runs.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ModelInfo {
    /// Every dimension.
    pub config: Config,
    /// Tensors, bytes and element types of the checkpoint.
    pub checkpoint: Summary,
    /// The device, in words.
    pub device: String,
    /// Why it is not a GPU although [`crate::Device::Auto`] left that open; `None` where it is one, where another device
    /// was asked for, and in a build without CUDA.
    pub passed_over: Option<PassedOver>,
    /// Where the tokenizer came from, in words; `None` for a model without a text encoder.
    pub tokenizer: Option<&'static str>,
}

impl Model {
    /// Opens a checkpoint: a directory with `config.json` and `model.safetensors` (or shards with their index), or a
    /// `.safetensors` file with `config.json` beside it. Weights are mapped, not read: keep the files as they are while
    /// the model lives.
    ///
    /// Fails with [`ErrorKind::Io`] where files cannot be read, [`ErrorKind::Checkpoint`] where they are damaged or do
    /// not fit together, [`ErrorKind::Unsupported`] where they ask for what this engine lacks.
    pub fn open(path: impl AsRef<Path>, options: &ModelOptions) -> Result<Self> {
        Self::from_checkpoint(&Checkpoint::open(path.as_ref())?, options)
    }

    /// A model from memory: the text of `config.json`, the bytes of `model.safetensors`, and those of
    /// `tokenizer.json`; without the latter, the standard CLIP vocabulary cut to the configured size.
    pub fn from_memory(
        config: &str,
        weights: impl Into<Blob>,
        tokenizer: Option<&[u8]>,
        options: &ModelOptions,
    ) -> Result<Self> {
        let checkpoint = Checkpoint::from_memory(config, weights)?;
        let vocab = checkpoint.config().detector.as_ref().map(|d| d.text.vocab_size);
        let tokenizer = match (vocab, tokenizer) {
            (None, _) => None,
            (Some(n), Some(json)) => Some(Tokenizer::from_json(json, n)?),
            (Some(n), None) => Some(Tokenizer::clip(n)?),
        };
        Self::build(&checkpoint, tokenizer, options)
    }

    fn from_checkpoint(checkpoint: &Checkpoint, options: &ModelOptions) -> Result<Self> {
        let vocab = checkpoint.config().detector.as_ref().map(|d| d.text.vocab_size);
        let tokenizer = match (vocab, checkpoint.directory()) {
            (None, _) => None,
            (Some(n), Some(dir)) => Some(Tokenizer::open(dir, n)?),
            (Some(n), None) => Some(Tokenizer::clip(n)?),
        };
        Self::build(checkpoint, tokenizer, options)
    }

    fn build(checkpoint: &Checkpoint, tokenizer: Option<Tokenizer>, options: &ModelOptions) -> Result<Self> {
        checkpoint.verify()?;
        let Opened { loaded, device, passed_over } = backend::load(checkpoint, options)?;
        let info = ModelInfo {
            config: checkpoint.config().clone(),
            checkpoint: checkpoint.summary(),
            device,
            passed_over,
            tokenizer: tokenizer.as_ref().map(|t| t.source()),
        };
        Ok(Self(Arc::new(Inner { loaded, tokenizer, info, texts: Mutex::default() })))
    }

    /// A session on this model. Sessions are independent; one per thread is the usual way.
    pub fn session(&self) -> Session {
        Session::new(self.clone(), self.0.loaded.clone().start())
    }

    /// What this model is and where it runs.
    pub fn info(&self) -> &ModelInfo {
        &self.0.info
    }

    /// Side of the low-resolution masks this model makes and takes ([`crate::LowResMask`]).
    pub fn mask_side(&self) -> usize {
        self.0.loaded.mask_side()
    }

    /// Cuts maps of logits on the model's device.
    fn cut(&self, cut: &Cut, masks: &mut [(&[f32], &mut [u64])]) -> Result<()> {
        self.0.loaded.cut(cut, masks)
    }

    /// Token ids of a phrase, within the text encoder's context.
    fn tokens(&self, phrase: &str) -> Result<Vec<u32>> {
        let missing = || Error::new(ErrorKind::Unsupported, "this checkpoint has no detector, so it takes no phrases");
        let tokenizer = self.0.tokenizer.as_ref().ok_or_else(missing)?;
        let text = &self.0.info.config.detector.as_ref().ok_or_else(missing)?.text;
        let ids = tokenizer.encode(phrase)?;
        Tokenizer::check_length(&ids, text.context)?;
        Ok(ids)
    }

    /// Features of a phrase that was encoded before, by any session.
    fn known_text(&self, phrase: &str) -> Option<Features> {
        let mut texts = self.0.texts.lock().unwrap_or_else(PoisonError::into_inner);
        let at = texts.iter().position(|(known, _)| known == phrase)?;
        let found = texts.remove(at)?;
        let features = found.1.clone();
        texts.push_back(found);
        Some(features)
    }

    fn keep_text(&self, phrase: &str, features: Features) {
        let mut texts = self.0.texts.lock().unwrap_or_else(PoisonError::into_inner);
        // Two sessions may have read the same phrase at the same time.
        texts.retain(|(known, _)| known != phrase);
        if texts.len() == TEXT_CACHE {
            texts.pop_front();
        }
        texts.push_back((phrase.to_owned(), features));
    }

    /// Whether both are the same model, not just the same weights.
    fn is(&self, other: &Model) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Model").field("info", &self.0.info).finish_non_exhaustive()
    }
}
