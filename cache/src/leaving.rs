//! What a write takes out of a shard: it is dropped when nothing is locked.

use std::iter::Chain;
use std::{option, vec};

use crate::{Cause, Entry};

/// What went out.
#[derive(Debug)]
pub(crate) struct Gone {
    pub(crate) entry: Entry,
    pub(crate) cause: Cause,
}

/// What a write took out: one entry, mostly, for which nothing is allocated.
#[derive(Debug, Default)]
pub(crate) struct Leaving {
    first: Option<Gone>,
    others: Vec<Gone>,
}

impl Leaving {
    #[inline]
    pub(crate) fn push(&mut self, gone: Gone) {
        match self.first {
            None => self.first = Some(gone),
            Some(_) => self.others.push(gone),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.first.is_none()
    }
}

impl Extend<Gone> for Leaving {
    #[inline]
    fn extend<I: IntoIterator<Item = Gone>>(&mut self, gone: I) {
        gone.into_iter().for_each(|gone| self.push(gone));
    }
}

impl IntoIterator for Leaving {
    type Item = Gone;
    type IntoIter = Chain<option::IntoIter<Gone>, vec::IntoIter<Gone>>;

    #[inline]
    fn into_iter(self) -> Self::IntoIter {
        self.first.into_iter().chain(self.others)
    }
}
