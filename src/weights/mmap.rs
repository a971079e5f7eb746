//! Bytes of a checkpoint, wherever they live: a mapped file, a vector, the program itself, or an owner of the caller's.
//!
//! Mapping is what makes opening a checkpoint of gigabytes immediate and lets several processes share its pages. It is
//! the one place of this module with `unsafe`, because the operating system, not the compiler, decides whether the
//! bytes stay as they are.
//!
//! # What the caller owes
//!
//! A checkpoint's file must not be truncated or rewritten in place while anything holds a [`Blob`] of it. If it is
//! truncated, touching a page that is gone ends the process with a signal (`SIGBUS`) on Unix; if it is rewritten,
//! weights change under the model. Replacing a file by renaming another one over it is harmless, and is how downloaders
//! do it. On Windows the system refuses to truncate a mapped file. Whoever cannot promise this reads the file and
//! passes its bytes instead: `Blob::from(std::fs::read(path)?)`.
#![allow(unsafe_code)]

use std::fs::File;
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;

use memmap2::Mmap;

use crate::error::{Error, ErrorKind, Result};

// Checkpoints store little-endian numbers, and back ends read them in place.
const _: () = assert!(cfg!(target_endian = "little"), "sam3 needs a little-endian target");

/// A shared, immutable stretch of bytes. Clones share it; it is released with the last of them.
#[derive(Clone)]
pub struct Blob(Arc<Source>);

enum Source {
    Mapped(Mmap),
    Bytes(Vec<u8>),
    Floats(Vec<f32>),
    Shared(Arc<[u8]>),
    Static(&'static [u8]),
    Owned(Box<dyn AsRef<[u8]> + Send + Sync>),
}

impl Blob {
    /// Maps the regular file at `path` for reading. See the module's text for what the caller owes.
    ///
    /// # Errors
    ///
    /// `Io` if `path` is missing, unreadable, or anything but a regular file.
    pub fn map(path: &Path) -> Result<Blob> {
        let io = |what: &str, e: std::io::Error| Error::new(ErrorKind::Io, what).with_source(e).at(path.display());
        // Asked before opening, because opening a pipe waits for a writer.
        regular(path, &std::fs::metadata(path).map_err(|e| io("cannot be read", e))?)?;
        let file = File::open(path).map_err(|e| io("cannot be opened", e))?;
        // And once more, because what stands at the path may have changed since.
        let metadata = file.metadata().map_err(|e| io("cannot be read", e))?;
        regular(path, &metadata)?;
        if metadata.len() == 0 {
            return Ok(Blob(Arc::new(Source::Static(&[]))));
        }
        // SAFETY: the mapping is private to this value and never written through; that the file is neither truncated
        // nor rewritten while mapped is the caller's part, stated in this module's documentation.
        let map = unsafe { Mmap::map(&file) }.map_err(|e| io("cannot be mapped", e))?;
        Ok(Blob(Arc::new(Source::Mapped(map))))
    }

    /// The bytes of whatever holds them, which is dropped with the last clone: memory that another language owns, a part
    /// of an archive. They have to be the same bytes every time they are asked for.
    pub fn from_owner(owner: impl AsRef<[u8]> + Send + Sync + 'static) -> Blob {
        Blob(Arc::new(Source::Owned(Box::new(owner))))
    }

    /// The bytes of numbers that the program made.
    pub(super) fn from_f32(floats: Vec<f32>) -> Blob {
        Blob(Arc::new(Source::Floats(floats)))
    }
}

fn regular(path: &Path, metadata: &std::fs::Metadata) -> Result<()> {
    if metadata.is_file() {
        return Ok(());
    }
    let found = if metadata.is_dir() { "a directory" } else { "something else" };
    Err(Error::new(ErrorKind::Io, format!("expected a file, found {found}")).at(path.display()))
}

impl Deref for Blob {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &*self.0 {
            Source::Mapped(map) => map,
            Source::Bytes(bytes) => bytes,
            Source::Floats(floats) => bytemuck::cast_slice(floats),
            Source::Shared(bytes) => bytes,
            Source::Static(bytes) => bytes,
            Source::Owned(owner) => (**owner).as_ref(),
        }
    }
}

impl From<Vec<u8>> for Blob {
    fn from(bytes: Vec<u8>) -> Blob {
        Blob(Arc::new(Source::Bytes(bytes)))
    }
}

impl From<Arc<[u8]>> for Blob {
    fn from(bytes: Arc<[u8]>) -> Blob {
        Blob(Arc::new(Source::Shared(bytes)))
    }
}

impl From<&'static [u8]> for Blob {
    fn from(bytes: &'static [u8]) -> Blob {
        Blob(Arc::new(Source::Static(bytes)))
    }
}

impl std::fmt::Debug for Blob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match &*self.0 {
            Source::Mapped(_) => "mapped",
            Source::Bytes(_) | Source::Floats(_) | Source::Shared(_) => "owned",
            Source::Static(_) => "static",
            Source::Owned(_) => "lent",
        };
        write!(f, "Blob({kind}, {} bytes)", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_source_gives_its_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        std::fs::write(&path, [1, 2, 3]).unwrap();
        let shared: Arc<[u8]> = vec![1, 2, 3].into();
        for blob in [Blob::map(&path).unwrap(), vec![1u8, 2, 3].into(), shared.into(), b"\x01\x02\x03"[..].into()] {
            assert_eq!(&blob[..], [1, 2, 3], "{blob:?}");
            assert_eq!(&blob.clone()[1..], [2, 3]);
        }
        assert_eq!(&Blob::from_f32(vec![1.0])[..], 1.0f32.to_le_bytes());
    }

    #[test]
    fn an_owner_is_dropped_once_with_the_last_clone() {
        struct Owner {
            _alive: Arc<()>,
        }
        impl AsRef<[u8]> for Owner {
            fn as_ref(&self) -> &[u8] {
                &[1, 2, 3]
            }
        }
        let alive = Arc::new(());
        let blob = Blob::from_owner(Owner { _alive: alive.clone() });
        let clone = blob.clone();
        assert!(std::ptr::eq(&blob[..], &clone[..]), "shared, not copied");
        drop(blob);
        assert_eq!((&clone[..], Arc::strong_count(&alive)), (&[1, 2, 3][..], 2));
        drop(clone);
        assert_eq!(Arc::strong_count(&alive), 1);
    }

    #[test]
    fn only_regular_files_are_mapped() {
        let dir = tempfile::tempdir().unwrap();
        let e = Blob::map(dir.path()).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Io);
        assert!(e.to_string().contains("expected a file, found a directory"), "{e}");
        let empty = dir.path().join("empty");
        std::fs::write(&empty, []).unwrap();
        assert!(Blob::map(&empty).unwrap().is_empty());
        let e = Blob::map(&dir.path().join("none")).unwrap_err();
        assert!(e.kind() == ErrorKind::Io && e.to_string().contains("none"), "{e}");
    }
}
