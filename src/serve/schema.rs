//! What a request's body looks like, said once: [`Schema`] checks bodies and prints itself for `/openapi.json`.
//!
//! Bodies are read from borrowed text: a value tree is built of what the schema names and of nothing else, lists are cut
//! off at their limit, and so a body of any content takes no more than a small multiple of its own size. Errors are
//! pydantic's, whose types and words fal's clients know. Unknown members are ignored, as fal ignores them.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

use serde::de::{Deserializer, SeqAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::error::{ApiError, ApiResult, FieldError};

/// Most errors that are listed. A list of a thousand wrong points is not more wrong than one of a hundred.
const MAX_ERRORS: usize = 100;

/// The form of a value.
#[derive(Clone, Debug)]
pub enum Kind {
    /// Text of at most so many bytes.
    Text(usize),
    /// One of these words.
    Word(&'static [&'static str]),
    Bool,
    /// Within these bounds.
    Int(i64, i64),
    /// A finite number within these bounds.
    Number(f64, f64),
    /// 0 or 1, as numbers or, as some generated clients write them, as words.
    Label,
    /// At most so many.
    List(Box<Kind>, usize),
    /// Exactly so many numbers.
    Numbers(usize),
    Object(Vec<Field>),
    /// Anything of at most so many bytes, kept as it is.
    Any(usize),
}

/// A member of an object.
#[derive(Clone, Debug)]
pub struct Field {
    pub name: &'static str,
    pub kind: Kind,
    /// Put in where the member is absent, or null.
    pub default: Option<Value>,
    /// Shown as default, though absence means something else than this value does.
    pub shown: Option<Value>,
    pub required: bool,
    pub doc: &'static str,
}

/// A member that may be absent or null.
pub fn optional(name: &'static str, kind: Kind, doc: &'static str) -> Field {
    Field { name, kind, default: None, shown: None, required: false, doc }
}

/// A member that must be there.
pub fn required(name: &'static str, kind: Kind, doc: &'static str) -> Field {
    Field { required: true, ..optional(name, kind, doc) }
}

impl Field {
    pub fn or(self, default: Value) -> Self {
        Self { default: Some(default), ..self }
    }

    pub fn shown(self, value: Value) -> Self {
        Self { shown: Some(value), ..self }
    }

    /// JSON Schema of this member.
    fn schema(&self) -> Value {
        let mut schema = self.kind.schema();
        if !self.required {
            // Null is absence.
            if let Some(Value::String(name)) = schema.get("type").cloned() {
                schema["type"] = json!([name, "null"]);
            }
            if let Some(Value::Array(words)) = schema.get_mut("enum") {
                words.push(Value::Null);
            }
        }
        schema["description"] = self.doc.into();
        if let Some(default) = self.default.as_ref().or(self.shown.as_ref()) {
            schema["default"] = default.clone();
        }
        schema
    }
}

impl Kind {
    pub fn list(self, most: usize) -> Self {
        Self::List(Box::new(self), most)
    }

    /// JSON Schema of this form (the 2020-12 dialect, that of OpenAPI 3.1).
    pub fn schema(&self) -> Value {
        match self {
            Self::Text(most) => json!({ "type": "string", "maxLength": most }),
            Self::Word(words) => json!({ "type": "string", "enum": words }),
            Self::Bool => json!({ "type": "boolean" }),
            Self::Int(lo, hi) => json!({ "type": "integer", "minimum": lo, "maximum": hi }),
            Self::Number(lo, hi) => json!({ "type": "number", "minimum": lo, "maximum": hi }),
            Self::Label => json!({ "enum": [0, 1, "0", "1"] }),
            Self::List(of, most) => json!({ "type": "array", "items": of.schema(), "maxItems": most }),
            Self::Numbers(n) => {
                json!({ "type": "array", "items": { "type": "number" }, "minItems": n, "maxItems": n })
            }
            Self::Object(fields) => {
                let properties: Map<String, Value> = fields.iter().map(|f| (f.name.to_owned(), f.schema())).collect();
                let required: Vec<&str> = fields.iter().filter(|f| f.required).map(|f| f.name).collect();
                let mut schema = json!({ "type": "object", "properties": properties });
                if !required.is_empty() {
                    schema["required"] = json!(required);
                }
                schema
            }
            Self::Any(_) => json!({}),
        }
    }

    /// Checks `body` against this form, and returns what is named in it, defaults filled in.
    pub fn read(&self, body: &[u8]) -> ApiResult<Value> {
        let raw: &RawValue = match std::str::from_utf8(body) {
            Ok(text) => serde_json::from_str(text).map_err(|e| invalid(&e.to_string()))?,
            Err(e) => return Err(invalid(&format!("invalid UTF-8 at byte {}", e.valid_up_to()))),
        };
        let mut reader = Reader { loc: Vec::new(), errors: Vec::new() };
        match reader.value(self, raw) {
            Some(value) if reader.errors.is_empty() => Ok(value),
            _ => Err(ApiError::fields(reader.errors)),
        }
    }
}

fn invalid(reason: &str) -> ApiError {
    let error = FieldError::new(&[], "json_invalid", "JSON decode error");
    ApiError::fields(vec![error.ctx(json!({ "error": reason }))])
}

struct Reader {
    loc: Vec<Value>,
    errors: Vec<FieldError>,
}

impl Reader {
    fn fail<T>(&mut self, raw: &RawValue, kind: &'static str, msg: impl Into<String>, ctx: Option<Value>) -> Option<T> {
        if self.errors.len() < MAX_ERRORS {
            let mut error = FieldError::new(&self.loc, kind, msg);
            // Longer ones are not sent back; they need not be parsed, either.
            if raw.get().len() <= 256 {
                error.input = serde_json::from_str(raw.get()).ok();
            }
            error.ctx = ctx;
            self.errors.push(error);
        }
        None
    }

    fn value(&mut self, kind: &Kind, raw: &RawValue) -> Option<Value> {
        match kind {
            Kind::Text(most) => {
                if !raw.get().starts_with('"') {
                    return self.fail(raw, "string_type", "Input should be a valid string", None);
                }
                // What the scanner let through may still be a lone surrogate.
                let Ok(text) = serde_json::from_str::<String>(raw.get()) else {
                    return self.fail(raw, "string_unicode", "Input should be a valid string of Unicode", None);
                };
                if text.len() > *most && text.chars().count() > *most {
                    let msg = format!("String should have at most {most} characters");
                    return self.fail(raw, "string_too_long", msg, Some(json!({ "max_length": most })));
                }
                Some(Value::String(text))
            }
            Kind::Word(words) => {
                let found = serde_json::from_str::<Cow<'_, str>>(raw.get()).ok();
                match found.filter(|f| words.contains(&f.as_ref())) {
                    Some(word) => Some(Value::String(word.into_owned())),
                    None => {
                        let quoted: Vec<String> = words.iter().map(|w| format!("'{w}'")).collect();
                        let expected = match quoted.split_last() {
                            Some((last, [])) => last.clone(),
                            Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
                            None => String::new(),
                        };
                        let ctx = json!({ "expected": expected });
                        self.fail(raw, "literal_error", format!("Input should be {expected}"), Some(ctx))
                    }
                }
            }
            Kind::Bool => match raw.get() {
                "true" => Some(true.into()),
                "false" => Some(false.into()),
                _ => self.fail(raw, "bool_type", "Input should be a valid boolean", None),
            },
            Kind::Int(lo, hi) => {
                let Some(v) = number(raw).filter(|v| v.fract() == 0.0) else {
                    return self.fail(raw, "int_type", "Input should be a valid integer", None);
                };
                self.bounds(raw, v, *lo as f64, *hi as f64)?;
                Some((v as i64).into())
            }
            Kind::Number(lo, hi) => {
                let Some(v) = number(raw) else {
                    return self.fail(raw, "float_type", "Input should be a valid number", None);
                };
                self.bounds(raw, v, *lo, *hi)?;
                Some(v.into())
            }
            Kind::Label => match raw.get() {
                "1" | "\"1\"" | "1.0" => Some(1.into()),
                "0" | "\"0\"" | "0.0" => Some(0.into()),
                _ => {
                    let ctx = json!({ "expected": "0 or 1" });
                    self.fail(raw, "literal_error", "Input should be 0 or 1", Some(ctx))
                }
            },
            Kind::List(of, most) => self.list(raw, of, *most),
            Kind::Numbers(n) => {
                let unbounded = Kind::Number(f64::MIN, f64::MAX);
                let list = self.list(raw, &unbounded, *n)?;
                if list.as_array().is_some_and(|l| l.len() == *n) {
                    return Some(list);
                }
                let msg = format!("List should have exactly {n} items");
                self.fail(raw, "too_short", msg, Some(json!({ "min_length": n })))
            }
            Kind::Object(fields) => self.object(raw, fields),
            Kind::Any(most) => {
                if raw.get().len() > *most {
                    let msg = format!("Input should have at most {most} bytes");
                    return self.fail(raw, "too_long", msg, Some(json!({ "max_length": most })));
                }
                match serde_json::from_str(raw.get()) {
                    Ok(value) => Some(value),
                    Err(e) => self.fail(raw, "value_error", format!("Value error, {e}"), None),
                }
            }
        }
    }

    fn bounds(&mut self, raw: &RawValue, v: f64, lo: f64, hi: f64) -> Option<()> {
        if v < lo {
            let msg = format!("Input should be greater than or equal to {lo}");
            return self.fail(raw, "greater_than_equal", msg, Some(json!({ "ge": bound(lo) })));
        }
        if v > hi {
            let msg = format!("Input should be less than or equal to {hi}");
            return self.fail(raw, "less_than_equal", msg, Some(json!({ "le": bound(hi) })));
        }
        Some(())
    }

    fn list(&mut self, raw: &RawValue, of: &Kind, most: usize) -> Option<Value> {
        if !raw.get().starts_with('[') {
            return self.fail(raw, "list_type", "Input should be a valid list", None);
        }
        let mut source = serde_json::Deserializer::from_str(raw.get());
        let Ok(items) = source.deserialize_seq(AtMost(most)) else {
            let msg = format!("List should have at most {most} items after validation");
            return self.fail(raw, "too_long", msg, Some(json!({ "max_length": most })));
        };
        let mut out = Vec::with_capacity(items.len());
        for (i, item) in items.into_iter().enumerate() {
            self.loc.push(i.into());
            out.extend(self.value(of, item));
            self.loc.pop();
        }
        Some(Value::Array(out))
    }

    fn object(&mut self, raw: &RawValue, fields: &[Field]) -> Option<Value> {
        if !raw.get().starts_with('{') {
            let msg = "Input should be a valid dictionary or object to extract fields from";
            return self.fail(raw, "model_attributes_type", msg, None);
        }
        let members: HashMap<Cow<'_, str>, &RawValue> = match serde_json::from_str(raw.get()) {
            Ok(members) => members,
            Err(_) => return self.fail(raw, "dict_type", "Input should be a valid dictionary", None),
        };
        let mut out = Map::new();
        for field in fields {
            self.loc.push(field.name.into());
            match members.get(field.name).filter(|m| m.get() != "null" || field.required) {
                Some(member) => {
                    if let Some(value) = self.value(&field.kind, member) {
                        out.insert(field.name.into(), value);
                    }
                }
                None if field.required => {
                    if self.errors.len() < MAX_ERRORS {
                        self.errors.push(FieldError::new(&self.loc, "missing", "Field required"));
                    }
                }
                None => out.extend(field.default.clone().map(|d| (field.name.to_owned(), d))),
            }
            self.loc.pop();
        }
        Some(Value::Object(out))
    }
}

/// A bound as people write it: 32, not 32.0.
fn bound(v: f64) -> Value {
    if v.fract() == 0.0 && v.abs() < 1e15 { (v as i64).into() } else { v.into() }
}

fn number(raw: &RawValue) -> Option<f64> {
    if !raw.get().starts_with(|c: char| c == '-' || c.is_ascii_digit()) {
        return None;
    }
    raw.get().parse().ok().filter(|v: &f64| v.is_finite())
}

/// Reads a list as raw items, and fails at the first one too many.
struct AtMost(usize);

impl<'de> Visitor<'de> for AtMost {
    type Value = Vec<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of at most {} items", self.0)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            if items.len() == self.0 {
                return Err(serde::de::Error::custom("too many"));
            }
            items.push(item);
        }
        Ok(items)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form() -> Kind {
        Kind::Object(vec![
            required("url", Kind::Text(10), "where"),
            optional("n", Kind::Int(1, 32), "how many").or(3.into()),
            optional("p", Kind::Number(0.0, 1.0), "how sure"),
            optional("format", Kind::Word(&["png", "jpeg"]), "how").or("png".into()),
            optional("on", Kind::Bool, "whether").or(true.into()),
            optional("points", Kind::Object(vec![optional("label", Kind::Label, "side")]).list(2), "places"),
            optional("bbox", Kind::Numbers(4), "corners"),
        ])
    }

    fn types(body: &str) -> Vec<(String, String)> {
        let error = form().read(body.as_bytes()).expect_err(body);
        assert_eq!(error.status().as_u16(), 422);
        let detail = error.body()["detail"].as_array().unwrap().clone();
        detail.iter().map(|e| (e["loc"].to_string(), e["type"].as_str().unwrap().to_owned())).collect()
    }

    #[test]
    fn defaults_are_filled_in_and_strangers_left_out() {
        let read = form().read(br#"{"url": "a", "points": [{"label": "1"}, {}], "p": null, "x": [1]}"#).unwrap();
        let expected = json!({ "url": "a", "n": 3, "format": "png", "on": true, "points": [{ "label": 1 }, {}] });
        assert_eq!(read, expected);
    }

    #[test]
    fn every_mistake_has_its_type_and_place() {
        for (body, loc, kind) in [
            ("", r#"["body"]"#, "json_invalid"),
            ("{", r#"["body"]"#, "json_invalid"),
            ("[]", r#"["body"]"#, "model_attributes_type"),
            ("{}", r#"["body","url"]"#, "missing"),
            (r#"{"url": 1}"#, r#"["body","url"]"#, "string_type"),
            (r#"{"url": null}"#, r#"["body","url"]"#, "string_type"),
            (r#"{"url": "\ud800"}"#, r#"["body","url"]"#, "string_unicode"),
            (r#"{"url": "12345678901"}"#, r#"["body","url"]"#, "string_too_long"),
            (r#"{"url": "a", "n": 0}"#, r#"["body","n"]"#, "greater_than_equal"),
            (r#"{"url": "a", "n": 99}"#, r#"["body","n"]"#, "less_than_equal"),
            (r#"{"url": "a", "n": 1.5}"#, r#"["body","n"]"#, "int_type"),
            (r#"{"url": "a", "n": "1"}"#, r#"["body","n"]"#, "int_type"),
            (r#"{"url": "a", "p": 1e999}"#, r#"["body","p"]"#, "float_type"),
            (r#"{"url": "a", "format": "gif"}"#, r#"["body","format"]"#, "literal_error"),
            (r#"{"url": "a", "on": 1}"#, r#"["body","on"]"#, "bool_type"),
            (r#"{"url": "a", "points": {}}"#, r#"["body","points"]"#, "list_type"),
            (r#"{"url": "a", "points": [{}, {"label": 2}]}"#, r#"["body","points",1,"label"]"#, "literal_error"),
            (r#"{"url": "a", "points": [{}, {}, {}]}"#, r#"["body","points"]"#, "too_long"),
            (r#"{"url": "a", "bbox": [1, 2, 3]}"#, r#"["body","bbox"]"#, "too_short"),
        ] {
            assert_eq!(types(body), [(loc.to_owned(), kind.to_owned())], "{body}");
        }
        assert_eq!(types(r#"{"n": 0, "on": 3}"#).len(), 3, "all mistakes at once");
        let bytes = form().read(b"{\"url\": \"\xff\"}").unwrap_err();
        assert!(bytes.body().to_string().contains("UTF-8"));
    }

    #[test]
    fn deep_and_long_bodies_are_refused_in_bounds() {
        let deep = format!(r#"{{"url": "a", "points": {}"#, "[".repeat(100_000));
        assert_eq!(types(&deep)[0].1, "json_invalid");
        let long = format!(r#"{{"url": "a", "points": [{}]}}"#, vec!["{}"; 100_000].join(","));
        assert_eq!(types(&long)[0].1, "too_long");
    }

    #[test]
    fn schemas_say_what_is_checked() {
        let schema = form().schema();
        assert_eq!(schema["required"], json!(["url"]));
        assert_eq!(schema["properties"]["n"]["maximum"], 32);
        assert_eq!(schema["properties"]["n"]["default"], 3);
        assert_eq!(schema["properties"]["p"]["type"], json!(["number", "null"]));
        assert_eq!(schema["properties"]["format"]["enum"], json!(["png", "jpeg", null]));
        assert_eq!(schema["properties"]["url"]["type"], "string");
    }
}
