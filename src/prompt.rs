//! What a caller asks for. Coordinates are pixels of the upright picture, x to the right, y down, from its top left
//! corner.

use std::sync::Arc;

use crate::error::{Error, Result};

/// One question about a picture.
#[derive(Clone, Debug)]
pub enum Prompt {
    /// Every instance of a concept.
    Concept(Concept),
    /// One object, shown by place.
    Object(Object),
}

impl Prompt {
    /// Every instance of what `phrase` names: "red car", "player in white".
    pub fn text(phrase: impl Into<String>) -> Self {
        Prompt::Concept(Concept { text: Some(phrase.into()), exemplars: Vec::new() })
    }

    /// The object under a click.
    pub fn point(x: f32, y: f32) -> Self {
        Prompt::Object(Object { points: vec![Point { x, y, positive: true }], ..Object::default() })
    }

    /// The object in a box.
    pub fn bbox(xyxy: [f32; 4]) -> Self {
        Prompt::Object(Object { bbox: Some(xyxy), ..Object::default() })
    }

    /// A short name for people: the phrase, `exemplar` or `object`.
    pub fn label(&self) -> &str {
        match self {
            Prompt::Concept(c) => c.text.as_deref().unwrap_or("exemplar"),
            Prompt::Object(_) => "object",
        }
    }
}

impl From<Concept> for Prompt {
    fn from(concept: Concept) -> Self {
        Prompt::Concept(concept)
    }
}

impl From<Object> for Prompt {
    fn from(object: Object) -> Self {
        Prompt::Object(object)
    }
}

/// A phrase, boxes round examples, or both: all instances of the concept they describe together.
#[derive(Clone, Debug, Default)]
pub struct Concept {
    /// A short noun phrase. Without one, upstream's "visual" stands in.
    pub text: Option<String>,
    /// Examples and counter-examples in this picture.
    pub exemplars: Vec<ExemplarBox>,
}

/// A box round an example.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ExemplarBox {
    /// Corners, pixels.
    pub xyxy: [f32; 4],
    /// Whether this is an example or a counter-example.
    pub positive: bool,
}

/// Clicks, a box, a mask, in any mix: one object.
#[derive(Clone, Debug, Default)]
pub struct Object {
    /// Clicks on the object and beside it.
    pub points: Vec<Point>,
    /// A box round it, xyxy pixels.
    pub bbox: Option<[f32; 4]>,
    /// Where it is, roughly.
    pub mask: Option<MaskPrompt>,
}

/// A click.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Pixels from the left edge.
    pub x: f32,
    /// Pixels from the top edge.
    pub y: f32,
    /// Whether the object is there or is not.
    pub positive: bool,
}

/// A mask as prompt.
#[derive(Clone, Debug)]
pub enum MaskPrompt {
    /// A picture of the mask, any size, stretched over the picture: object where a byte is 128 or more.
    Picture {
        /// One byte per pixel, row-major.
        pixels: Arc<[u8]>,
        /// Columns.
        width: usize,
        /// Rows.
        height: usize,
    },
    /// Logits of the last answer, for another round.
    Logits(LowResMask),
}

/// Mask logits at the model's own resolution, `[side, side]`, stretched over the picture.
#[derive(Clone, Debug, PartialEq)]
pub struct LowResMask {
    logits: Arc<[f32]>,
    side: usize,
}

impl LowResMask {
    /// `side²` finite logits, row-major.
    pub fn new(logits: impl Into<Arc<[f32]>>, side: usize) -> Result<Self> {
        let logits = logits.into();
        if side == 0 || side.checked_mul(side) != Some(logits.len()) {
            let found = logits.len();
            return Err(Error::invalid(format!("mask logits: expected {side}×{side} values, found {found}")));
        }
        if let Some(bad) = logits.iter().find(|v| !v.is_finite()) {
            return Err(Error::invalid(format!("mask logits: expected finite values, found {bad}")));
        }
        Ok(Self { logits, side })
    }

    /// Values, row-major.
    pub fn logits(&self) -> &[f32] {
        &self.logits
    }

    /// Rows, and columns.
    pub fn side(&self) -> usize {
        self.side
    }
}

/// Checks a click against a picture of `width × height` pixels.
fn check_point(p: &Point, width: usize, height: usize) -> Result<()> {
    if (0.0..width as f32).contains(&p.x) && (0.0..height as f32).contains(&p.y) {
        return Ok(());
    }
    let (x, y) = (p.x, p.y);
    Err(Error::invalid(format!("point {x},{y}: expected a place within the picture of {width}×{height} pixels")))
}

/// Checks a box against a picture of `width × height` pixels.
fn check_box(what: &str, b: [f32; 4], width: usize, height: usize) -> Result<()> {
    let [x0, y0, x1, y1] = b;
    let fail = |expected: &str| Err(Error::invalid(format!("{what} {x0},{y0},{x1},{y1}: expected {expected}")));
    if b.iter().any(|v| !v.is_finite()) {
        return fail("four finite numbers");
    }
    if x0 >= x1 || y0 >= y1 {
        return fail("the left top corner first, then the right bottom one");
    }
    if x0 < 0.0 || y0 < 0.0 || x1 > width as f32 || y1 > height as f32 {
        return fail(&format!("corners within the picture of {width}×{height} pixels"));
    }
    Ok(())
}

impl Prompt {
    /// Checks this prompt against a picture of `width × height` pixels and low-resolution masks of `mask_side`.
    pub(crate) fn check(&self, width: usize, height: usize, mask_side: usize) -> Result<()> {
        self.check_within(width, height)?;
        match self {
            Prompt::Object(Object { mask: Some(mask), .. }) => mask.check(mask_side),
            _ => Ok(()),
        }
    }

    /// Checks this prompt against a picture of `width × height` pixels: what every call does first, for callers that
    /// want to know before they open a model.
    ///
    /// Fails with [`crate::ErrorKind::InvalidArgument`] for an empty prompt, one outside the picture, a box whose
    /// corners are reversed or not finite.
    pub fn check_within(&self, width: usize, height: usize) -> Result<()> {
        match self {
            Prompt::Concept(c) => {
                if c.text.as_ref().is_none_or(|t| t.trim().is_empty()) && c.exemplars.is_empty() {
                    return Err(Error::invalid("concept prompt: expected a phrase or an exemplar, found neither"));
                }
                c.exemplars.iter().try_for_each(|e| check_box("exemplar", e.xyxy, width, height))
            }
            Prompt::Object(o) => {
                if o.points.is_empty() && o.bbox.is_none() && o.mask.is_none() {
                    return Err(Error::invalid("object prompt: expected a point, a box or a mask, found none"));
                }
                o.points.iter().try_for_each(|p| check_point(p, width, height))?;
                o.bbox.map_or(Ok(()), |b| check_box("box", b, width, height))
            }
        }
    }
}

impl MaskPrompt {
    fn check(&self, mask_side: usize) -> Result<()> {
        match self {
            MaskPrompt::Picture { pixels, width, height } => {
                if *width == 0 || *height == 0 || width.checked_mul(*height) != Some(pixels.len()) {
                    let found = pixels.len();
                    let message = format!("mask prompt: expected {width}×{height} bytes, found {found}");
                    return Err(Error::invalid(message));
                }
                Ok(())
            }
            MaskPrompt::Logits(m) if m.side == mask_side => Ok(()),
            MaskPrompt::Logits(m) => {
                let side = m.side;
                let message =
                    format!("mask logits: expected this model's {mask_side}×{mask_side}, found {side}×{side}");
                Err(Error::invalid(message))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(prompt: Prompt) -> String {
        prompt.check(100, 50, 8).unwrap_err().to_string()
    }

    #[test]
    fn prompts_outside_the_picture_are_errors() {
        for (x, y) in [(-1.0, 0.0), (100.0, 0.0), (0.0, 50.0), (f32::NAN, 0.0), (0.0, f32::INFINITY)] {
            assert!(wrong(Prompt::point(x, y)).contains("100×50"));
        }
        assert!(Prompt::point(99.5, 49.5).check(100, 50, 8).is_ok());
        assert!(wrong(Prompt::bbox([0.0, 0.0, 101.0, 50.0])).contains("within"));
        assert!(wrong(Prompt::bbox([5.0, 0.0, 5.0, 50.0])).contains("first"));
        assert!(wrong(Prompt::bbox([5.0, 0.0, f32::NAN, 50.0])).contains("finite"));
        assert!(Prompt::bbox([0.0, 0.0, 100.0, 50.0]).check(100, 50, 8).is_ok());
    }

    #[test]
    fn empty_prompts_are_errors() {
        assert!(wrong(Prompt::text("  ")).contains("phrase"));
        assert!(wrong(Object::default().into()).contains("point"));
        assert!(LowResMask::new(vec![0.0; 3], 2).is_err());
        assert!(LowResMask::new(vec![f32::NAN; 4], 2).is_err());
        let other = LowResMask::new(vec![0.0; 4], 2).unwrap();
        assert!(wrong(Object { mask: Some(MaskPrompt::Logits(other)), ..Default::default() }.into()).contains("8×8"));
    }
}
