//! Opening a checkpoint: finding its files, indexing their tensors, and handing those out by published name.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use safetensors::tensor::Dtype as FileDtype;

use super::config::Config;
use super::config_parse::MAX_CONFIG_BYTES;
use super::header::{self, MAX_INDEX_BYTES, Stored, show_shape};
use super::layout::{self, Layout};
use super::manifest::{self, Entry, Need};
use super::mmap::Blob;
use super::quote::shorten;
use super::tensor::{Dtype, HostTensor, elements};
use crate::error::{Error, ErrorKind, Result};

const CONFIG: &str = "config.json";
const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
/// Most files of one checkpoint. Each costs a mapping; upstream cuts at 50 GB a file.
const MAX_SHARDS: usize = 256;
/// Problems that [`Checkpoint::verify`] names one by one.
const NAMED_PROBLEMS: usize = 5;

/// An opened checkpoint whose every required tensor is known to be there, in shape and in a readable type.
///
/// It maps its files (see [`Blob`] for what that asks of the caller) and can be shared between threads.
#[derive(Debug)]
pub struct Checkpoint {
    config: Config,
    /// The directory, if it was opened from one.
    directory: Option<PathBuf>,
    files: Vec<Blob>,
    /// By the names of the files.
    stored: HashMap<String, (usize, Stored)>,
    /// The manifest by published name.
    entries: HashMap<String, Entry>,
    layout: &'static Layout,
}

/// What is in a checkpoint, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// How its tensors are named.
    pub layout: &'static str,
    /// Number of weight files.
    pub files: usize,
    /// Number of tensors, needed or not.
    pub tensors: usize,
    /// Their elements.
    pub parameters: u64,
    /// Bytes of the weight files, headers included.
    pub bytes: u64,
    /// Elements of each type, by the format's name of the type.
    pub dtypes: BTreeMap<String, u64>,
    /// Elements of the tensors that inference reads.
    pub used_parameters: u64,
}

impl Checkpoint {
    /// Opens and verifies the checkpoint at `path`: a directory with `config.json` and `model.safetensors` or
    /// `model.safetensors.index.json`, or one of these two files itself, with `config.json` beside it.
    ///
    /// # Errors
    ///
    /// `Io` for files that are missing or unreadable, `Checkpoint` for damaged ones and for tensors that are missing
    /// or of another shape or type than the configuration asks for, `Unsupported` for configurations of other models.
    pub fn open(path: &Path) -> Result<Checkpoint> {
        let metadata = std::fs::metadata(path)
            .map_err(|e| Error::new(ErrorKind::Io, "cannot be read").with_source(e).at(path.display()))?;
        let (directory, weights) = if metadata.is_dir() {
            let weights = [SINGLE, INDEX].map(|name| path.join(name)).into_iter().find(|p| p.exists());
            let weights = weights.ok_or_else(|| {
                Error::new(ErrorKind::Io, format!("expected {SINGLE} or {INDEX}, found neither")).at(path.display())
            })?;
            (path.to_path_buf(), weights)
        } else {
            if !path.to_string_lossy().ends_with(".safetensors") && !is_index(path) {
                let message = "expected a directory, a .safetensors file or its .index.json, found something else";
                return Err(Error::new(ErrorKind::Unsupported, message).at(path.display()));
            }
            // The parent of a bare file name is the empty path, which joins to the name again.
            (path.parent().unwrap_or(Path::new("")).to_path_buf(), path.to_path_buf())
        };
        let config_path = directory.join(CONFIG);
        let text = read_text(&config_path, MAX_CONFIG_BYTES)?;
        let config = Config::from_json(&text).map_err(|e| e.at(config_path.display()))?;

        let (mut files, mut stored) = (Vec::new(), HashMap::new());
        if is_index(&weights) {
            open_shards(&directory, &weights, &mut files, &mut stored)?;
        } else {
            let blob = Blob::map(&weights)?;
            let tensors = header::parse(&blob).map_err(|e| e.at(weights.display()))?;
            stored.extend(tensors.into_iter().map(|(name, s)| (name, (0, s))));
            files.push(blob);
        }
        Self::assemble(config, Some(directory), files, stored).map_err(|e| e.at(weights.display()))
    }

    /// Opens and verifies a checkpoint in memory: the text of its `config.json` and the bytes of its only
    /// `.safetensors` file, which stay shared and are not copied.
    ///
    /// # Errors
    ///
    /// As [`Checkpoint::open`], without `Io`.
    pub fn from_memory(config_json: &str, safetensors: impl Into<Blob>) -> Result<Checkpoint> {
        let config = Config::from_json(config_json).map_err(|e| e.at(CONFIG))?;
        let blob = safetensors.into();
        let tensors = header::parse(&blob).map_err(|e| e.at(SINGLE))?;
        let stored = tensors.into_iter().map(|(name, s)| (name, (0, s))).collect();
        Self::assemble(config, None, vec![blob], stored).map_err(|e| e.at(SINGLE))
    }

    fn assemble(
        config: Config,
        directory: Option<PathBuf>,
        files: Vec<Blob>,
        stored: HashMap<String, (usize, Stored)>,
    ) -> Result<Checkpoint> {
        let table = manifest::entries(&config);
        let layout = layout::detect(table.iter().map(|e| e.name.as_str()), |name| stored.contains_key(name));
        let entries = table.into_iter().map(|e| (e.name.clone(), e)).collect();
        let checkpoint = Checkpoint { config, directory, files, stored, entries, layout };
        checkpoint.verify()?;
        Ok(checkpoint)
    }

    /// The directory it was opened from; `None` for one from memory.
    pub fn directory(&self) -> Option<&Path> {
        self.directory.as_deref()
    }

    /// All dimensions.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The tensor published as `canonical`, under whatever name this checkpoint has it.
    ///
    /// # Errors
    ///
    /// `Internal` for a name that the [manifest] lacks for this configuration; `Checkpoint` for an optional tensor
    /// that is absent or does not fit. Required ones were verified on opening.
    pub fn tensor(&self, canonical: &str) -> Result<HostTensor> {
        let entry = self
            .entries
            .get(canonical)
            .ok_or_else(|| Error::new(ErrorKind::Internal, format!("{canonical}: not in the table of tensors")))?;
        let (file, stored, dtype) = self.find(entry)?;
        HostTensor::new(canonical, &stored.shape, dtype, self.files[file].clone(), stored.bytes.clone())
    }

    /// Checks the whole table against the files and reports everything that is wrong at once.
    ///
    /// # Errors
    ///
    /// `Checkpoint`, naming the first few tensors that are missing, mis-shaped or of another type, and their number.
    pub fn verify(&self) -> Result<()> {
        let mut problems = Vec::new();
        let mut named: Vec<&Entry> = self.entries.values().collect();
        named.sort_by(|a, b| a.name.cmp(&b.name));
        let required = named.iter().filter(|e| e.need == Need::Required).count();
        for entry in named {
            // An optional tensor may be absent, but one that is there tells whether file and configuration match.
            if entry.need == Need::Required || self.lookup(entry).is_some() {
                problems.extend(self.find(entry).err());
            }
        }
        let Some(first) = problems.first() else {
            return Ok(());
        };
        if problems.len() == 1 {
            return Err(Error::checkpoint(first.to_string()));
        }
        let list: Vec<_> = problems.iter().take(NAMED_PROBLEMS).map(ToString::to_string).collect();
        let more = if problems.len() > NAMED_PROBLEMS { "; …" } else { "" };
        Err(Error::checkpoint(format!(
            "{} tensors of {required} needed do not fit, read as \"{}\": {}{more}",
            problems.len(),
            self.layout.name,
            list.join("; ")
        )))
    }

    /// Counts for `sam3 info`.
    pub fn summary(&self) -> Summary {
        // Each file's entries were checked to tile it, so these sums are below the sizes of the files in bits.
        let count = |s: &Stored| elements(&s.shape).unwrap_or(0) as u64;
        let mut dtypes = BTreeMap::new();
        for (_, s) in self.stored.values() {
            *dtypes.entry(s.dtype.to_string()).or_default() += count(s);
        }
        let required = self.entries.values().filter(|e| e.need == Need::Required);
        Summary {
            layout: self.layout.name,
            files: self.files.len(),
            tensors: self.stored.len(),
            parameters: self.stored.values().map(|(_, s)| count(s)).sum(),
            bytes: self.files.iter().map(|f| f.len() as u64).sum(),
            dtypes,
            used_parameters: required.filter_map(|e| self.lookup(e)).map(|(_, (_, s))| count(s)).sum(),
        }
    }

    /// The file's name of an entry, and what stands there.
    fn lookup(&self, entry: &Entry) -> Option<(String, &(usize, Stored))> {
        let name = self.layout.spell(&entry.name)?;
        self.stored.get(&name).map(|s| (name, s))
    }

    /// The file, place and type of an entry, checked against the table.
    fn find(&self, entry: &Entry) -> Result<(usize, &Stored, Dtype)> {
        let Some((name, (file, stored))) = self.lookup(entry) else {
            let name = self.layout.spell(&entry.name).unwrap_or_else(|| entry.name.clone());
            return Err(Error::checkpoint(format!("{name}: expected {:?}, found nothing", entry.shape)));
        };
        let dtype = match stored.dtype {
            FileDtype::F32 => Dtype::F32,
            FileDtype::F16 => Dtype::F16,
            FileDtype::BF16 => Dtype::Bf16,
            other => return Err(Error::checkpoint(format!("{name}: expected F32, F16 or BF16, found {other}"))),
        };
        if stored.shape != entry.shape {
            let found = show_shape(&stored.shape);
            return Err(Error::checkpoint(format!("{name}: expected {:?}, found {found}", entry.shape)));
        }
        Ok((*file, stored, dtype))
    }
}

/// Maps the files that an index names and picks from each the tensors that it is said to hold.
fn open_shards(
    directory: &Path,
    index: &Path,
    files: &mut Vec<Blob>,
    stored: &mut HashMap<String, (usize, Stored)>,
) -> Result<()> {
    let text = read_text(index, MAX_INDEX_BYTES)?;
    let map = header::parse_index(&text).map_err(|e| e.at(index.display()))?;
    let mut shards: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (tensor, shard) in map {
        if !is_plain_name(&shard) {
            let message = format!(
                "{}: expected the name of a .safetensors file in the same directory, found \"{}\"",
                shorten(&tensor),
                shorten(&shard)
            );
            return Err(Error::checkpoint(message).at(index.display()));
        }
        shards.entry(shard).or_default().push(tensor);
        if shards.len() > MAX_SHARDS {
            return Err(
                Error::checkpoint(format!("expected at most {MAX_SHARDS} files, found more")).at(index.display())
            );
        }
    }
    for (shard, tensors) in shards {
        let path = directory.join(&shard);
        let blob = Blob::map(&path)?;
        let mut held: HashMap<String, Stored> =
            header::parse(&blob).map_err(|e| e.at(path.display()))?.into_iter().collect();
        for tensor in tensors {
            let Some(found) = held.remove(&tensor) else {
                let message = format!("{}: named by the index, not in this file", shorten(&tensor));
                return Err(Error::checkpoint(message).at(path.display()));
            };
            stored.insert(tensor, (files.len(), found));
        }
        files.push(blob);
    }
    Ok(())
}

fn is_index(path: &Path) -> bool {
    path.to_string_lossy().ends_with(".safetensors.index.json")
}

/// Whether `name` can only mean a file right beside the index, on any system. The suffix rules out `..`.
fn is_plain_name(name: &str) -> bool {
    name.ends_with(".safetensors") && !name.contains(['/', '\\', ':', '\0'])
}

/// A text file of at most `most` bytes.
fn read_text(path: &Path, most: usize) -> Result<String> {
    // Mapped rather than read, so that the length is known before anything is allocated.
    let blob = Blob::map(path)?;
    if blob.len() > most {
        let message = format!("expected at most {most} bytes, found {}", blob.len());
        return Err(Error::checkpoint(message).at(path.display()));
    }
    match String::from_utf8(blob.to_vec()) {
        Ok(text) => Ok(text),
        Err(e) => Err(Error::checkpoint("expected UTF-8").with_source(e.utf8_error()).at(path.display())),
    }
}
