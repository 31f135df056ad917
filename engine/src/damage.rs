use std::fmt;
use std::path::{Path, PathBuf};

use crate::error::Error;

/// A place where stored bytes are not what was written.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Damage {
    /// The damaged file.
    pub path: PathBuf,
    /// Where in it the damage was found, in bytes.
    pub offset: u64,
    /// How many bytes are damaged, if that is known.
    pub len: Option<u64>,
    /// How many records of the log are lost by it, if that is known: also such as were overwritten since, and
    /// those that only say that the store was closed.
    pub records: Option<u64>,
    /// What did not fit.
    pub reason: &'static str,
    /// What is lost by it.
    pub loss: Loss,
    /// The name of the namespace and the key of the record that is damaged, where they can still be read.
    pub key: Option<(String, Vec<u8>)>,
}

/// What damage takes away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Loss {
    /// Nothing: what is damaged is made anew from the log.
    Nothing,
    /// What was overwritten, deleted or given up before.
    Dead,
    /// The newest value of a key: reading it fails, and no older one is shown.
    Value,
    /// Records whose keys nobody can tell. Where they were the newest of their keys, those show what
    /// they held before.
    Records,
}

impl Damage {
    /// Whether something is lost that was not replaced or deleted before.
    #[must_use]
    pub fn is_loss(&self) -> bool {
        matches!(self.loss, Loss::Value | Loss::Records)
    }

    /// Bytes of a segment that hold no valid records, or are not there.
    pub(crate) fn bytes(path: &Path, from: u64, to: u64, reason: &'static str) -> Damage {
        debug_assert!(from <= to, "what is damaged has a length");
        Damage {
            path: path.into(),
            offset: from,
            len: Some(to.saturating_sub(from)),
            records: None,
            reason,
            loss: Loss::Records,
            key: None,
        }
    }

    /// A record whose header and key are right and whose body is not.
    pub(crate) fn body(path: &Path, offset: u64) -> Damage {
        Damage {
            path: path.into(),
            offset,
            len: None,
            records: None,
            reason: "checksum of a record's value",
            loss: Loss::Value,
            key: None,
        }
    }

    /// What an error says of a file that is made anew.
    pub(crate) fn derived(path: &Path, offset: u64, reason: &'static str) -> Damage {
        Damage {
            loss: Loss::Nothing,
            ..Damage::at(path, offset, reason)
        }
    }

    pub(crate) fn at(path: &Path, offset: u64, reason: &'static str) -> Damage {
        Damage {
            path: path.into(),
            offset,
            len: None,
            records: None,
            reason,
            loss: Loss::Records,
            key: None,
        }
    }

    /// What an error says, if it says that something is damaged or missing.
    pub(crate) fn of(error: &Error, loss: Loss) -> Option<Damage> {
        let damage = match error {
            Error::Corrupt {
                path,
                offset,
                reason,
            } => Damage::at(path, *offset, reason),
            Error::Io { path, source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                Damage::at(path, 0, "the file is missing")
            }
            _ => return None,
        };
        Some(Damage { loss, ..damage })
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (path, offset) = (self.path.display(), self.offset);
        match self.len {
            Some(len) => write!(
                f,
                "{path}: bytes {offset} to {}: ",
                offset.saturating_add(len)
            )?,
            None => write!(f, "{path} is damaged at byte {offset}: ")?,
        }
        f.write_str(self.reason)?;
        match self.records {
            Some(1) => f.write_str("; 1 record is lost")?,
            Some(records) => write!(f, "; {records} records are lost")?,
            None => {}
        }
        if let Some((namespace, key)) = &self.key {
            write!(f, ", of key \"{}\" in {namespace:?}", key.escape_ascii())?;
        }
        match self.loss {
            Loss::Nothing => f.write_str("; an older state and the log replace it"),
            _ => Ok(()),
        }
    }
}
