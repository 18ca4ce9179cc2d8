//! The byte form of an entry: versioned, checksummed, with its key inside.
//!
//! Stores that keep bytes (files, servers) write this form, and [`guide::wire_format`] states its layout.
//! The key is part of the bytes and is compared on the way back, so that an entry that was moved to
//! another key's place is refused and never served (laws S6, S7). The payload is raw: decoding slices it
//! out of the given [`Bytes`] without a copy.
//!
//! [`guide::wire_format`]: crate::guide::wire_format

use std::ops::Range;
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::entry::{Entry, Lifetime};
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::time::Timestamp;

/// The version of the format that this program writes, and the newest that it reads.
pub const VERSION: u16 = 1;

/// The first byte occurs in no UTF-8 text, so that text is never taken for an entry.
const MAGIC: [u8; 4] = [0xC1, b'l', b'd', b'r'];
const VERSION_AT: usize = 4;
const CHECKSUM_AT: usize = 6;
const INSTANTS_AT: usize = 10;
/// Everything whose place does not depend on the entry.
const FIXED: usize = 42;

/// Where the byte forms of two entries differ whose key, labels and value are the same: the checksum and the
/// four instants, 36 bytes within the first 42.
///
/// A store that knows that it holds the rest can renew an entry by one write of `head(..)[RENEWED]`, and then
/// holds exactly what [`encode`] makes of the new one. A reader who sees half of that write finds that the
/// checksum does not match.
pub const RENEWED: Range<usize> = CHECKSUM_AT..FIXED;

/// The byte form of `entry` under `key`.
///
/// Costs one allocation, a copy of the payload and a pass of crc32c over it (about 40 ns per KiB). A
/// writer that can send two pieces spares the copy with [`head`].
pub fn encode(key: &[u8], entry: &Entry<Bytes>) -> Bytes {
    encode_head(key, entry, entry.value().len(), |out| out.put_slice(entry.value()))
}

/// What stands before the payload in the byte form of `entry` under `key`: this, followed by
/// `entry.value()`, is what [`encode`] returns.
pub fn head(key: &[u8], entry: &Entry<Bytes>) -> Bytes {
    encode_head(key, entry, 0, |_| {})
}

/// How long the byte form of `entry` under `key` is.
pub fn encoded_len(key: &[u8], entry: &Entry<Bytes>) -> u64 {
    head_len(key, entry) as u64 + entry.value().len() as u64
}

/// The entry in `bytes`, which must be all of what [`encode`] made for `key`.
///
/// The value shares the memory of `bytes`. Fails with
/// [`NewerVersion`](ErrorKind::NewerVersion) if a newer version of the format wrote the bytes, and with
/// [`Corrupt`](ErrorKind::Corrupt) if they are anything else than one whole entry of this key: changed,
/// cut, extended, foreign, or another key's. Never panics, and allocates nothing but the version and the
/// tags: at most 64 bytes for each byte of input, and only once the checksum has been found right.
pub fn decode(key: &[u8], mut bytes: Bytes) -> Result<Entry<Bytes>> {
    let header = match Header::peek(&bytes)? {
        Peek::Header(header) => header,
        Peek::Needs(_) => return Err(corrupt("the bytes were cut short")),
    };
    if header.encoded_len() != bytes.len() as u64 {
        return Err(corrupt("the length is not the one that was written"));
    }
    if checksum(&bytes[..header.payload_at], &bytes[header.payload_at..]) != header.checksum {
        return Err(corrupt("the checksum does not match"));
    }
    if header.key != key {
        return Err(corrupt("the bytes belong to another key"));
    }
    let (version, tags) = read_labels(header.labels)?;
    let (lifetime, payload_at) = (header.lifetime, header.payload_at);
    bytes.advance(payload_at);
    let mut entry = Entry::new(bytes, lifetime);
    if let Some(version) = version {
        entry = entry.with_version(version);
    }
    Ok(entry.with_tags(tags))
}

/// What stands in front of the payload, read without it.
///
/// For a store that sweeps, lists or clears and does not want to read its values. Nothing of it is
/// verified by the checksum, which covers the payload too: decide by it what to drop, never what to serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    key: &'a [u8],
    lifetime: Lifetime,
    labels: &'a [u8],
    checksum: u32,
    payload_at: usize,
    payload_len: u64,
}

/// What [`Header::peek`] could tell from the bytes that it was shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peek<'a> {
    /// The header is whole.
    Header(Header<'a>),
    /// At least so many bytes, counted from the start, are needed to go on. The number comes from
    /// the bytes and may be absurd: if there are not so many, the entry was cut short.
    Needs(u64),
}

impl<'a> Header<'a> {
    /// Reads the header from the first bytes of an entry; the rest may be missing or present.
    ///
    /// Fails as [`decode`] does, as far as the header shows it. Allocates nothing.
    pub fn peek(prefix: &'a [u8]) -> Result<Peek<'a>> {
        let known = prefix.len().min(MAGIC.len());
        if prefix[..known] != MAGIC[..known] {
            return Err(corrupt("the bytes are not an entry of larder"));
        }
        let Some(version) = array(prefix, VERSION_AT) else {
            return Ok(Peek::Needs(CHECKSUM_AT as u64));
        };
        match u16::from_le_bytes(version) {
            0 => return Err(corrupt("there is no version 0 of the format")),
            VERSION => {}
            newer => return Err(newer_version(newer)),
        }
        if prefix.len() < FIXED {
            return Ok(Peek::Needs(FIXED as u64));
        }
        let mut rest = &prefix[FIXED..];
        let mut lengths = [0; 3];
        for length in &mut lengths {
            match take_varint(&mut rest)? {
                Some(read) => *length = read,
                None => return Ok(Peek::Needs(prefix.len() as u64 + 1)),
            }
        }
        let [key_len, labels_len, payload_len] = lengths;
        let lengths_end = prefix.len() - rest.len();
        let payload_at = (lengths_end as u64).checked_add(key_len).and_then(|at| at.checked_add(labels_len));
        let payload_at = match payload_at {
            Some(at) if at.checked_add(payload_len).is_some() => at,
            _ => return Err(corrupt("the lengths exceed every address")),
        };
        let (Some(key), Some(labels)) = (take(&mut rest, key_len), take(&mut rest, labels_len)) else {
            return Ok(Peek::Needs(payload_at));
        };
        Ok(Peek::Header(Self {
            key,
            lifetime: read_lifetime(prefix)?,
            labels,
            checksum: u32::from_le_bytes(array(prefix, CHECKSUM_AT).unwrap_or_default()),
            payload_at: prefix.len() - rest.len(),
            payload_len,
        }))
    }

    /// The key that the entry was written for.
    pub const fn key(&self) -> &'a [u8] {
        self.key
    }

    /// The four instants.
    pub const fn lifetime(&self) -> Lifetime {
        self.lifetime
    }

    /// How many bytes the value has.
    pub const fn payload_len(&self) -> u64 {
        self.payload_len
    }

    /// How many bytes the whole entry has, header and payload. A file of another length is corrupt.
    pub const fn encoded_len(&self) -> u64 {
        // `peek` has seen that the sum fits.
        self.payload_at as u64 + self.payload_len
    }
}

fn encode_head(key: &[u8], entry: &Entry<Bytes>, room: usize, more: impl FnOnce(&mut BytesMut)) -> Bytes {
    let labels_len = labels_len(entry);
    let payload = entry.value();
    let head_len = head_len(key, entry);
    let mut out = BytesMut::with_capacity(head_len + room);
    out.put_slice(&MAGIC);
    out.put_u16_le(VERSION);
    out.put_u32_le(0);
    let life = entry.lifetime();
    for instant in [life.created_at(), life.fresh_until(), life.stale_until(), life.keep_until()] {
        out.put_u64_le(instant.as_nanos());
    }
    put_varint(&mut out, key.len());
    put_varint(&mut out, labels_len);
    put_varint(&mut out, payload.len());
    out.put_slice(key);
    if labels_len > 0 {
        out.put_u8(u8::from(entry.version().is_some()));
        for label in entry.version().into_iter().chain(entry.tags()) {
            put_varint(&mut out, label.len());
            out.put_slice(label.as_bytes());
        }
    }
    debug_assert_eq!(out.len(), head_len);
    let checksum = checksum(&out, payload).to_le_bytes();
    out[CHECKSUM_AT..INSTANTS_AT].copy_from_slice(&checksum);
    more(&mut out);
    out.freeze()
}

fn head_len(key: &[u8], entry: &Entry<Bytes>) -> usize {
    let labels_len = labels_len(entry);
    let lengths = varint_len(key.len()) + varint_len(labels_len) + varint_len(entry.value().len());
    FIXED + lengths + key.len() + labels_len
}

/// Most entries have neither version nor tags; they spend no byte on them.
fn labels_len(entry: &Entry<Bytes>) -> usize {
    if entry.version().is_none() && entry.tags().is_empty() {
        return 0;
    }
    let labels = entry.version().into_iter().chain(entry.tags());
    1 + labels.map(|label| varint_len(label.len()) + label.len()).sum::<usize>()
}

type Labels = (Option<Arc<str>>, Vec<Arc<str>>);

fn read_labels(mut rest: &[u8]) -> Result<Labels> {
    if rest.is_empty() {
        return Ok((None, Vec::new()));
    }
    let version = match take(&mut rest, 1) {
        Some([0]) => None,
        Some([1]) => Some(take_label(&mut rest)?),
        _ => return Err(corrupt("the labels are malformed")),
    };
    if version.is_none() && rest.is_empty() {
        return Err(corrupt("the labels are malformed"));
    }
    let mut tags = Vec::new();
    while !rest.is_empty() {
        tags.push(take_label(&mut rest)?);
    }
    Ok((version, tags))
}

fn take_label(rest: &mut &[u8]) -> Result<Arc<str>> {
    let label = match take_varint(rest)? {
        Some(len) => take(rest, len),
        None => None,
    };
    let text = label.and_then(|label| std::str::from_utf8(label).ok());
    text.map(Arc::from).ok_or_else(|| corrupt("the labels are malformed"))
}

/// `prefix` must hold the fixed part.
fn read_lifetime(prefix: &[u8]) -> Result<Lifetime> {
    let instant = |index: usize| {
        let nanos = array(prefix, INSTANTS_AT + 8 * index).unwrap_or_default();
        Timestamp::from_nanos(u64::from_le_bytes(nanos))
    };
    let instants = [instant(0), instant(1), instant(2), instant(3)];
    if !instants.is_sorted() {
        return Err(corrupt("the instants are out of order"));
    }
    let [created_at, fresh_until, stale_until, keep_until] = instants;
    Ok(Lifetime::new(created_at, fresh_until, stale_until, keep_until))
}

/// Over everything but the checksum itself.
fn checksum(head: &[u8], payload: &[u8]) -> u32 {
    let sum = crc32c::crc32c(&head[..CHECKSUM_AT]);
    let sum = crc32c::crc32c_append(sum, &head[INSTANTS_AT..]);
    crc32c::crc32c_append(sum, payload)
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

fn take<'a>(rest: &mut &'a [u8], len: u64) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(usize::try_from(len).ok()?)?;
    *rest = left;
    Some(taken)
}

fn put_varint(out: &mut BytesMut, value: usize) {
    let mut value = value as u64;
    while value > 0x7F {
        // The mask leaves what fits a byte.
        out.put_u8(u8::try_from(value & 0x7F).unwrap_or_default() | 0x80);
        value >>= 7;
    }
    out.put_u8(u8::try_from(value).unwrap_or_default());
}

fn varint_len(value: usize) -> usize {
    (usize::BITS - (value | 1).leading_zeros()).div_ceil(7) as usize
}

/// `None` if `rest` ends within the number. A number has one form, the shortest: otherwise an entry
/// would have several.
fn take_varint(rest: &mut &[u8]) -> Result<Option<u64>> {
    let mut value = 0;
    for index in 0..10 {
        let Some((&byte, left)) = rest.split_first() else {
            return Ok(None);
        };
        *rest = left;
        value |= u64::from(byte & 0x7F) << (7 * index);
        let overlong = byte == 0 && index > 0;
        if overlong || (index == 9 && byte > 1) {
            break;
        }
        if byte & 0x80 == 0 {
            return Ok(Some(value));
        }
    }
    Err(corrupt("a length is malformed"))
}

fn corrupt(message: &'static str) -> Error {
    Error::new(ErrorKind::Corrupt, "wire", Operation::Get).with_message(message)
}

fn newer_version(version: u16) -> Error {
    Error::new(ErrorKind::NewerVersion, "wire", Operation::Get)
        .with_message(format!("format version {version}; this program reads up to {VERSION}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proptest::sample::Index;

    fn instant() -> impl Strategy<Value = Timestamp> {
        prop_oneof![
            Just(Timestamp::EPOCH),
            Just(Timestamp::MAX),
            any::<u64>().prop_map(Timestamp::from_nanos),
        ]
    }

    fn label() -> impl Strategy<Value = String> {
        prop_oneof![Just(String::new()), ".{0,8}", Just("x".repeat(200))]
    }

    prop_compose! {
        fn entry()(
            value in prop::collection::vec(any::<u8>(), 0..300),
            instants in [instant(), instant(), instant(), instant()],
            version in prop::option::of(label()),
            tags in prop::collection::vec(label(), 0..4),
        ) -> Entry<Bytes> {
            let [created_at, fresh_until, stale_until, keep_until] = instants;
            let life = Lifetime::new(created_at, fresh_until, stale_until, keep_until);
            let mut entry = Entry::new(Bytes::from(value), life).with_tags(tags);
            if let Some(version) = version {
                entry = entry.with_version(version);
            }
            entry
        }
    }

    fn key() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(any::<u8>(), 0..200)
    }

    fn kind(key: &[u8], bytes: impl Into<Bytes>) -> ErrorKind {
        decode(key, bytes.into()).expect_err("these bytes are no entry").kind()
    }

    /// Makes altered bytes pass the checksum, to test what comes behind it.
    fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
        let sum = checksum(&bytes, &[]).to_le_bytes();
        bytes[CHECKSUM_AT..INSTANTS_AT].copy_from_slice(&sum);
        bytes
    }

    proptest! {
        #[test]
        fn s1_decode_returns_what_was_encoded(key in key(), entry in entry()) {
            let bytes = encode(&key, &entry);
            prop_assert_eq!(bytes.len() as u64, encoded_len(&key, &entry));
            prop_assert_eq!([&head(&key, &entry)[..], entry.value()].concat(), bytes.to_vec());
            let decoded = decode(&key, bytes.clone()).unwrap();
            prop_assert_eq!(&decoded, &entry);
            if !decoded.value().is_empty() {
                prop_assert!(bytes.as_ptr_range().contains(&decoded.value().as_ptr()), "the value is no copy");
            }
        }

        /// S13: what a renewal has to write, and all of it.
        #[test]
        fn another_lifetime_changes_only_what_is_renewed(key in key(), entry in entry(), other in entry()) {
            let renewed = entry.clone().with_lifetime(other.lifetime());
            let (mut bytes, head) = (encode(&key, &entry).to_vec(), head(&key, &renewed));
            bytes[RENEWED].copy_from_slice(&head[RENEWED]);
            prop_assert_eq!(bytes, encode(&key, &renewed).to_vec());
        }

        #[test]
        fn a_header_reads_without_the_payload(key in key(), entry in entry(), cut: Index) {
            let bytes = encode(&key, &entry);
            let head_len = bytes.len() - entry.value().len();
            let prefix = &bytes[..cut.index(bytes.len() + 1)];
            match Header::peek(prefix).unwrap() {
                Peek::Header(header) => {
                    prop_assert!(prefix.len() >= head_len);
                    prop_assert_eq!(header.key(), &key);
                    prop_assert_eq!(header.lifetime(), entry.lifetime());
                    prop_assert_eq!(header.payload_len(), entry.value().len() as u64);
                    prop_assert_eq!(header.encoded_len(), bytes.len() as u64);
                }
                Peek::Needs(needs) => {
                    prop_assert!(prefix.len() < head_len);
                    prop_assert!(needs > prefix.len() as u64 && needs <= head_len as u64);
                }
            }
        }

        #[test]
        fn s7_a_flipped_bit_is_an_error(key in key(), entry in entry(), bit: Index) {
            let mut bytes = encode(&key, &entry).to_vec();
            let bit = bit.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(matches!(kind(&key, bytes), ErrorKind::Corrupt | ErrorKind::NewerVersion));
        }

        #[test]
        fn s7_cut_and_extended_bytes_are_corrupt(
            key in key(),
            entry in entry(),
            cut: Index,
            more in prop::collection::vec(any::<u8>(), 1..20),
        ) {
            let bytes = encode(&key, &entry);
            prop_assert_eq!(kind(&key, bytes.slice(..cut.index(bytes.len()))), ErrorKind::Corrupt);
            let extended = [&bytes[..], &more].concat();
            prop_assert_eq!(kind(&key, sealed(extended.clone())), ErrorKind::Corrupt);
            prop_assert_eq!(kind(&key, extended), ErrorKind::Corrupt);
        }

        #[test]
        fn s6_bytes_of_another_key_are_corrupt(key in key(), other in key(), entry in entry()) {
            prop_assume!(key != other);
            prop_assert_eq!(kind(&other, encode(&key, &entry)), ErrorKind::Corrupt);
        }

        #[test]
        fn arbitrary_bytes_never_panic(
            mut bytes in prop::collection::vec(any::<u8>(), 0..200),
            dressed: bool,
            lengths in prop::collection::vec(0u8..8, 0..12),
        ) {
            if dressed && bytes.len() >= FIXED {
                bytes[..4].copy_from_slice(&MAGIC);
                bytes[VERSION_AT..CHECKSUM_AT].copy_from_slice(&VERSION.to_le_bytes());
                bytes[INSTANTS_AT..FIXED].fill(7);
                let plausible = lengths.len().min(bytes.len() - FIXED);
                bytes[FIXED..FIXED + plausible].copy_from_slice(&lengths[..plausible]);
                bytes = sealed(bytes);
            }
            if let Ok(Peek::Header(header)) = Header::peek(&bytes) {
                let key = header.key().to_vec();
                // What decodes has only one form.
                if let Ok(entry) = decode(&key, bytes.clone().into()) {
                    prop_assert_eq!(encode(&key, &entry), bytes);
                }
            } else {
                prop_assert!(decode(b"", bytes.into()).is_err());
            }
        }

        #[test]
        fn a_newer_version_is_told_from_damage(key in key(), entry in entry(), newer in VERSION + 1..) {
            let mut bytes = encode(&key, &entry).to_vec();
            bytes[VERSION_AT..CHECKSUM_AT].copy_from_slice(&newer.to_le_bytes());
            prop_assert_eq!(kind(&key, bytes.clone()), ErrorKind::NewerVersion);
            prop_assert_eq!(kind(&key, bytes[..CHECKSUM_AT].to_vec()), ErrorKind::NewerVersion);
        }
    }

    #[test]
    fn lengths_beyond_memory_are_refused_without_allocating() {
        for lengths in [[u64::MAX, 0, 0], [0, u64::MAX, 0], [0, 0, u64::MAX], [1 << 62, 1 << 62, 1 << 62]] {
            let mut bytes = encode(b"", &Entry::new(Bytes::new(), Lifetime::forever(Timestamp::EPOCH)));
            let mut crafted = BytesMut::from(&bytes.split_to(FIXED)[..]);
            for length in lengths {
                put_varint(&mut crafted, usize::try_from(length).unwrap());
            }
            assert_eq!(kind(b"", sealed(crafted.to_vec())), ErrorKind::Corrupt);
        }
    }

    /// Byte forms that could be read if one were lenient: then an entry would have several.
    #[test]
    fn an_entry_has_one_form() {
        let plain = encode(b"k", &Entry::new(Bytes::new(), Lifetime::forever(Timestamp::EPOCH)));
        let overlong_length: &[u8] = &[0x81, 0, 0, 0, b'k'];
        let length_past_64_bits = &[1, 0, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 2, b'k'];
        let labels_of_none = &[1, 1, 0, b'k', 0];
        let unknown_label_mark = &[1, 2, 0, b'k', 2, 0];
        let label_cut_short = &[1, 3, 0, b'k', 0, 2, b'a'];
        let label_not_utf8 = &[1, 3, 0, b'k', 0, 1, 0xFF];
        for tail in [
            overlong_length,
            length_past_64_bits,
            labels_of_none,
            unknown_label_mark,
            label_cut_short,
            label_not_utf8,
        ] {
            let bytes = sealed([&plain[..FIXED], tail].concat());
            assert_eq!(kind(b"k", bytes), ErrorKind::Corrupt, "{tail:?}");
        }
        assert!(
            decode(b"k", sealed([&plain[..FIXED], &[1, 3, 0, b'k', 0, 1, b'a']].concat()).into()).is_ok()
        );
    }

    #[test]
    fn instants_out_of_order_are_corrupt_and_not_repaired() {
        let entry = Entry::new(Bytes::new(), Lifetime::forever(Timestamp::EPOCH));
        let mut bytes = encode(b"k", &entry).to_vec();
        bytes[INSTANTS_AT..INSTANTS_AT + 8].fill(0xFF);
        bytes[INSTANTS_AT + 8] = 0;
        assert_eq!(kind(b"k", sealed(bytes)), ErrorKind::Corrupt);
    }

    /// The files are never rewritten: they are what earlier programs left on people's disks. A new
    /// version of the format adds files, and the old ones stay readable.
    fn golden() -> [(&'static [u8], Entry<Bytes>, &'static [u8]); 4] {
        let at = |second: u64| Timestamp::from_nanos(1_700_000_000_123_456_789 + second * 1_000_000_000);
        let forever = Lifetime::forever(Timestamp::EPOCH);
        [
            (b"", Entry::new(Bytes::new(), forever), include_bytes!("wire/golden/v1-empty.bin")),
            (
                b"users:42",
                Entry::new(
                    Bytes::from_static(b"{\"name\":\"Ada\"}"),
                    Lifetime::new(at(0), at(60), at(360), at(3_600)),
                ),
                include_bytes!("wire/golden/v1-plain.bin"),
            ),
            (
                b"\0../\xFF",
                Entry::new(
                    Bytes::from((0..=255).collect::<Vec<u8>>()),
                    Lifetime::new(at(1), at(1), at(2), at(2)),
                )
                .with_version("W/\"5-é\"")
                .with_tags(["team:7", "", "team:7", "🦀"]),
                include_bytes!("wire/golden/v1-labels.bin"),
            ),
            (
                "long keys are whole: ".as_bytes(),
                Entry::new(Bytes::from(vec![0xA5; 20_000]), forever).with_tags(["t".repeat(200)]),
                include_bytes!("wire/golden/v1-long.bin"),
            ),
        ]
    }

    #[test]
    fn golden_files_are_written_and_read_today_as_ever() {
        for (key, entry, bytes) in golden() {
            assert_eq!(encode(key, &entry), bytes, "of key {:?}", String::from_utf8_lossy(key));
            assert_eq!(decode(key, Bytes::from_static(bytes)).unwrap(), entry);
        }
    }

    #[test]
    fn s7_no_flip_and_no_cut_of_a_golden_file_goes_unseen() {
        for (key, _, bytes) in golden().into_iter().take(3) {
            for bit in 0..bytes.len() * 8 {
                let mut flipped = bytes.to_vec();
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert!(decode(key, flipped.into()).is_err(), "bit {bit}");
            }
            for len in 0..bytes.len() {
                assert_eq!(kind(key, &bytes[..len]), ErrorKind::Corrupt, "cut to {len}");
            }
        }
    }
}
