use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use larder::{Description, Entry, Error, ErrorKind, Operation, Result, SetOutcome, Store, wire};
use rusqlite::{Connection, OptionalExtension, params};

/// A table in a file: entries outlive the process.
#[derive(Debug)]
#[must_use = "a store does nothing until it is asked"]
pub struct Sqlite {
    connection: Mutex<Connection>,
}

impl Sqlite {
    /// The table in `file`, made if there is none.
    pub fn open(file: &Path) -> Result<Self> {
        let open = || {
            let connection = Connection::open(file)?;
            connection.busy_timeout(Duration::from_secs(5))?;
            connection.pragma_update(None, "journal_mode", "wal")?;
            connection.pragma_update(None, "synchronous", "normal")?;
            // Keys are bytes: nothing is folded, trimmed or cut at a NUL.
            connection.execute_batch(
                "CREATE TABLE IF NOT EXISTS entries (key BLOB PRIMARY KEY, entry BLOB NOT NULL) WITHOUT ROWID",
            )?;
            Ok(Self { connection: Mutex::new(connection) })
        };
        open().map_err(failed(Operation::Build))
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn failed(operation: Operation) -> impl Fn(rusqlite::Error) -> Error {
    move |error| Error::new(ErrorKind::Unavailable, "sqlite", operation).with_source(error)
}

impl Store for Sqlite {
    type Key = str;
    type Value = Bytes;

    async fn get(&self, key: &str) -> Result<Option<Entry<Bytes>>> {
        let found = self
            .connection()
            .query_row("SELECT entry FROM entries WHERE key = ?1", [key.as_bytes()], |row| row.get(0))
            .optional()
            .map_err(failed(Operation::Get))?;
        found.map(|bytes: Vec<u8>| wire::decode(key.as_bytes(), bytes.into())).transpose()
    }

    async fn set(&self, key: &str, entry: Entry<Bytes>) -> Result<SetOutcome> {
        let bytes = wire::encode(key.as_bytes(), &entry);
        self.connection()
            .execute("INSERT OR REPLACE INTO entries VALUES (?1, ?2)", params![key.as_bytes(), &bytes[..]])
            .map_err(failed(Operation::Set))?;
        Ok(SetOutcome::Stored)
    }

    async fn remove(&self, key: &str) -> Result<()> {
        self.connection()
            .execute("DELETE FROM entries WHERE key = ?1", [key.as_bytes()])
            .map_err(failed(Operation::Remove))?;
        Ok(())
    }

    async fn clear(&self) -> Result<()> {
        self.connection().execute("DELETE FROM entries", []).map_err(failed(Operation::Clear))?;
        Ok(())
    }

    fn len(&self) -> Option<u64> {
        let count = self.connection().query_row("SELECT count(*) FROM entries", [], |row| row.get(0));
        count.ok().map(|count: u32| count.into())
    }

    fn describe(&self) -> Description {
        Description::new("sqlite").holding(self.len(), None)
    }
}
