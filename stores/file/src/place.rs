//! Where the entry of a key lives.

use std::fmt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// How many folders the entries are spread over: one for each first byte of a place.
pub(crate) const LANES: usize = 256;

/// SHA-256 of a key: no two keys are known to share one, and the key in the file would tell if they did.
///
/// The file is `ab/ab…`, 64 hexadecimal digits in the folder of their first two. A name of fixed
/// length and alphabet leaves a key no way to reach another directory or to be too long.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Place([u8; 32]);

impl Place {
    pub(crate) fn of(key: &str) -> Self {
        Self(Sha256::digest(key.as_bytes()).into())
    }

    /// The place that a file of this name in this lane is, if it is named as ours are.
    pub(crate) fn parse(lane: usize, name: &str) -> Option<Self> {
        let mut place = [0; 32];
        let digits = name.as_bytes();
        if digits.len() != 64 {
            return None;
        }
        for (byte, pair) in place.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        (usize::from(place[0]) == lane).then_some(Self(place))
    }

    /// Which folder, and which turn, the place belongs to.
    pub(crate) fn lane(self) -> usize {
        usize::from(self.0[0])
    }

    /// SHA-256 is its own hash function: any eight bytes are spread evenly.
    pub(crate) fn hash(self) -> u64 {
        self.0[1..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
    }

    pub(crate) fn path(self, root: &Path) -> PathBuf {
        let mut path = lane_path(root, self.lane());
        path.push(self.to_string());
        path
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut name = [0; 64];
        for (pair, byte) in name.chunks_exact_mut(2).zip(self.0) {
            pair.copy_from_slice(&hex(byte));
        }
        f.write_str(str::from_utf8(&name).unwrap_or_default())
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The folder of a lane, `00` to `ff`.
pub(crate) fn lane_path(root: &Path, lane: usize) -> PathBuf {
    let name = hex(u8::try_from(lane).unwrap_or_default());
    root.join(str::from_utf8(&name).unwrap_or_default())
}

fn hex(byte: u8) -> [u8; 2] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]
}

/// Upper case is not ours: on a file system that tells case apart it would be a second name.
fn digit(hex: u8) -> Option<u8> {
    match hex {
        b'0'..=b'9' => Some(hex - b'0'),
        b'a'..=b'f' => Some(hex - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_place_is_known_again_by_its_name(key in ".*", lane in 0..LANES) {
            let place = Place::of(&key);
            let name = place.to_string();
            prop_assert_eq!(Place::parse(place.lane(), &name), Some(place));
            prop_assert_eq!(Place::parse(lane, &name), (lane == place.lane()).then_some(place));
            prop_assert_eq!(Place::parse(place.lane(), &name[1..]), None);
            prop_assert_eq!(Place::parse(place.lane(), &format!("{name}0")), None);
        }
    }

    #[test]
    fn a_file_is_named_by_the_sha_256_of_its_key() {
        let empty = "/c/e3/e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Place::of("").path(Path::new("/c")), Path::new(empty));
        assert_eq!(Place::parse(0xE3, &Place::of("").to_string().to_uppercase()), None);
    }
}
