//! The boxes of a HEIF file (ISO 14496-12, ISO 23008-12) as far as one AV1 picture needs them.
//!
//! Everything is read from one slice through [`Reader`], which cannot leave it. Loops run over bytes that are there,
//! never over counts alone, and the only allocation is an item's data where a file scatters it, bounded by the file.

use std::borrow::Cow;

use crate::error::{Error, ErrorKind, Result};
use crate::image::decode::image_error;
use crate::image::orient::Orientation;

/// What a file says about its primary picture.
pub struct Container<'a> {
    pub primary: Item<'a>,
    /// The auxiliary picture that holds the primary one's alpha.
    pub alpha: Option<Item<'a>>,
    /// Colours are multiplied by alpha already (`prem`).
    pub premultiplied: bool,
}

/// One coded picture and its properties.
pub struct Item<'a> {
    /// Open bitstream units.
    pub data: Cow<'a, [u8]>,
    /// Width and height (`ispe`).
    pub size: Option<(u32, u32)>,
    /// Colour description (`colr` of type `nclx`), which outranks the bitstream's.
    pub color: Option<Nclx>,
    pub orientation: Orientation,
    /// `a1op`, which of the bitstream's operating points to decode.
    pub operating_point: u8,
}

/// Colour description by code points of ITU-T H.273.
#[derive(Clone, Copy)]
pub struct Nclx {
    pub matrix: u16,
    pub full_range: bool,
}

impl<'a> Container<'a> {
    /// Reads the boxes of `file`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Image`] for damaged boxes, [`ErrorKind::Unsupported`] for what is listed in the module above.
    pub fn parse(file: &'a [u8]) -> Result<Self> {
        let mut meta = None;
        let mut boxes = Reader::new(file);
        while let Some((name, body)) = boxes.next_box()? {
            match &name {
                b"ftyp" => check_brands(body)?,
                b"meta" if meta.is_none() => meta = Some(Meta::parse(body)?),
                _ => {}
            }
        }
        let meta = meta.ok_or_else(|| {
            Error::new(ErrorKind::Unsupported, "expected a still picture, found no box `meta` (a video or a sequence?)")
        })?;

        let primary = meta.primary.ok_or_else(|| image_error("expected a box `pitm`, found none"))?;
        let alpha = meta.alpha_of(primary)?;
        let premultiplied = alpha.is_some_and(|alpha| meta.references.contains(&(*b"prem", primary, alpha)));
        Ok(Self {
            primary: meta.item(file, primary)?,
            alpha: alpha.map(|alpha| meta.item(file, alpha)).transpose()?,
            premultiplied,
        })
    }
}

fn check_brands(mut body: Reader<'_>) -> Result<()> {
    let major = body.array::<4>()?;
    body.u32()?;
    let is_avif = |brand: &[u8; 4]| matches!(brand, b"avif" | b"avis");
    if is_avif(&major) || body.0.as_chunks::<4>().0.iter().any(is_avif) {
        return Ok(());
    }
    let brand = major.escape_ascii();
    Err(Error::new(ErrorKind::Unsupported, format!("expected the brand `avif`, found an ISO media file of `{brand}`")))
}

/// The box `meta`, its children kept as bodies to be searched per item.
#[derive(Default)]
struct Meta<'a> {
    primary: Option<u32>,
    infos: Option<Reader<'a>>,
    locations: Option<Reader<'a>>,
    associations: Vec<Reader<'a>>,
    properties: Vec<([u8; 4], Reader<'a>)>,
    /// Type, from, to.
    references: Vec<([u8; 4], u32, u32)>,
    data: Option<&'a [u8]>,
}

impl<'a> Meta<'a> {
    fn parse(mut body: Reader<'a>) -> Result<Self> {
        body.full_box()?;
        let mut meta = Self::default();
        while let Some((name, mut body)) = body.next_box()? {
            match &name {
                b"pitm" => meta.primary = Some(if body.full_box()?.0 == 0 { body.u16()?.into() } else { body.u32()? }),
                b"iinf" => meta.infos = Some(body),
                b"iloc" => meta.locations = Some(body),
                b"iref" => meta.read_references(body)?,
                b"idat" => meta.data = Some(body.0),
                b"iprp" => {
                    while let Some((name, mut body)) = body.next_box()? {
                        match &name {
                            b"ipco" => {
                                while let Some(property) = body.next_box()? {
                                    meta.properties.push(property);
                                }
                            }
                            b"ipma" => meta.associations.push(body),
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(meta)
    }

    fn read_references(&mut self, mut body: Reader<'a>) -> Result<()> {
        let wide = body.full_box()?.0 != 0;
        while let Some((name, mut body)) = body.next_box()? {
            let from = body.uint(if wide { 4 } else { 2 })? as u32;
            for _ in 0..body.u16()? {
                self.references.push((name, from, body.uint(if wide { 4 } else { 2 })? as u32));
            }
        }
        Ok(())
    }

    /// The item that holds the alpha of `primary`: an auxiliary picture with one of the two names for alpha.
    fn alpha_of(&self, primary: u32) -> Result<Option<u32>> {
        const NAMES: [&[u8]; 2] = [b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha\0", b"urn:mpeg:hevc:2015:auxid:1\0"];
        for &(name, from, to) in &self.references {
            if &name == b"auxl" && to == primary && from != primary {
                let mut is_alpha = false;
                self.for_properties(from, |name, mut body, _| {
                    if name == b"auxC" {
                        body.full_box()?;
                        is_alpha |= NAMES.iter().any(|urn| body.0.starts_with(urn));
                    }
                    Ok(())
                })?;
                if is_alpha {
                    return Ok(Some(from));
                }
            }
        }
        Ok(None)
    }

    fn item(&self, file: &'a [u8], id: u32) -> Result<Item<'a>> {
        self.check_type(id)?;
        let mut item = Item {
            data: self.item_data(file, id)?,
            size: None,
            color: None,
            orientation: Orientation::default(),
            operating_point: 0,
        };
        let (mut turns, mut mirror) = (0, None);
        self.for_properties(id, |name, mut body, essential| {
            match name {
                b"ispe" => {
                    body.full_box()?;
                    item.size = Some((body.u32()?, body.u32()?));
                }
                b"colr" if body.0.starts_with(b"nclx") => {
                    // Type, primaries and transfer function come first and are not needed.
                    body.take(8)?;
                    item.color = Some(Nclx { matrix: body.u16()?, full_range: body.u8()? & 0x80 != 0 });
                }
                b"irot" => turns = body.u8()? & 3,
                b"imir" => mirror = Some(body.u8()? & 1),
                b"a1op" => item.operating_point = body.u8()? & 31,
                // All layers, which is what is decoded anyway.
                b"lsel" if body.u16()? == 0xffff => {}
                b"av1C" | b"colr" | b"pixi" | b"pasp" | b"clap" | b"auxC" | b"a1lx" | b"clli" | b"mdcv" => {}
                _ if essential => {
                    let name = name.escape_ascii();
                    return Err(unsupported(format!("the essential property `{name}` of a picture")));
                }
                _ => {}
            }
            Ok(())
        })?;
        item.orientation = Orientation::from_heif(turns, mirror);
        Ok(item)
    }

    fn check_type(&self, id: u32) -> Result<()> {
        let mut body = self.infos.ok_or_else(|| image_error("expected a box `iinf`, found none"))?;
        // The number of entries, which the boxes themselves tell better.
        if body.full_box()?.0 == 0 {
            body.take(2)?
        } else {
            body.take(4)?
        };
        while let Some((name, mut body)) = body.next_box()? {
            let version = body.full_box()?.0;
            if &name != b"infe" || version < 2 {
                continue;
            }
            if body.uint(if version == 2 { 2 } else { 4 })? as u32 != id {
                continue;
            }
            let protection = body.u16()?;
            return match &body.array::<4>()? {
                b"av01" if protection == 0 => Ok(()),
                b"av01" => Err(unsupported("an encrypted picture")),
                b"grid" => Err(unsupported("a picture stitched from tiles (`grid`)")),
                other => Err(unsupported(format!("a picture of type `{}`", other.escape_ascii()))),
            };
        }
        Err(image_error(format!("expected an entry for item {id} in `iinf`, found none")))
    }

    /// The bytes of an item: borrowed where they are in one piece, which they nearly always are.
    fn item_data(&self, file: &'a [u8], id: u32) -> Result<Cow<'a, [u8]>> {
        let mut body = self.locations.ok_or_else(|| image_error("expected a box `iloc`, found none"))?;
        let version = body.full_box()?.0;
        let sizes = body.u16()?;
        let nibble = |shift: u32| usize::from(sizes >> shift & 15);
        let (offset_len, length_len, base_len) = (nibble(12), nibble(8), nibble(4));
        let index_len = if version == 0 { 0 } else { nibble(0) };
        let id_len = if version < 2 { 2 } else { 4 };
        for _ in 0..body.uint(id_len)? {
            let found = body.uint(id_len)? as u32;
            let method = if version == 0 { 0 } else { body.u16()? & 15 };
            body.take(2)?; // data reference
            let base = body.uint(base_len)?;
            let extents = usize::from(body.u16()?);
            let mut extents = Reader::new(body.take(extents * (index_len + offset_len + length_len))?);
            if found != id {
                continue;
            }
            let whole = match method {
                0 => file,
                1 => self.data.ok_or_else(|| image_error("expected a box `idat`, found none"))?,
                _ => return Err(unsupported("a picture whose data is made of other items")),
            };
            let mut data = Cow::Borrowed(&whole[..0]);
            while !extents.0.is_empty() {
                extents.take(index_len)?;
                let offset = base.checked_add(extents.uint(offset_len)?).and_then(|n| usize::try_from(n).ok());
                let length = usize::try_from(extents.uint(length_len)?).ok();
                let piece = offset
                    .and_then(|offset| whole.get(offset..))
                    // A length of zero stands for all the rest.
                    .and_then(|rest| if length == Some(0) { Some(rest) } else { rest.get(..length?) })
                    .ok_or_else(|| image_error(format!("item {id} lies outside the file, which is cut or damaged")))?;
                if data.is_empty() {
                    data = Cow::Borrowed(piece);
                } else if data.len() + piece.len() <= whole.len() {
                    data.to_mut().extend_from_slice(piece);
                } else {
                    return Err(image_error(format!("the pieces of item {id} overlap")));
                }
            }
            return Ok(data);
        }
        Err(image_error(format!("expected a place for item {id} in `iloc`, found none")))
    }

    /// Calls `f` with each property of an item, in the file's order, and whether it is essential.
    fn for_properties(&self, id: u32, mut f: impl FnMut(&[u8; 4], Reader<'a>, bool) -> Result<()>) -> Result<()> {
        for &(mut body) in &self.associations {
            let (version, flags) = body.full_box()?;
            let wide = flags & 1 != 0;
            for _ in 0..body.u32()? {
                let found = body.uint(if version == 0 { 2 } else { 4 })? as u32;
                for _ in 0..body.u8()? {
                    let value = body.uint(if wide { 2 } else { 1 })? as usize;
                    let flag = if wide { 0x8000 } else { 0x80 };
                    // Counted from 1; 0 means none.
                    let index = (value & (flag - 1)).wrapping_sub(1);
                    if let (true, Some((name, body))) = (found == id, self.properties.get(index)) {
                        f(name, *body, value & flag != 0)?;
                    }
                }
            }
        }
        Ok(())
    }
}

fn unsupported(what: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Unsupported, format!("expected one AV1 picture, found {what}"))
}

/// What is left to read of a box or a file; numbers are big-endian.
#[derive(Clone, Copy)]
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    fn take(&mut self, n: usize) -> Result<&'a [u8]> {
        let (head, rest) = self
            .0
            .split_at_checked(n)
            .ok_or_else(|| image_error(format!("expected {n} more bytes in a box, found {}", self.0.len())))?;
        self.0 = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    fn u8(&mut self) -> Result<u8> {
        Ok(u8::from_be_bytes(self.array()?))
    }

    fn u16(&mut self) -> Result<u16> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    /// A number of `n` bytes; those above 8 shift out, and no file has them.
    fn uint(&mut self, n: usize) -> Result<u64> {
        Ok(self.take(n)?.iter().fold(0, |value, &byte| value << 8 | u64::from(byte)))
    }

    /// Version and flags.
    fn full_box(&mut self) -> Result<(u8, u32)> {
        let word = self.u32()?;
        Ok(((word >> 24) as u8, word & 0x00ff_ffff))
    }

    /// The next box's name and body, or `None` at the end.
    fn next_box(&mut self) -> Result<Option<([u8; 4], Reader<'a>)>> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let (size, name) = (self.u32()?, self.array::<4>()?);
        let (size, header) = match size {
            0 => (self.0.len() as u64 + 8, 8),
            1 => (self.uint(8)?, 16),
            n => (u64::from(n), 8),
        };
        let body = size.checked_sub(header).and_then(|n| usize::try_from(n).ok()).ok_or_else(|| {
            image_error(format!("expected a box `{}` of at least {header} bytes, found {size}", name.escape_ascii()))
        })?;
        let body = self.take(body).map_err(|e| e.at(format_args!("box `{}`", name.escape_ascii())))?;
        Ok(Some((name, Reader(body))))
    }
}
