//! Space kept back for a full disk: a file of zeros that is given up when there is nothing left, so that
//! deletes, compaction and checkpoints can go on. Until there is as much space again nothing is put.

use std::path::PathBuf;
use std::sync::Arc;

use crate::sync::Mutex;
use crate::vfs::Vfs;

/// The name of the file.
pub(crate) const RESERVE: &str = "RESERVE";

/// Whether there is space kept back.
pub(crate) struct Reserve {
    vfs: Arc<dyn Vfs>,
    path: PathBuf,
    state: Mutex<State>,
}

struct State {
    /// Bytes of the file, or that it should have.
    len: u64,
    is_there: bool,
    /// Whether somebody makes room, and must not lose it to the reserve.
    is_working: bool,
    /// Whether somebody found the disk full.
    is_wanted: bool,
}

impl Reserve {
    pub(crate) fn new(vfs: Arc<dyn Vfs>, dir: &std::path::Path, is_there: bool) -> Reserve {
        let path = dir.join(RESERVE);
        let len = vfs.open(&path).and_then(|file| file.len());
        let state = State {
            len: len.unwrap_or(0),
            is_there,
            is_working: false,
            is_wanted: false,
        };
        Reserve {
            vfs,
            path,
            state: Mutex::new(state),
        }
    }

    /// For who writes nothing.
    pub(crate) fn none(vfs: Arc<dyn Vfs>, dir: &std::path::Path) -> Reserve {
        let state = State {
            len: 0,
            is_there: false,
            is_working: false,
            is_wanted: false,
        };
        Reserve {
            vfs,
            path: dir.join(RESERVE),
            state: Mutex::new(state),
        }
    }

    /// Keeps so many bytes back, if there are as many.
    pub(crate) fn keep(&self, len: u64) {
        let mut state = self.state.lock();
        // Growing it all the time is not worth it.
        if state.is_there && len > state.len.saturating_mul(2) {
            state.is_there = self.vfs.remove(&self.path).is_err();
        }
        if !state.is_there && !state.is_out() {
            debug_assert!(len > 0, "a reserve of nothing is none");
            state.len = len;
            state.is_there = self.make(len);
            if !state.is_there {
                state.len = 0;
            }
            debug_assert!(!state.is_out(), "who keeps nothing waits for nothing");
        }
    }

    /// Gives the space up; false if there is none.
    pub(crate) fn release(&self) -> bool {
        let mut state = self.state.lock();
        let released = state.is_there && self.vfs.remove(&self.path).is_ok();
        state.is_there &= !released;
        released
    }

    /// How many bytes are kept back, or should be.
    pub(crate) fn len(&self) -> u64 {
        self.state.lock().len
    }

    /// Whether there is space for puts: as much as was given up can be kept back again.
    pub(crate) fn has_room(&self) -> bool {
        let mut state = self.state.lock();
        if state.is_out() && !state.is_working {
            state.is_there = self.make(state.len);
        }
        !state.is_out()
    }

    /// Somebody found the disk full.
    pub(crate) fn want(&self) {
        self.state.lock().is_wanted = true;
    }

    /// Whether room has to be made: the space was given up, or somebody found the disk full since this
    /// was last asked.
    pub(crate) fn take_wanted(&self) -> bool {
        let mut state = self.state.lock();
        std::mem::take(&mut state.is_wanted) && state.len > 0 || state.is_out()
    }

    /// Begins or ends to make room.
    pub(crate) fn set_working(&self, is_working: bool) {
        self.state.lock().is_working = is_working;
    }

    fn make(&self, len: u64) -> bool {
        let made = self.vfs.create(&self.path);
        let made = made.and_then(|file| file.allocate(len)).is_ok();
        if !made {
            let _ = self.vfs.remove(&self.path);
        }
        made
    }
}

impl State {
    fn is_out(&self) -> bool {
        self.len > 0 && !self.is_there
    }
}
