//! The headers of safetensors files and their index, both from untrusted files.
//!
//! The `safetensors` crate defines the entries and validates that they tile the data without gap or overlap. What it
//! leaves open is closed here: repeated names (JSON maps silently keep the last), the name of the tensor at fault, and
//! a header length that a real checkpoint could never have.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;

use safetensors::SafeTensorError;
use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error as _, MapAccess, Visitor};

use super::quote::shorten;
use super::tensor::elements;
use crate::error::{Error, Result};

/// Longest header that is parsed. A full-size `Sam3VideoModel` has 1,797 tensors and 0.27 MB.
const MAX_HEADER_BYTES: usize = 4 << 20;
/// Longest index of a sharded checkpoint that is parsed; it says less about each tensor than a header.
pub(super) const MAX_INDEX_BYTES: usize = 4 << 20;
/// Bytes of the header's length at the start of a file.
const LENGTH_BYTES: usize = 8;

/// One tensor of one file.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    /// Within the file.
    pub bytes: Range<usize>,
}

/// The tensors of a safetensors file, in the order of their data.
///
/// # Errors
///
/// `Checkpoint` for anything but a header that describes exactly the bytes behind it.
pub(super) fn parse(file: &[u8]) -> Result<Vec<(String, Stored)>> {
    if file.starts_with(b"version https://git-lfs") {
        return Err(Error::checkpoint("expected a safetensors file, found a Git LFS pointer to one not downloaded"));
    }
    let Some((length, rest)) = file.split_first_chunk::<LENGTH_BYTES>() else {
        return Err(Error::checkpoint(format!("expected a safetensors file, found {} bytes", file.len())));
    };
    let length = u64::from_le_bytes(*length);
    let length = match usize::try_from(length) {
        Ok(n) if n <= MAX_HEADER_BYTES && n <= rest.len() => n,
        _ => {
            let most = MAX_HEADER_BYTES.min(rest.len());
            return Err(Error::checkpoint(format!("expected a header of at most {most} bytes, found {length}")));
        }
    };
    let (header, data) = rest.split_at(length);
    let text =
        std::str::from_utf8(header).map_err(|e| Error::checkpoint("expected a header in UTF-8").with_source(e))?;
    let mut entries: Vec<(String, TensorInfo)> =
        unique_map(text, Some("__metadata__")).map_err(|e| Error::checkpoint("damaged header").with_source(e))?;
    entries.sort_by_key(|(_, info)| info.data_offsets);

    let mut out = Vec::with_capacity(entries.len());
    for (name, info) in &entries {
        out.push((name.clone(), check(info, length, data.len()).map_err(|e| e.at(shorten(name)))?));
    }
    // Every entry fits the data by itself; now that they neither overlap nor leave gaps.
    let metadata = Metadata::new(None, entries).map_err(|e| match e {
        SafeTensorError::InvalidOffset(name) => {
            Error::checkpoint(format!("{}: its data overlaps or leaves a gap before it", shorten(&name)))
        }
        other => Error::checkpoint("damaged header").with_source(other),
    })?;
    if metadata.data_len() != data.len() {
        return Err(Error::checkpoint(format!(
            "expected {} bytes of tensors behind the header, found {}",
            metadata.data_len(),
            data.len()
        )));
    }
    Ok(out)
}

fn check(info: &TensorInfo, header: usize, available: usize) -> Result<Stored> {
    let (begin, end) = info.data_offsets;
    if begin > end || end > available {
        return Err(Error::checkpoint(format!("expected data within {available} bytes, found offsets {begin}..{end}")));
    }
    // In bits, since the format has elements of 4 and 6.
    let bits = elements(&info.shape).and_then(|n| n.checked_mul(info.dtype.bitsize()));
    if bits != (end - begin).checked_mul(8) {
        return Err(Error::checkpoint(format!(
            "expected {} bytes for {} {}, found {}",
            bits.map_or_else(|| "more than countable".to_owned(), |b| b.div_ceil(8).to_string()),
            show_shape(&info.shape),
            info.dtype,
            end - begin
        )));
    }
    let start = LENGTH_BYTES + header;
    Ok(Stored { dtype: info.dtype, shape: info.shape.clone(), bytes: start + begin..start + end })
}

/// A shape for an error message; a hostile one may have any number of axes.
pub(super) fn show_shape(shape: &[usize]) -> String {
    if shape.len() > 8 { format!("a shape of {} axes", shape.len()) } else { format!("{shape:?}") }
}

/// Tensor names and the file each is in, from the text of a `model.safetensors.index.json`.
pub(super) fn parse_index(text: &str) -> Result<Vec<(String, String)>> {
    /// The other fields (`metadata`) say nothing that the shards do not.
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: UniqueMap<String>,
    }
    struct UniqueMap<V>(Vec<(String, V)>);
    impl<'de, V: Deserialize<'de>> Deserialize<'de> for UniqueMap<V> {
        fn deserialize<D: Deserializer<'de>>(d: D) -> std::result::Result<Self, D::Error> {
            UniqueSeed { skip: None, value: PhantomData }.deserialize(d).map(UniqueMap)
        }
    }
    let index: Index = serde_json::from_str(text).map_err(|e| Error::checkpoint("damaged index").with_source(e))?;
    Ok(index.weight_map.0)
}

fn unique_map<'de, V: Deserialize<'de>>(
    text: &'de str,
    skip: Option<&'static str>,
) -> serde_json::Result<Vec<(String, V)>> {
    let mut json = serde_json::Deserializer::from_str(text);
    let map = UniqueSeed { skip, value: PhantomData }.deserialize(&mut json)?;
    json.end()?;
    Ok(map)
}

/// A JSON object whose keys must differ. The value of the key `skip` is a map of strings that nobody reads.
struct UniqueSeed<V> {
    skip: Option<&'static str>,
    value: PhantomData<V>,
}

impl<'de, V: Deserialize<'de>> DeserializeSeed<'de> for UniqueSeed<V> {
    type Value = Vec<(String, V)>;

    fn deserialize<D: Deserializer<'de>>(self, d: D) -> std::result::Result<Self::Value, D::Error> {
        d.deserialize_map(self)
    }
}

impl<'de, V: Deserialize<'de>> Visitor<'de> for UniqueSeed<V> {
    type Value = Vec<(String, V)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Self::Value, A::Error> {
        let mut seen = HashSet::new();
        let mut out = Vec::new();
        while let Some(key) = map.next_key::<String>()? {
            if !seen.insert(key.clone()) {
                return Err(A::Error::custom(format!("{}: found twice", shorten(&key))));
            }
            let at = |e: A::Error| A::Error::custom(format!("{}: {}", shorten(&key), shorten_line(&e.to_string())));
            if self.skip == Some(key.as_str()) {
                map.next_value::<HashMap<String, String>>().map_err(at)?;
            } else {
                let value = map.next_value().map_err(at)?;
                out.push((key, value));
            }
        }
        Ok(out)
    }
}

/// Messages of the JSON parser repeat unknown words of the file, which may be long.
fn shorten_line(message: &str) -> String {
    if message.len() <= 400 { message.to_owned() } else { shorten(message) }
}
