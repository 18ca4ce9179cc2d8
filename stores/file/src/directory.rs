//! The directory: its layout, and every call to the operating system.
//!
//! ```text
//! larder-format          which layout this is, and its version
//! 00/ … ff/              entries, by the first byte of their place
//! larder-tmp/gate        held while a process comes in and sweeps
//! larder-tmp/7-0.lock    held by process 7 as long as it lives
//! larder-tmp/7-0.12.tmp  an entry that process 7 is writing
//! ```

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::UNIX_EPOCH;

use bytes::Bytes;
use larder::wire::{Header, Peek, RENEWED};
use larder::{Error, ErrorKind, Operation, Result};

use crate::FileStats;
use crate::builder::Durability;
use crate::error::{LAYER, trouble, unreadable};
use crate::index::{Keep, Known};
use crate::place::{LANES, Place, lane_path};

const MARKER: &str = "larder-format";
const MARKER_NAME: &str = "larder-file";
const LAYOUT_VERSION: u64 = 1;
const TEMP: &str = "larder-tmp";
/// Entries up to this size are read at one go; of larger ones the header is looked at first, so that
/// a foreign file of any size is not taken into memory.
const FIRST_READ: usize = 64 * 1024;
const HEADER_READ: usize = 4 * 1024;

#[derive(Debug)]
pub(crate) struct Directory {
    root: PathBuf,
    temp: PathBuf,
    durability: Durability,
    /// Names this opening of the directory: no other that is alive has the same.
    token: String,
    written: AtomicU64,
    counts: Counts,
    /// Locked as long as this exists; the system lets go when the process ends, however it ends.
    _alive: File,
}

#[derive(Debug, Default)]
struct Counts {
    bytes_written: AtomicU64,
    renewals: AtomicU64,
}

/// A file that is being written; deleted if it does not become an entry.
#[derive(Debug)]
pub(crate) struct Temporary {
    path: PathBuf,
    bytes: u64,
    renamed: bool,
}

impl Directory {
    pub(crate) fn open(root: &Path, durability: Durability) -> Result<Self> {
        let root = prepare(root)?;
        check_marker(&root)?;
        let temp = root.join(TEMP);
        let build = |path: &Path| {
            let path = path.to_owned();
            move |error| trouble(Operation::Build, &path, error)
        };
        fs::create_dir_all(&temp).map_err(build(&temp))?;
        let gate_path = temp.join("gate");
        let gate = File::options().create(true).append(true).open(&gate_path).map_err(build(&gate_path))?;
        // Nobody comes in while another sweeps: else a lock file that was made and is not yet locked
        // would look like that of a dead process.
        gate.lock().map_err(build(&gate_path))?;
        sweep(&temp).map_err(build(&temp))?;
        let (token, alive) = come_in(&temp).map_err(build(&temp))?;
        let directory = Self {
            root,
            temp,
            durability,
            token,
            written: AtomicU64::new(0),
            counts: Counts::default(),
            _alive: alive,
        };
        directory.mark()?;
        Ok(directory)
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) const fn durability(&self) -> Durability {
        self.durability
    }

    pub(crate) fn stats(&self) -> FileStats {
        FileStats {
            bytes_written: self.counts.bytes_written.load(Ordering::Relaxed),
            renewals: self.counts.renewals.load(Ordering::Relaxed),
        }
    }

    pub(crate) fn path(&self, place: Place) -> PathBuf {
        place.path(&self.root)
    }

    /// Every file that is named as entries are, the one written first in front.
    pub(crate) fn scan(&self) -> Result<Vec<Known>> {
        let mut found = Vec::new();
        for lane in 0..LANES {
            self.list(lane, Operation::Build, |place, item| {
                // One that vanished in between went to another process.
                if let Some(metadata) = item.metadata().ok().filter(fs::Metadata::is_file) {
                    let written = metadata.modified().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
                    let known = Known { place, bytes: metadata.len(), keep: Keep::UNKNOWN };
                    found.push((written.unwrap_or_default(), known));
                }
            })?;
        }
        found.sort_unstable_by_key(|(written, _)| *written);
        Ok(found.into_iter().map(|(_, known)| known).collect())
    }

    /// The places of one lane, in no order. Files with other names are not ours and are left alone.
    pub(crate) fn places(&self, lane: usize, operation: Operation) -> Result<Vec<Place>> {
        let mut places = Vec::new();
        self.list(lane, operation, |place, _| places.push(place))?;
        Ok(places)
    }

    fn list(
        &self,
        lane: usize,
        operation: Operation,
        mut each: impl FnMut(Place, fs::DirEntry),
    ) -> Result<()> {
        let path = lane_path(&self.root, lane);
        let listing = match fs::read_dir(&path) {
            Ok(listing) => listing,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            // A foreign file that is named like a lane. One in the place of the directory is trouble: whatever
            // is held is where nobody can look.
            Err(error) if error.kind() == io::ErrorKind::NotADirectory && self.root.is_dir() => return Ok(()),
            Err(error) => return Err(trouble(operation, &path, error)),
        };
        for item in listing {
            let item = item.map_err(|error| trouble(operation, &path, error))?;
            if let Some(place) = item.file_name().to_str().and_then(|name| Place::parse(lane, name)) {
                each(place, item);
            }
        }
        Ok(())
    }

    /// How long the file of `place` is, if there is one.
    pub(crate) fn size(&self, place: Place) -> Option<u64> {
        let metadata = fs::metadata(self.path(place)).ok()?;
        metadata.is_file().then_some(metadata.len())
    }

    /// The bytes of `place`, or `None` if there is no file.
    pub(crate) fn read(&self, place: Place) -> Result<Option<Bytes>> {
        let path = self.path(place);
        let Some((mut file, len)) = open(&path, Operation::Get)? else {
            return Ok(None);
        };
        let mut bytes = Vec::new();
        let read = |file: &mut File, bytes: &mut Vec<u8>, upto: usize| {
            read_to(file, bytes, upto).map_err(|error| trouble(Operation::Get, &path, error))
        };
        let whole = usize::try_from(len).map_err(|_| {
            unreadable(Operation::Get, &path, ErrorKind::Corrupt, "the file exceeds every address")
        })?;
        if whole > FIRST_READ {
            let mut upto = HEADER_READ;
            loop {
                read(&mut file, &mut bytes, upto)?;
                match peek(&path, &bytes)? {
                    Peek::Header(header) if header.encoded_len() == len => break,
                    Peek::Needs(needs) if needs <= len => upto = usize::try_from(needs).unwrap_or(whole),
                    _ => {
                        return Err(unreadable(
                            Operation::Get,
                            &path,
                            ErrorKind::Corrupt,
                            "the length is not the one written",
                        ));
                    }
                }
            }
        }
        read(&mut file, &mut bytes, whole)?;
        Ok(Some(bytes.into()))
    }

    /// The key inside the file of `place`, read without the value. `None` if there is no file, or one
    /// that is corrupt and will therefore never be served.
    pub(crate) fn key(&self, place: Place, operation: Operation) -> Result<Option<Vec<u8>>> {
        let path = self.path(place);
        let Some((mut file, len)) = open(&path, operation)? else {
            return Ok(None);
        };
        let mut bytes = Vec::new();
        let mut upto = HEADER_READ;
        loop {
            read_to(&mut file, &mut bytes, upto).map_err(|error| trouble(operation, &path, error))?;
            match Header::peek(&bytes) {
                Ok(Peek::Header(header)) => return Ok(Some(header.key().to_vec())),
                Ok(Peek::Needs(needs)) if needs <= len => match usize::try_from(needs) {
                    Ok(needs) => upto = needs,
                    Err(_) => return Ok(None),
                },
                Err(error) if error.kind() == ErrorKind::NewerVersion => {
                    return Err(unreadable(
                        operation,
                        &path,
                        ErrorKind::NewerVersion,
                        "who knows its key is a newer program",
                    ));
                }
                _ => return Ok(None),
            }
        }
    }

    /// Writes `parts` into a temporary file, as durably as asked for.
    pub(crate) fn write(&self, parts: [&[u8]; 2]) -> Result<Temporary> {
        let number = self.written.fetch_add(1, Ordering::Relaxed);
        let path = self.temp.join(format!("{}.{number}.tmp", self.token));
        let fail = |error| trouble(Operation::Set, &path, error);
        let create = || File::options().write(true).create_new(true).open(&path);
        let mut file = match create() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // Somebody cleaned up behind our back.
                fs::create_dir_all(&self.temp).and_then(|()| create())
            }
            other => other,
        }
        .map_err(fail)?;
        let bytes = parts.iter().map(|part| part.len() as u64).sum();
        let temporary = Temporary { path: path.clone(), bytes, renamed: false };
        for part in parts {
            file.write_all(part).map_err(fail)?;
        }
        if self.durability != Durability::None {
            file.sync_data().map_err(fail)?;
        }
        Ok(temporary)
    }

    /// Makes the file of `place` hold `head` and `value` by writing a new lifetime into it, if that is all in
    /// which it differs. Else, and where it cannot be written in place, it is left as it is: `false`.
    ///
    /// The file is compared and written through one handle. What another process puts under its name
    /// meanwhile is another file, and what others write into this one is no more than a lifetime either. So
    /// whoever writes last, the file is one entry from end to end; and because it is written by a single call,
    /// within a page and within a sector, neither a kill nor a power cut leaves half of it. Only a reader in
    /// another process may see half, for as long as the call takes.
    pub(crate) fn renew(&self, place: Place, head: &[u8], value: &[u8]) -> bool {
        let renewed = self.try_renew(&self.path(place), head, value).unwrap_or(false);
        self.counts.renewals.fetch_add(u64::from(renewed), Ordering::Relaxed);
        renewed
    }

    fn try_renew(&self, path: &Path, head: &[u8], value: &[u8]) -> io::Result<bool> {
        let len = (head.len() + value.len()) as u64;
        if !fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.len() == len) {
            return Ok(false);
        }
        let mut file = File::options().read(true).write(true).open(path)?;
        let mut stored = vec![0; head.len()];
        file.read_exact(&mut stored)?;
        if stored[..RENEWED.start] != head[..RENEWED.start]
            || stored[RENEWED.end..] != head[RENEWED.end..]
            || !goes_on_with(&mut file, value)?
            || file.metadata()?.len() != len
        {
            return Ok(false);
        }
        file.seek(SeekFrom::Start(RENEWED.start as u64))?;
        file.write_all(&head[RENEWED])?;
        self.counts.bytes_written.fetch_add(RENEWED.len() as u64, Ordering::Relaxed);
        if self.durability != Durability::None {
            file.sync_data()?;
        }
        Ok(true)
    }

    /// Makes `temporary` the entry of `place`: all of it or nothing, whenever the process dies.
    pub(crate) fn publish(&self, temporary: Temporary, place: Place) -> Result<()> {
        let path = self.path(place);
        let fail = |error| trouble(Operation::Set, &path, error);
        self.counts.bytes_written.fetch_add(temporary.bytes, Ordering::Relaxed);
        match temporary.rename(&path) {
            Err((temporary, error)) if error.kind() == io::ErrorKind::NotFound => {
                let lane = lane_path(&self.root, place.lane());
                fs::create_dir_all(&lane).map_err(fail)?;
                if self.durability == Durability::Full {
                    sync_directory(&self.root).map_err(fail)?;
                }
                temporary.rename(&path).map_err(|(_, error)| fail(error))
            }
            Err((_, error)) => Err(fail(error)),
            Ok(()) => Ok(()),
        }
    }

    /// Deletes the file of `place`; succeeds when there is none.
    pub(crate) fn delete(&self, place: Place, operation: Operation) -> Result<()> {
        let path = self.path(place);
        delete(&path).map_err(|error| trouble(operation, &path, error))
    }

    /// Makes what was renamed and deleted in the lane outlive a power cut, if asked for.
    pub(crate) fn settle(&self, lane: usize, operation: Operation) -> Result<()> {
        if self.durability != Durability::Full {
            return Ok(());
        }
        let path = lane_path(&self.root, lane);
        match sync_directory(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(trouble(operation, &path, error)),
            _ => Ok(()),
        }
    }

    /// Writes the marker if there is none.
    fn mark(&self) -> Result<()> {
        let path = self.root.join(MARKER);
        if path.exists() {
            // It may have come while we stood at the gate.
            return check_marker(&self.root);
        }
        let marker = format!("{MARKER_NAME} {LAYOUT_VERSION}\n");
        let temporary = self.write([marker.as_bytes(), &[]])?;
        // An empty marker after a power cut would lock people out: this one is always durable.
        File::open(&temporary.path)
            .and_then(|file| file.sync_all())
            .and_then(|()| temporary.rename(&path).map_err(|(_, error)| error))
            .and_then(|()| sync_directory(&self.root))
            .map_err(|error| trouble(Operation::Build, &path, error))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // Whoever comes next would sweep it anyway.
        let _ = fs::remove_file(self.temp.join(format!("{}.lock", self.token)));
    }
}

impl Temporary {
    fn rename(mut self, to: &Path) -> std::result::Result<(), (Self, io::Error)> {
        match fs::rename(&self.path, to) {
            Ok(()) => {
                self.renamed = true;
                Ok(())
            }
            Err(error) => Err((self, error)),
        }
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.renamed {
            // Else it is swept when this process has ended.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The absolute path of the directory, which exists afterwards.
fn prepare(root: &Path) -> Result<PathBuf> {
    if root.as_os_str().is_empty() {
        return Err(Error::invalid(LAYER, "dir: the path is empty; give a directory"));
    }
    let root = std::path::absolute(root).map_err(|error| trouble(Operation::Build, root, error))?;
    let not_a_directory = |path: &Path| {
        let remedy = "is not a directory; give another path, or move it out of the way";
        Error::invalid(LAYER, format!("dir: {} {remedy}", path.display()))
    };
    match fs::metadata(&root) {
        Ok(metadata) if metadata.is_dir() => Ok(root),
        Ok(_) => Err(not_a_directory(&root)),
        Err(_) => match fs::create_dir_all(&root) {
            Ok(()) => Ok(root),
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                Err(not_a_directory(root.ancestors().find(|path| path.is_file()).unwrap_or(&root)))
            }
            Err(error) => Err(trouble(Operation::Build, &root, error)),
        },
    }
}

/// Whether the directory is ours to use, before anything in it is touched.
fn check_marker(root: &Path) -> Result<()> {
    let path = root.join(MARKER);
    let mut text = Vec::new();
    match File::open(&path).and_then(|file| file.take(64).read_to_end(&mut text)) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(trouble(Operation::Build, &path, error)),
    }
    let version = str::from_utf8(&text)
        .ok()
        .and_then(|text| text.strip_prefix(MARKER_NAME)?.split_whitespace().next()?.parse::<u64>().ok());
    let (kind, reason) = match version {
        Some(1..=LAYOUT_VERSION) => return Ok(()),
        Some(newer) if newer > LAYOUT_VERSION => (
            ErrorKind::NewerVersion,
            format!(
                "layout {newer}, this program knows {LAYOUT_VERSION}; upgrade it, or give another directory"
            ),
        ),
        _ => (
            ErrorKind::Corrupt,
            "does not name a layout; give another directory, or delete this file if the directory is a cache"
                .into(),
        ),
    };
    let message = format!("{}: {reason}", path.display());
    Err(Error::new(kind, LAYER, Operation::Build).with_message(message))
}

/// Deletes what dead processes left. Whoever is alive holds the lock on its file. Only inside the gate.
fn sweep(temp: &Path) -> io::Result<()> {
    let mut temporaries = Vec::new();
    let mut living = Vec::new();
    for item in fs::read_dir(temp)? {
        let name = item?.file_name();
        let Some(name) = name.to_str() else { continue };
        if let Some(token) = owner_of_temporary(name) {
            temporaries.push((token.to_owned(), name.to_owned()));
        } else if let Some(token) = name.strip_suffix(".lock").filter(|token| is_token(token)) {
            let path = temp.join(name);
            match File::open(&path).and_then(|file| Ok(file.try_lock()?)) {
                Ok(()) => delete(&path)?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                // Alive, or another user's: leave it.
                Err(_) => living.push(token.to_owned()),
            }
        }
    }
    for (token, name) in temporaries {
        if !living.contains(&token) {
            delete(&temp.join(name))?;
        }
    }
    Ok(())
}

/// A token that no living process has, nor any file that was not swept, and the locked file that says so. Only inside the gate.
fn come_in(temp: &Path) -> io::Result<(String, File)> {
    let process = std::process::id();
    let mut number = 0u64;
    loop {
        let token = format!("{process}-{number}");
        let path = temp.join(format!("{token}.lock"));
        match File::create_new(&path) {
            Ok(_) => {
                // Held open for reading only, so that nobody is kept from mounting the disk read-only.
                let file = File::open(&path)?;
                file.lock()?;
                return Ok((token, file));
            }
            // An earlier opening by this process, or one with its number long ago.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
            Err(error) => return Err(error),
        }
    }
}

/// `7-0` of `7-0.12.tmp`.
fn owner_of_temporary(name: &str) -> Option<&str> {
    let (token, number) = name.strip_suffix(".tmp")?.split_once('.')?;
    (is_token(token) && is_number(number)).then_some(token)
}

fn is_token(text: &str) -> bool {
    text.split_once('-').is_some_and(|(process, number)| is_number(process) && is_number(number))
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// The file and its length, or `None` if there is none.
fn open(path: &Path, operation: Operation) -> Result<Option<(File, u64)>> {
    // Asked before opening: to open a named pipe would wait for whoever writes to it.
    let opened = fs::metadata(path).and_then(|metadata| {
        if !metadata.is_file() {
            return Err(io::Error::new(io::ErrorKind::IsADirectory, "not a regular file"));
        }
        let file = File::open(path)?;
        let len = file.metadata()?.len();
        Ok((file, len))
    });
    match opened {
        Ok(opened) => Ok(Some(opened)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(trouble(operation, path, error)),
    }
}

/// Succeeds when there is none.
fn delete(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Whether the next bytes of the file are these.
fn goes_on_with(file: &mut File, expected: &[u8]) -> io::Result<bool> {
    let mut bytes = vec![0; expected.len().min(FIRST_READ)];
    for part in expected.chunks(FIRST_READ) {
        let bytes = &mut bytes[..part.len()];
        file.read_exact(bytes)?;
        if bytes != part {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Reads on until `bytes` holds `upto`, or the file ends.
fn read_to(file: &mut File, bytes: &mut Vec<u8>, upto: usize) -> io::Result<()> {
    let missing = upto.saturating_sub(bytes.len());
    bytes.try_reserve_exact(missing).map_err(|_| io::ErrorKind::OutOfMemory)?;
    file.take(missing as u64).read_to_end(bytes)?;
    Ok(())
}

fn peek<'a>(path: &Path, bytes: &'a [u8]) -> Result<Peek<'a>> {
    Header::peek(bytes).map_err(|error| unreadable(Operation::Get, path, error.kind(), &error.to_string()))
}

#[cfg(unix)]
fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Elsewhere a directory cannot be opened, and the system writes its journal as it sees fit.
#[cfg(not(unix))]
fn sync_directory(_: &Path) -> io::Result<()> {
    Ok(())
}
