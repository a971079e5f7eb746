//! From what a caller calls a picture to its bytes: a data URI, a file of this server, or an address to fetch.

use std::sync::Arc;

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::app::{App, Work};
use super::error::{ApiError, ApiResult};
use super::fetch;
use super::http::percent_decode;
use super::pictures::{Came, Looked, Pictures, limits};
use super::random::is_id;
use crate::MaskPrompt;
use crate::image::Picture;

/// Encoders differ about padding, and decoding is clear without it.
const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

/// Bytes of base64, standard or URL-safe, with or without padding and line ends.
pub fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let text = text.trim();
    let engine = if text.contains(['-', '_']) { &URL_SAFE } else { &STANDARD };
    if text.contains(|c: char| c.is_ascii_whitespace()) {
        let packed: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
        return engine.decode(packed).ok();
    }
    engine.decode(text).ok()
}

/// Base64 as data URIs and JSON hold it.
pub fn encode_base64(bytes: &[u8]) -> String {
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// The bytes of the file that `url` means. `field` is where errors say it stood.
pub async fn file(app: &Arc<App>, url: &str, field: &'static str) -> ApiResult<Vec<u8>> {
    let url = url.trim();
    if url.get(..5).is_some_and(|s| s.eq_ignore_ascii_case("data:")) {
        return data_uri(url).ok_or_else(|| {
            let msg = "expected a data URI such as data:image/png;base64,iVBORw0…";
            ApiError::field(field, "image_load_error", msg)
        });
    }
    if let Some(id) = own_file(url) {
        let file = app.files.get(id).ok_or_else(|| {
            ApiError::field(field, "file_download_error", "the file is not here, or not here any more")
        })?;
        return Ok(app.blocking(move || file.read()).await??.to_vec());
    }
    fetch::parse(url).map_err(|msg| {
        ApiError::field(field, "file_download_error", format!("{msg}, a data URI, or the URL of an upload"))
    })?;
    if !app.fetch.allowed() {
        let msg = "this server fetches nothing (it was started without --allow-fetch): send a data URI or an upload";
        return Err(ApiError::field(field, "file_download_error", msg));
    }
    app.fetch.get(url).await.map_err(|msg| {
        let kind = if msg.contains("at most") { "file_too_large" } else { "file_download_error" };
        ApiError::field(field, kind, msg)
    })
}

/// The id of a file of this server, by its path: the host may be any name this server goes by. Ids cannot be guessed, so
/// a stranger's address that looks alike means nothing.
fn own_file(url: &str) -> Option<&str> {
    let rest = match url.split_once("://") {
        Some((_, rest)) => &rest[rest.find('/')?..],
        None => url,
    };
    let id = rest.strip_prefix("/files/")?.split('/').next()?;
    is_id(id).then_some(id)
}

/// The bytes of `data:[type][;base64],…`.
fn data_uri(url: &str) -> Option<Vec<u8>> {
    let (head, data) = url.get(5..)?.split_once(',')?;
    if head.rsplit(';').next().is_some_and(|last| last.trim().eq_ignore_ascii_case("base64")) {
        // Some escape the base64 as well.
        if data.contains('%') {
            return decode_base64(&percent_decode(&data.replace('+', "%2B"))?);
        }
        return decode_base64(data);
    }
    None
}

/// The picture of a request, looked at: by its id, or by its address.
pub async fn picture(
    app: &Arc<App>,
    work: &Work,
    url: Option<&str>,
    id: Option<&str>,
    vector: bool,
) -> ApiResult<(Arc<Looked>, Came)> {
    let (looked, came) = match (url, id) {
        (Some(url), _) => {
            let start = std::time::Instant::now();
            let bytes = file(app, url, "image_url").await?;
            work.notes.times(&[("load", start.elapsed())]);
            work.notes.say(format!("Picture loaded, {} bytes", bytes.len()));
            Pictures::look(app, bytes, "image_url", vector).await?
        }
        (None, Some(id)) => {
            let looked = app.pictures.held(id).filter(|l| !vector || l.vector.get().is_some());
            let gone =
                || ApiError::field("image_id", "image_not_found", "the picture is not held any more: send it again");
            (looked.ok_or_else(gone)?, Came::Held)
        }
        (None, None) => {
            return Err(ApiError::fields(vec![super::error::FieldError::new(
                &["image_url".into()],
                "missing",
                "Field required",
            )]));
        }
    };
    let size = format!("{} × {} pixels", looked.picture.width(), looked.picture.height());
    match came {
        Came::Held => work.notes.say(format!("Picture of {size} is known")),
        Came::Looked => {
            work.notes.times(&looked.times);
            let took = super::pictures::total(&looked.times).as_secs_f64();
            work.notes.say(format!("Picture of {size} encoded in {took:.3} s"));
        }
    }
    Ok((looked, came))
}

/// A mask as prompt: a picture that is bright where the object is.
pub async fn mask(app: &Arc<App>, url: &str, field: &'static str) -> ApiResult<MaskPrompt> {
    let bytes = file(app, url, field).await?;
    let limits = limits(app.options.max_pixels);
    let decoded = app.blocking(move || {
        let picture = Picture::decode_with(&bytes, &limits)?;
        let pixels: Vec<u8> = picture.pixels().chunks_exact(3).map(|p| p[0].max(p[1]).max(p[2])).collect();
        Ok(MaskPrompt::Picture { pixels: pixels.into(), width: picture.width(), height: picture.height() })
    });
    decoded.await?.map_err(|e| ApiError::picture(&e, field))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_uris_are_read_however_they_are_written() {
        for uri in [
            "data:image/png;base64,AAEC/w==",
            "data:;base64,AAEC/w",
            "DATA:image/png;charset=x;BASE64,AAEC\n/w==",
            "data:image/png;base64,AAEC_w",
            "data:image/png;base64,AAEC%2Fw%3D%3D",
        ] {
            assert_eq!(data_uri(uri).unwrap(), [0, 1, 2, 255], "{uri}");
        }
        for bad in ["data:", "data:image/png;base64", "data:image/png,abc", "data:;base64,!!!", "data:;base64,%zz"] {
            assert_eq!(data_uri(bad), None, "{bad}");
        }
        assert_eq!(encode_base64(&[0, 1, 2, 255]), "AAEC/w==");
    }

    #[test]
    fn own_files_are_known_by_their_path() {
        let id = "0123456789abcdef0123456789abcdef";
        for url in
            [format!("http://a:1/files/{id}/x.png"), format!("/files/{id}/x.png"), format!("https://b/files/{id}")]
        {
            assert_eq!(own_file(&url), Some(id), "{url}");
        }
        for url in ["http://a/files/../../etc/passwd", "/files/", "http://a/x/files/0", "http://a", "files/x"] {
            assert_eq!(own_file(url), None, "{url}");
        }
    }
}
