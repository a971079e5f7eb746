//! Turning and mirroring packed RGB, for the orientations of EXIF and of HEIF's `irot` and `imir`.

/// The eight ways a camera can have been held, by what puts the stored picture upright: transpose first if asked for,
/// then mirror columns, then mirror rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Orientation {
    /// Rows become columns.
    pub transpose: bool,
    /// Left becomes right, after the transpose.
    pub mirror_x: bool,
    /// Top becomes bottom, after the transpose.
    pub mirror_y: bool,
}

impl Orientation {
    /// From the value of EXIF's tag 0x0112; anything but 2 to 8 leaves the picture as it is, as viewers do.
    pub fn from_exif(value: u8) -> Self {
        let (transpose, mirror_x, mirror_y) = match value {
            2 => (false, true, false),
            3 => (false, true, true),
            4 => (false, false, true),
            5 => (true, false, false),
            6 => (true, true, false),
            7 => (true, true, true),
            8 => (true, false, true),
            _ => (false, false, false),
        };
        Self { transpose, mirror_x, mirror_y }
    }

    /// From HEIF's properties: `turns` quarter turns anticlockwise (`irot`), then a mirror (`imir`), whose axis 0
    /// exchanges top and bottom and 1 left and right.
    #[cfg(feature = "avif")]
    pub fn from_heif(turns: u8, mirror: Option<u8>) -> Self {
        let (transpose, mut mirror_x, mut mirror_y) = match turns & 3 {
            1 => (true, false, true),
            2 => (false, true, true),
            3 => (true, true, false),
            _ => (false, false, false),
        };
        match mirror {
            Some(0) => mirror_y = !mirror_y,
            Some(_) => mirror_x = !mirror_x,
            None => {}
        }
        Self { transpose, mirror_x, mirror_y }
    }

    /// Puts `pixels`, packed RGB of `width * height`, upright; returns the new pixels, width and height.
    pub fn apply(self, mut pixels: Vec<u8>, width: usize, height: usize) -> (Vec<u8>, usize, usize) {
        debug_assert_eq!(pixels.len(), width * height * 3);
        if !self.transpose {
            let px = pixels.as_chunks_mut::<3>().0;
            match (self.mirror_x, self.mirror_y) {
                (false, false) => {}
                (true, true) => px.reverse(),
                (true, false) => px.chunks_exact_mut(width).for_each(<[_]>::reverse),
                (false, true) => {
                    for y in 0..height / 2 {
                        let (top, bottom) = px.split_at_mut((height - 1 - y) * width);
                        top[y * width..][..width].swap_with_slice(&mut bottom[..width]);
                    }
                }
            }
            return (pixels, width, height);
        }
        let src = pixels.as_chunks::<3>().0;
        let mut out = Vec::with_capacity(pixels.len());
        // Output rows are input columns.
        for y in 0..width {
            let column = if self.mirror_y { width - 1 - y } else { y };
            for x in 0..height {
                let row = if self.mirror_x { height - 1 - x } else { x };
                out.extend_from_slice(&src[row * width + column]);
            }
        }
        (out, height, width)
    }
}
