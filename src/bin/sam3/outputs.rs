//! The files a job leaves: each whole or not at all.

use std::borrow::Cow;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use sam3::image::{self, FileFormat, ImageView, Picture, PixelFormat};
use sam3::instance::{Instance, Mask, cutout, draw, rle};
use sam3::{Error, Model, Result, Segmentation};
use serde::{Serialize, Serializer};

use crate::args::Segment;
use crate::segment::{Times, io_error};
use crate::tensors;

/// Fails for outputs that cannot be written, before the work begins: an unknown ending, a folder that is not there or
/// takes no files, a path used twice.
pub fn check(args: &Segment) -> Result<()> {
    for path in [&args.overlay, &args.semantic].into_iter().flatten() {
        FileFormat::of(path)?;
    }
    let json = args.json.as_ref().filter(|p| **p != Path::new("-"));
    let files = [args.overlay.as_ref(), args.semantic.as_ref(), json, args.tensors.as_ref()];
    let files: Vec<&PathBuf> = files.into_iter().flatten().collect();
    for (i, path) in files.iter().enumerate() {
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if !folder.is_dir() {
            return Err(Error::invalid(format!(
                "{}: expected an existing folder, {}",
                path.display(),
                folder.display()
            )));
        }
        if path.is_dir() {
            return Err(Error::invalid(format!("{}: expected a file name, found a folder", path.display())));
        }
        if files[..i].contains(path) {
            return Err(Error::invalid(format!("{}: expected a file of its own for each output", path.display())));
        }
        // Devices and pipes are written to, not replaced, so their folder takes nothing.
        if !path.exists() || path.is_file() {
            probe(&path.canonicalize().ok().and_then(|p| p.parent().map(PathBuf::from)).unwrap_or(folder.into()))?;
        }
    }
    for path in [&args.masks, &args.cutouts].into_iter().flatten() {
        let nearest = path.ancestors().find(|p| p.exists()).unwrap_or(Path::new("."));
        if !nearest.is_dir() {
            return Err(Error::invalid(format!(
                "{}: expected a folder, but {} is a file",
                path.display(),
                nearest.display()
            )));
        }
        probe(nearest)?;
    }
    Ok(())
}

/// Fails unless files can be made in `folder`. Only making one tells: permissions, read-only file systems and access
/// lists all have a say.
fn probe(folder: &Path) -> Result<()> {
    let path = folder.join(format!(".sam3-{}.probe", std::process::id()));
    fs::File::create_new(&path)
        .and_then(|_| fs::remove_file(&path))
        .map_err(|e| io_error(folder, "cannot write into the folder", e))
}

/// Writes `text` to standard output. A reader that has seen enough and closed the pipe is no failure.
pub fn say(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(io_error(Path::new("standard output"), "cannot write", e))
        }
        _ => Ok(()),
    }
}

/// Writes everything that was asked for.
pub fn write(
    args: &Segment,
    model: &Model,
    picture: &Picture,
    answer: &Segmentation,
    labels: &[String],
    times: &Times,
) -> Result<()> {
    if let Some(path) = &args.overlay {
        overlay(path, picture, answer)?;
    }
    if let Some(dir) = &args.masks {
        folder(dir)?;
        for (i, found) in answer.instances.iter().enumerate() {
            mask(&dir.join(format!("mask_{i:03}.png")), &found.mask)?;
        }
    }
    if let Some(dir) = &args.cutouts {
        folder(dir)?;
        for (i, found) in answer.instances.iter().enumerate() {
            let cut = cutout::cutout(picture.pixels(), &found.mask)?;
            let view = ImageView::new(&cut.pixels, cut.width, cut.height, cut.width * 4, PixelFormat::Rgba8)?;
            image::save(&view, dir.join(format!("cutout_{i:03}.png")))?;
        }
    }
    if let Some(path) = &args.semantic {
        let masks: Vec<&Mask> = answer.prompts.iter().filter_map(|p| p.semantic.as_ref()).collect();
        for (i, m) in masks.iter().enumerate() {
            mask(&if masks.len() == 1 { path.clone() } else { numbered(path, i) }, m)?;
        }
    }
    if let Some(path) = &args.tensors {
        tensors::write(path, answer)?;
    }
    if let Some(path) = &args.json {
        let text = serde_json::to_string_pretty(&document(args, model, answer, labels, times));
        let text = text.expect("the document has no failing member") + "\n";
        if path == Path::new("-") {
            say(&text)?;
        } else {
            image::write_file(path, text.as_bytes())?;
        }
    }
    Ok(())
}

/// The picture with its instances; the best lies on top.
fn overlay(path: &Path, picture: &Picture, answer: &Segmentation) -> Result<()> {
    let mut rgb = picture.pixels().to_vec();
    let items: Vec<draw::Item<'_>> = answer
        .instances
        .iter()
        .enumerate()
        .rev()
        .map(|(i, found)| draw::Item {
            mask: &found.mask,
            bbox: Some(found.bbox),
            colour: draw::colour(i),
            score: Some(found.score),
        })
        .collect();
    let style = draw::Style { labels: true, ..Default::default() };
    draw::overlay(&mut rgb, picture.width(), picture.height(), &items, style)?;
    let row = picture.width() * 3;
    image::save(&ImageView::new(&rgb, picture.width(), picture.height(), row, PixelFormat::Rgb8)?, path)
}

/// White on black, 8 bits.
fn mask(path: &Path, mask: &Mask) -> Result<()> {
    let pixels = mask.to_u8();
    image::save(&ImageView::new(&pixels, mask.width(), mask.height(), mask.width(), PixelFormat::Gray8)?, path)
}

fn folder(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).map_err(|e| io_error(dir, "cannot make the folder", e))
}

/// `name.png` to `name.0.png`.
fn numbered(path: &Path, i: usize) -> PathBuf {
    match path.extension() {
        Some(ending) => path.with_extension(format!("{i}.{}", ending.to_string_lossy())),
        None => path.to_path_buf(),
    }
}

/// The document of `--json`, its members in this order.
#[derive(Serialize)]
struct Document<'a> {
    image: Image<'a>,
    model: Facts<'a>,
    instances: Vec<Found<'a>>,
    presence: Ordered<'a, f32>,
    timings_ms: Ordered<'a, f64>,
}

#[derive(Serialize)]
struct Image<'a> {
    file: Cow<'a, str>,
    width: usize,
    height: usize,
}

/// Which model answered; `origin` is what its configuration says of itself.
#[derive(Serialize)]
struct Facts<'a> {
    name: Cow<'a, str>,
    origin: Option<&'a str>,
}

#[derive(Serialize)]
struct Found<'a> {
    id: usize,
    prompt: &'a str,
    score: f32,
    #[serde(rename = "box")]
    bbox: [f32; 4],
    area: u64,
    segmentation: Rle,
}

/// COCO's compressed form.
#[derive(Serialize)]
struct Rle {
    size: [usize; 2],
    counts: String,
}

/// An object whose members keep their order.
struct Ordered<'a, T>(Vec<(&'a str, T)>);

impl<T: Serialize> Serialize for Ordered<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(k, v)| (k, v)))
    }
}

fn document<'a>(
    args: &'a Segment,
    model: &'a Model,
    answer: &'a Segmentation,
    labels: &'a [String],
    times: &Times,
) -> Document<'a> {
    let found = |(id, found): (usize, &'a Instance)| Found {
        id,
        prompt: &labels[found.prompt],
        score: found.score,
        bbox: found.bbox,
        area: found.area(),
        segmentation: Rle { size: [answer.height, answer.width], counts: rle::encode_coco(&found.mask) },
    };
    Document {
        image: Image { file: args.image.to_string_lossy(), width: answer.width, height: answer.height },
        model: Facts { name: args.model.name(), origin: model.info().config.origin.as_deref() },
        instances: answer.instances.iter().enumerate().map(found).collect(),
        presence: Ordered(labels.iter().zip(&answer.prompts).map(|(l, p)| (l.as_str(), p.presence)).collect()),
        timings_ms: Ordered(times.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_before_the_ending() {
        assert_eq!(numbered(Path::new("a/b.png"), 1), Path::new("a/b.1.png"));
    }
}
