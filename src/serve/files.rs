//! Results and uploads, served under names that cannot be guessed until their time is over.
//!
//! In memory, or in one directory, whose file names are of this server's making alone: no part of a path comes from a
//! caller. Either way within a limit of bytes; what was used longest ago goes first.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Bytes;

use super::error::{ApiError, ApiResult};
use super::lru::Lru;
use super::random;
use crate::error::{Error, ErrorKind, Result};
use crate::image::write_file;

/// What names of our files in the directory begin with; the rest is an id.
const PREFIX: &str = "sam3-";

/// Types a browser may show. Everything else is bytes to it, so that no upload becomes a page.
const SHOWN: [&str; 7] =
    ["image/png", "image/jpeg", "image/webp", "image/gif", "image/avif", "image/bmp", "image/tiff"];

/// A file.
#[derive(Clone)]
pub struct File {
    pub name: String,
    pub content_type: &'static str,
    data: Data,
}

#[derive(Clone)]
enum Data {
    Memory(Bytes),
    /// Removed when the last handle is dropped.
    Disk(Arc<OnDisk>),
}

struct OnDisk(PathBuf);

impl Drop for OnDisk {
    fn drop(&mut self) {
        // A file that somebody else removed has nothing left to remove.
        let _ = fs::remove_file(&self.0);
    }
}

/// The files.
pub struct Files {
    dir: Option<PathBuf>,
    held: Mutex<Lru<String, File>>,
    /// Uploads announced and not yet there, by the id they were announced under.
    announced: Mutex<Lru<String, (String, String)>>,
}

/// Most uploads that are announced and have not come.
const MAX_ANNOUNCED: usize = 10_000;

impl Files {
    /// Room for `limit` bytes, each file for `lifetime`. What an earlier server left in `dir` is removed.
    ///
    /// Fails if the directory can be neither used nor made.
    pub fn open(dir: Option<&Path>, limit: usize, lifetime: Duration) -> Result<Self> {
        if let Some(dir) = dir {
            let io = |e| Error::new(ErrorKind::Io, "cannot use the directory").at(dir.display()).with_source(e);
            fs::create_dir_all(dir).map_err(io)?;
            for entry in fs::read_dir(dir).map_err(io)?.flatten() {
                if entry.file_name().to_str().and_then(|n| n.strip_prefix(PREFIX)).is_some_and(random::is_id) {
                    fs::remove_file(entry.path()).map_err(io)?;
                }
            }
        }
        Ok(Self {
            dir: dir.map(Path::to_path_buf),
            held: Mutex::new(Lru::new(limit, Some(lifetime))),
            announced: Mutex::new(Lru::new(MAX_ANNOUNCED, Some(lifetime))),
        })
    }

    /// Keeps `bytes`, and returns the path under which they are served: `/files/<id>/<name>`.
    pub fn keep(&self, name: &str, content_type: &str, bytes: Bytes) -> ApiResult<String> {
        self.keep_as(random::id(), name, content_type, bytes)
    }

    fn keep_as(&self, id: String, name: &str, content_type: &str, bytes: Bytes) -> ApiResult<String> {
        let name = safe_name(name);
        let essence = content_type.split(';').next().unwrap_or_default().trim();
        let shown = SHOWN.iter().find(|t| t.eq_ignore_ascii_case(essence));
        let content_type = shown.copied().unwrap_or("application/octet-stream");
        let size = bytes.len();
        let data = match &self.dir {
            None => Data::Memory(bytes),
            Some(dir) => {
                let path = dir.join(format!("{PREFIX}{id}"));
                write_file(&path, &bytes).map_err(|e| {
                    let detail = "the directory for results is full, or cannot be written";
                    ApiError::no_space(detail).because(e.to_string())
                })?;
                Data::Disk(Arc::new(OnDisk(path)))
            }
        };
        let path = format!("/files/{id}/{name}");
        let gone = {
            let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
            held.put(id.clone(), File { name, content_type, data }, size)
        };
        // Dropped outside the lock: on disk that takes a while.
        drop(gone);
        let there = self.held.lock().unwrap_or_else(PoisonError::into_inner).get(&id).is_some();
        if there { Ok(path) } else { Err(ApiError::no_space("the file is larger than all files may be")) }
    }

    /// A file by its id.
    pub fn get(&self, id: &str) -> Option<File> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).get(id)
    }

    /// Announces an upload, and returns the id it is to be sent under, and its file's path.
    pub fn announce(&self, name: &str, content_type: &str) -> (String, String) {
        let (id, name) = (random::id(), safe_name(name));
        let path = format!("/files/{id}/{name}");
        let content_type: String = content_type.chars().take(100).collect();
        let mut announced = self.announced.lock().unwrap_or_else(PoisonError::into_inner);
        announced.put(id.clone(), (name, content_type), 1);
        (id, path)
    }

    /// Receives an upload that was announced.
    pub fn receive(&self, id: &str, content_type: Option<&str>, bytes: Bytes) -> ApiResult<()> {
        let announced = self.announced.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
        let Some((name, declared)) = announced else {
            return Err(ApiError::not_found("no upload is expected here, or it has come already"));
        };
        self.keep_as(id.to_owned(), &name, content_type.unwrap_or(&declared), bytes).map(drop)
    }

    /// How many files there are, and their bytes.
    pub fn held(&self) -> (usize, usize) {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        (held.len(), held.bytes())
    }

    /// Removes what is older than its lifetime.
    pub fn expire(&self) {
        let gone = self.held.lock().unwrap_or_else(PoisonError::into_inner).expire();
        drop(gone);
        let gone = self.announced.lock().unwrap_or_else(PoisonError::into_inner).expire();
        drop(gone);
    }
}

impl File {
    /// The bytes. Reads the disk: not for the async runtime's own threads.
    pub fn read(&self) -> ApiResult<Bytes> {
        match &self.data {
            Data::Memory(bytes) => Ok(bytes.clone()),
            Data::Disk(path) => {
                let gone = |e: std::io::Error| ApiError::not_found("the file is gone").because(e.to_string());
                fs::read(&path.0).map(Bytes::from).map_err(gone)
            }
        }
    }
}

/// A name for a URL and for whoever saves the file: letters, digits, `.`, `-` and `_`, not beginning with a dot, of at
/// most 80 bytes. Nothing else ever uses it.
fn safe_name(name: &str) -> String {
    let last = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let kept: String =
        last.chars().map(|c| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-') { c } else { '_' }).collect();
    let kept = kept.trim_start_matches('.');
    let start = kept.len().saturating_sub(80);
    if kept.is_empty() { "file".into() } else { kept[start..].trim_start_matches('.').into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id_of(path: &str) -> &str {
        path.split('/').nth(2).unwrap()
    }

    #[test]
    fn names_are_harmless() {
        for (name, safe) in [
            ("../../etc/passwd", "passwd"),
            ("a b\r\nX: y.png", "a_b__X__y.png"),
            ("..", "file"),
            ("", "file"),
            ("C:\\x\\y.jpg", "y.jpg"),
            ("ü.png", "_.png"),
        ] {
            assert_eq!(safe_name(name), safe);
        }
        assert!(safe_name(&"x".repeat(500)).len() == 80);
    }

    #[test]
    fn files_are_kept_in_memory_or_in_the_directory_and_go() {
        let dir = tempfile::tempdir().unwrap();
        let stranger = dir.path().join("stranger.txt");
        fs::write(&stranger, "x").unwrap();
        fs::write(dir.path().join(format!("sam3-{}", random::id())), "left over").unwrap();
        for place in [None, Some(dir.path())] {
            let files = Files::open(place, 10, Duration::from_secs(100)).unwrap();
            let a = files.keep("a.png", "image/png", Bytes::from_static(b"12345")).unwrap();
            let b = files.keep("b.html", "text/html", Bytes::from_static(b"1234")).unwrap();
            assert_eq!(files.get(id_of(&a)).unwrap().read().unwrap(), "12345");
            assert_eq!(files.get(id_of(&b)).unwrap().content_type, "application/octet-stream");
            let entries = || fs::read_dir(dir.path()).unwrap().count();
            assert_eq!(entries(), if place.is_some() { 3 } else { 2 });
            files.keep("c.png", "image/png", Bytes::from_static(b"1234567")).unwrap();
            assert!(files.get(id_of(&a)).is_none() && files.get(id_of(&b)).is_none());
            assert_eq!(files.held(), (1, 7));
            assert!(files.keep("d", "image/png", Bytes::from_static(b"12345678901")).is_err());
            drop(files);
            assert_eq!(entries(), if place.is_some() { 1 } else { 2 });
        }
        assert!(stranger.exists());
    }

    #[test]
    fn uploads_come_once_and_only_if_announced() {
        let files = Files::open(None, 100, Duration::from_secs(100)).unwrap();
        let (id, path) = files.announce("p.png", "image/png");
        assert!(path.ends_with("/p.png") && files.get(&id).is_none());
        files.receive(&id, None, Bytes::from_static(b"1")).unwrap();
        assert_eq!(files.get(&id).unwrap().content_type, "image/png");
        assert!(files.receive(&id, None, Bytes::from_static(b"2")).is_err());
        assert!(files.receive(&random::id(), None, Bytes::new()).is_err());
        assert_eq!(files.get(&id).unwrap().read().unwrap(), "1");
    }
}
