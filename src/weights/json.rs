//! Typed access to the fields of a JSON object, with errors that name the path, the expectation and the finding.

use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use super::config::HiddenAct;
use crate::error::{Error, ErrorKind, Result};

/// Heads of one attention.
const HEADS: RangeInclusive<usize> = 1..=1024;
/// Widest head, which attention kernels keep whole; the published model has 64.
const MAX_HEAD: usize = 256;
/// Sides of pictures and patches, pixels.
const SIDE: RangeInclusive<usize> = 1..=16_384;

/// One JSON object and where it stands; absent objects have no fields and give every default.
pub(super) struct Node<'a> {
    pub path: String,
    pub fields: Option<&'a Map<String, Value>>,
}

impl<'a> Node<'a> {
    fn at(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    pub fn get(&self, key: &str) -> Option<&'a Value> {
        self.fields.and_then(|f| f.get(key))
    }

    /// The object under `key`; `null` is as good as absent, as upstream's `dict | None` has it.
    pub fn child(&self, key: &str) -> Result<Node<'a>> {
        let fields = match self.get(key) {
            None | Some(Value::Null) => None,
            Some(Value::Object(fields)) => Some(fields),
            Some(other) => return Err(self.wrong(key, "an object", show(other))),
        };
        Ok(Node { path: self.at(key), fields })
    }

    /// The list under `key`, of at most `max` entries; `null` is as good as absent.
    pub fn list(&self, key: &str, max: usize) -> Result<Option<&'a [Value]>> {
        match self.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Array(list)) if list.len() <= max => Ok(Some(list)),
            Some(other) => Err(self.wrong(key, format!("a list of at most {max} numbers"), show(other))),
        }
    }

    pub fn uint(&self, key: &str, default: usize, range: RangeInclusive<usize>) -> Result<usize> {
        let expected = || format!("an integer in {}..={}", range.start(), range.end());
        let Some(value) = self.get(key) else {
            return if range.contains(&default) { Ok(default) } else { Err(self.wrong(key, expected(), default)) };
        };
        match value.as_u64().and_then(|v| usize::try_from(v).ok()) {
            Some(v) if range.contains(&v) => Ok(v),
            _ => Err(self.wrong(key, expected(), show(value))),
        }
    }

    /// The side of something square: `n` or `[n, n]`.
    pub fn side(&self, key: &str, default: usize) -> Result<usize> {
        let Some(Value::Array(pair)) = self.get(key) else {
            return self.uint(key, default, SIDE);
        };
        match pair.as_slice() {
            [h, w] if h == w => match h.as_u64().and_then(|v| usize::try_from(v).ok()) {
                Some(v) if SIDE.contains(&v) => Ok(v),
                _ => Err(self.wrong(key, format!("sides in {}..={}", SIDE.start(), SIDE.end()), show(h))),
            },
            [_, _] => Err(self.unsupported(key, "equal height and width", self.get(key))),
            _ => Err(self.wrong(key, "an integer or [height, width]", show(&pair.clone().into()))),
        }
    }

    pub fn float(&self, key: &str, default: f64, range: RangeInclusive<f64>) -> Result<f32> {
        let Some(value) = self.get(key) else {
            return Ok(default as f32);
        };
        match value.as_f64() {
            Some(v) if range.contains(&v) => Ok(v as f32),
            _ => Err(self.wrong(key, format!("a number in {:e}..={:e}", range.start(), range.end()), show(value))),
        }
    }

    pub fn flag(&self, key: &str, default: bool) -> Result<bool> {
        match self.get(key) {
            None => Ok(default),
            Some(Value::Bool(b)) => Ok(*b),
            Some(other) => Err(self.wrong(key, "true or false", show(other))),
        }
    }

    pub fn act(&self, key: &str, default: &str) -> Result<HiddenAct> {
        const SUPPORTED: &str = "\"gelu\" or \"relu\"";
        let name = match self.get(key) {
            None => default,
            Some(Value::String(s)) => s,
            Some(other) => return Err(self.wrong(key, SUPPORTED, show(other))),
        };
        match name {
            "gelu" => Ok(HiddenAct::Gelu),
            "relu" => Ok(HiddenAct::Relu),
            other => Err(self.unsupported(key, SUPPORTED, Some(&Value::from(other)))),
        }
    }

    /// Checks `model_type` against `known` and returns it; `default` stands for an absent one.
    pub fn model_type(&self, known: &[&'static str], default: Option<&'static str>) -> Result<&'static str> {
        const KEY: &str = "model_type";
        let expected = || known.iter().map(|k| format!("\"{k}\"")).collect::<Vec<_>>().join(" or ");
        match (self.get(KEY), default) {
            (None, Some(d)) => Ok(d),
            (None, None) => Err(self.wrong(KEY, expected(), "nothing")),
            (Some(Value::String(s)), _) => {
                known.iter().copied().find(|k| k == s).ok_or_else(|| self.unsupported(KEY, &expected(), self.get(KEY)))
            }
            (Some(other), _) => Err(self.wrong(KEY, expected(), show(other))),
        }
    }

    /// Heads that divide `width`, which stands under `of`.
    pub fn heads(&self, key: &str, default: usize, of: &str, width: usize) -> Result<usize> {
        let heads = self.uint(key, default, HEADS)?;
        if !width.is_multiple_of(heads) {
            return Err(self.wrong(key, format!("a divisor of {of} ({width})"), heads));
        }
        if width / heads > MAX_HEAD {
            return Err(self.wrong(of, format!("at most {MAX_HEAD} per head ({heads} heads)"), width));
        }
        Ok(heads)
    }

    pub fn divides(&self, key: &str, value: usize, by: usize, name: &str) -> Result<()> {
        if value.is_multiple_of(by) {
            return Ok(());
        }
        let by = if name.parse::<usize>().is_ok() { name.to_owned() } else { format!("{name} ({by})") };
        Err(self.wrong(key, format!("a multiple of {by}"), value))
    }

    /// Everything behind the feature pyramid has its width.
    pub fn equals_fpn(&self, key: &str, fpn: usize) -> Result<()> {
        let width = self.uint(key, 256, 1..=usize::MAX)?;
        if width == fpn {
            return Ok(());
        }
        Err(self.wrong(key, format!("{fpn}, the fpn_hidden_size"), width))
    }

    /// Upstream lets an `image_size` further out overwrite the backbone's; here the two must not differ.
    pub fn same(&self, key: &str, value: usize) -> Result<()> {
        if self.get(key).is_some() {
            let found = self.side(key, value)?;
            if found != value {
                return Err(self.wrong(key, format!("{value} as in the backbone"), found));
            }
        }
        Ok(())
    }

    pub fn wrong(&self, key: &str, expected: impl std::fmt::Display, found: impl std::fmt::Display) -> Error {
        Error::checkpoint(format!("{}: expected {expected}, found {found}", self.at(key)))
    }

    pub fn unsupported(&self, key: &str, expected: &str, found: Option<&Value>) -> Error {
        let found = found.map_or_else(|| "nothing".to_owned(), show);
        Error::new(ErrorKind::Unsupported, format!("{}: expected {expected}, found {found}", self.at(key)))
    }
}

/// A JSON value for an error message, cut to a readable length.
pub(super) fn show(value: &Value) -> String {
    match value {
        Value::Object(_) => "an object".to_owned(),
        Value::Array(list) if list.len() > 8 => format!("a list of {}", list.len()),
        other => super::quote::shorten(&other.to_string()),
    }
}
