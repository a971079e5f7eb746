use super::{DecodeLimits, Picture};
use crate::error::{Error, ErrorKind, Result};
pub(super) fn decode(_: &[u8], _: &DecodeLimits) -> Result<Picture> {
    Err(Error::new(ErrorKind::Unsupported, "not yet"))
}
