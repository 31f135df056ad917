//! SQLite through `rusqlite`, one table without row ids.

use std::path::PathBuf;
use std::sync::Mutex;

use rusqlite::{CachedStatement, Connection, params};

use super::{Engine, Reader, Setup};
use crate::data::Entry;

const SCHEMA: &str = "CREATE TABLE IF NOT EXISTS entries \
    (key BLOB PRIMARY KEY, metadata BLOB NOT NULL, value BLOB NOT NULL) WITHOUT ROWID";
const GET: &str = "SELECT metadata, value FROM entries WHERE key = ?";
const LIST: &str = "SELECT key, metadata FROM entries WHERE key >= ? ORDER BY key LIMIT ?";
const DELETE: &str = "DELETE FROM entries WHERE key = ?";
const PUT: &str = "INSERT OR REPLACE INTO entries VALUES (?, ?, ?)";

pub(super) struct Sqlite {
    path: PathBuf,
    pragmas: String,
    /// A connection is one thread's at a time.
    idle: Mutex<Vec<Connection>>,
}

impl Engine for Sqlite {
    type Reader<'r> = View<'r>;

    /// Write-ahead log; a commit waits for its flush (`FULL`) only if it is to be durable; a page
    /// cache and a mapping for everything. Statements are compiled once for each connection.
    fn open(setup: &Setup) -> Sqlite {
        let cache = setup.cache();
        let sync = if setup.durable { "FULL" } else { "OFF" };
        let sqlite = Sqlite {
            path: setup.dir.join("bench.sqlite"),
            pragmas: format!(
                "PRAGMA journal_mode = WAL; PRAGMA synchronous = {sync}; \
                 PRAGMA cache_size = -{}; PRAGMA mmap_size = {cache}; PRAGMA busy_timeout = 60000;",
                cache >> 10
            ),
            idle: Mutex::default(),
        };
        sqlite.connected(|connection| connection.execute_batch(SCHEMA).expect("a table"));
        sqlite
    }

    fn read<R>(&self, f: impl FnOnce(&mut View<'_>) -> R) -> R {
        self.connected(|connection| {
            connection.execute_batch("BEGIN").expect("begins");
            let result = f(&mut View {
                get: connection.prepare_cached(GET).expect("compiles"),
                connection,
            });
            connection.execute_batch("COMMIT").expect("commits");
            result
        })
    }

    /// One transaction, as its documentation advises.
    fn load(&mut self, batches: &mut dyn Iterator<Item = Vec<Entry>>) {
        self.connected(|connection| {
            connection.execute_batch("BEGIN IMMEDIATE").expect("begins");
            batches.for_each(|batch| insert(connection, &batch));
            connection.execute_batch("COMMIT").expect("commits");
        });
    }

    fn put(&self, entry: &Entry) {
        self.put_all(std::slice::from_ref(entry));
    }

    fn put_all(&self, entries: &[Entry]) {
        self.connected(|connection| {
            connection.execute_batch("BEGIN IMMEDIATE").expect("begins");
            insert(connection, entries);
            connection.execute_batch("COMMIT").expect("commits");
        });
    }

    fn remove(&self, keys: &[Vec<u8>]) {
        self.connected(|connection| {
            connection.execute_batch("BEGIN IMMEDIATE").expect("begins");
            let mut delete = connection.prepare_cached(DELETE).expect("compiles");
            for key in keys {
                delete.execute([key]).expect("deletes");
            }
            connection.execute_batch("COMMIT").expect("commits");
        });
    }

    /// With `synchronous = OFF` nothing is ever flushed, so the files are flushed from outside.
    fn sync(&self) {
        crate::files::sync(self.path.parent().expect("a directory"));
    }

    fn compact(&mut self) {
        self.connected(|connection| {
            let text = "VACUUM; PRAGMA wal_checkpoint(TRUNCATE);";
            connection.execute_batch(text).expect("compacts");
        });
    }
}

impl Sqlite {
    fn connected<R>(&self, f: impl FnOnce(&Connection) -> R) -> R {
        let idle = self.idle.lock().expect("a lock").pop();
        let connection = idle.unwrap_or_else(|| {
            let connection = Connection::open(&self.path).expect("opens");
            connection.execute_batch(&self.pragmas).expect("settings");
            connection
        });
        let result = f(&connection);
        self.idle.lock().expect("a lock").push(connection);
        result
    }
}

fn insert(connection: &Connection, entries: &[Entry]) {
    let mut put = connection.prepare_cached(PUT).expect("compiles");
    for entry in entries {
        put.execute(params![entry.key, entry.metadata, entry.value])
            .expect("puts");
    }
}

pub(super) struct View<'r> {
    connection: &'r Connection,
    get: CachedStatement<'r>,
}

impl Reader for View<'_> {
    fn get<R>(&mut self, key: &[u8], f: impl FnOnce(&[u8], &[u8]) -> R) -> Option<R> {
        let mut rows = self.get.query([key]).expect("gets");
        let row = rows.next().expect("gets")?;
        let blob = |column| {
            let value = row.get_ref(column).expect("a column");
            value.as_blob().expect("bytes")
        };
        Some(f(blob(0), blob(1)))
    }

    fn list(&mut self, start: &[u8], limit: usize, mut f: impl FnMut(&[u8], &[u8])) {
        let mut list = self.connection.prepare_cached(LIST).expect("compiles");
        let mut rows = list.query(params![start, limit as i64]).expect("seeks");
        while let Some(row) = rows.next().expect("reads") {
            let blob = |column| {
                let value = row.get_ref(column).expect("a column");
                value.as_blob().expect("bytes")
            };
            f(blob(0), blob(1));
        }
    }
}
