//! A store on a simulated disk, and what may be true of it: acts in, contradictions out.

use std::fmt::Debug;
use std::path::Path;
use std::time::Duration;

use rimstone::{Clock, Durability, Error, Namespace, PutOptions, Result, Store, Vfs, WriteBatch};
use rimstone_tests::{
    Cut, DIR, Fault, History, Seen, SimDisk, State, alive, matches, observe, open_alone,
};

/// Keys that acts may change.
pub(crate) const KEYS: u8 = 12;
const NAMES: [&str; 3] = ["a", "b", "c"];

/// One thing that a user, time, or bad luck does.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    Put {
        ns: usize,
        key: u8,
        len: usize,
        ttl: Option<u64>,
        durability: Durability,
    },
    Delete {
        ns: usize,
        key: u8,
    },
    /// Of each key a put of this length, or a delete.
    Batch {
        ns: usize,
        keys: Vec<(u8, Option<usize>)>,
        durability: Durability,
    },
    /// Deletes what begins so.
    DeletePrefix {
        ns: usize,
        prefix: Vec<u8>,
    },
    Sync,
    Create {
        ns: usize,
    },
    Drop {
        ns: usize,
    },
    Rename {
        from: usize,
        to: usize,
    },
    Advance {
        seconds: u64,
    },
    Checkpoint,
    Compact,
    /// What the store's threads would do now.
    Maintain {
        idle: bool,
    },
    Reopen,
    /// Opens the store again from its log alone.
    Rebuild,
    /// A power cut as many operations ago.
    Cut {
        back: usize,
        cut: Cut,
    },
    Fail {
        skip: u64,
        fault: Fault,
        lasting: bool,
    },
    /// Leaves this much space on the disk.
    Limit {
        room: Option<u64>,
    },
}

/// A store, the disk it lies on, and the states it may be in.
pub(crate) struct Session {
    pub(crate) disk: SimDisk,
    pub(crate) history: History,
    clock: Clock,
    durability: Durability,
    store: Option<Store>,
    /// What readers see, and how many states of the history were acknowledged.
    visible: State,
    acknowledged: usize,
    /// The earliest place for a cut: before it somebody removed files behind the store's back.
    floor: usize,
    poisoned: bool,
    done: u8,
}

impl Session {
    pub(crate) fn start(disk: SimDisk, durability: Durability) -> Session {
        let clock = Clock::manual(1_000);
        let mut session = Session {
            disk,
            history: History::new(State::new(), 0),
            clock,
            durability,
            store: None,
            visible: State::new(),
            acknowledged: 0,
            floor: 0,
            poisoned: false,
            done: 0,
        };
        let store = session.open();
        session.power_on(store);
        session
    }

    fn open(&self) -> Store {
        open_alone(&self.disk, &self.clock, self.durability)
            .unwrap_or_else(|error| panic!("the store opens: {error}\n{:#?}", self.history))
    }

    /// Begins a history with what a store shows that was opened after a cut: whenever the power is cut again,
    /// while it was being opened too, that is what it shows.
    fn power_on(&mut self, store: Store) {
        self.history = History::new(observe(&store, &keys()), 0);
        self.begin(store);
    }

    /// Takes what an open store shows for durable.
    fn begin(&mut self, store: Store) {
        let damage = store.stats().damage;
        assert!(damage.is_empty(), "a cut is no damage: {damage:?}");
        self.visible = observe(&store, &keys());
        let place = self.disk.place();
        self.history.add(self.visible.clone(), place);
        self.history.promise(place);
        self.acknowledged = self.history.len();
        self.poisoned = false;
        self.store = Some(store);
    }

    fn store(&self) -> &Store {
        self.store.as_ref().expect("open between acts")
    }

    fn namespace(&self, ns: usize) -> Option<Namespace> {
        self.store().find_namespace(NAMES[ns])
    }

    pub(crate) fn run(&mut self, act: &Act) {
        self.done = self.done.wrapping_add(1);
        match act {
            Act::Advance { seconds } => self.clock.advance(*seconds),
            Act::Maintain { idle } => self.maintain(*idle),
            Act::Reopen => self.reopen(|_| ()),
            Act::Rebuild => self.reopen(|session| {
                forget_all_but_the_log(&session.disk);
                session.floor = session.disk.place();
            }),
            Act::Cut { back, cut } => {
                let place = self.disk.place().saturating_sub(*back);
                self.cut_here(place.max(self.floor), *cut);
            }
            Act::Fail {
                skip,
                fault,
                lasting,
            } => self.disk.fail(*skip, *fault, *lasting),
            Act::Limit { room } => {
                let limit = room.map(|room| self.disk.bytes_used() + room);
                self.disk.limit(limit);
            }
            _ => self.change(act),
        }
    }

    /// It changes nothing that anybody sees, and what fails is kept to itself. At an interval it ends with a flush,
    /// which poisons the store if it fails.
    fn maintain(&mut self, idle: bool) {
        self.store().step(idle);
        self.poisoned = self.store().stats().poisoned;
        if matches!(self.durability, Durability::Interval(_)) && !self.poisoned {
            self.history.promise(self.disk.place());
        }
    }

    /// Whether a write of this durability waits for a flush, as one does that asks for more than the store promises
    /// of itself.
    fn waits(&self, durability: Durability) -> bool {
        match (durability, self.durability) {
            (Durability::Immediate, _) => true,
            (Durability::Interval(asked), Durability::Interval(every)) => asked < every,
            (Durability::Interval(_), _) => true,
            (Durability::None, _) => false,
        }
    }

    /// Runs an act that changes what the store holds, and notes what may now be true.
    fn change(&mut self, act: &Act) {
        let begun = self.disk.place();
        let Some((state, durable, result)) = self.attempt(act) else {
            return;
        };
        let poisoned = self.store().stats().poisoned;
        match result {
            Ok(()) => {
                self.visible = state.clone();
                self.history.add(state, begun);
                self.acknowledged = self.history.len();
                if durable {
                    self.history.promise(self.disk.place());
                }
            }
            Err(error) => {
                if poisoned && !self.poisoned {
                    // It may have reached the log, and may be there after the next open.
                    self.history.add(state, begun);
                } else if self.poisoned {
                    assert!(writing_stopped(&error), "{error}");
                }
                self.disk.heal();
                self.check_visible(act);
            }
        }
        self.poisoned = poisoned;
    }

    fn check_visible(&self, context: &Act) {
        let seen = observe(self.store(), &keys());
        let expected = alive(&self.visible, self.clock.now());
        assert!(
            matches(&expected, &seen),
            "{context:?}: expected {expected:#?}, found {seen:#?}"
        );
    }

    /// The state an act leads to, whether it is then durable, and what the store answered; `None` if
    /// there is nothing to do.
    fn attempt(&self, act: &Act) -> Option<(State, bool, Result<()>)> {
        let mut state = alive(&self.visible, self.clock.now());
        let waits = self.waits(self.durability);
        match act {
            Act::Put {
                ns,
                key,
                len,
                ttl,
                durability,
            } => {
                let ns = self.namespace(*ns)?;
                let (value, metadata) = (vec![self.done; *len], vec![*key; usize::from(*key % 3)]);
                let mut options = PutOptions::new()
                    .metadata(&metadata)
                    .durability(*durability);
                let expiration = ttl.map(|ttl| self.clock.now() + ttl);
                if let Some(seconds) = expiration {
                    options = options.expiration(seconds);
                }
                let result = ns.put_with([*key], &value, &options);
                let generation = result.as_ref().map_or(0, |generation| *generation);
                let entries = state.get_mut(&ns.name())?;
                let newest = entries.values().map(|seen| seen.generation).max();
                assert!(result.is_err() || Some(generation) > newest);
                let seen = Seen {
                    value,
                    metadata,
                    expiration,
                    generation,
                };
                entries.insert(vec![*key], seen);
                Some((state, self.waits(*durability), result.map(drop)))
            }
            Act::Delete { ns, key } => {
                let ns = self.namespace(*ns)?;
                let existed = state.get_mut(&ns.name())?.remove(&[*key][..]).is_some();
                let result = ns.delete([*key]);
                assert!(result.as_ref().map_or(true, |found| *found == existed));
                // A delete that finds nothing promises nothing.
                Some((state, waits && existed, result.map(drop)))
            }
            Act::Batch {
                ns,
                keys,
                durability,
            } => {
                let ns = self.namespace(*ns)?;
                let mut batch = WriteBatch::new();
                batch.durability(*durability);
                for (key, len) in keys {
                    let entries = state.get_mut(&ns.name())?;
                    let Some(len) = len else {
                        batch.delete(&ns, [*key]);
                        entries.remove(&[*key][..]);
                        continue;
                    };
                    let value = vec![self.done; *len];
                    batch.put(&ns, [*key], &value);
                    entries.insert(vec![*key], Seen::of(value));
                }
                let logged = state != alive(&self.visible, self.clock.now());
                let durable = self.waits(*durability) && logged;
                Some((state, durable, self.store().write(batch)))
            }
            Act::DeletePrefix { ns, prefix } => {
                let ns = self.namespace(*ns)?;
                let entries = state.get_mut(&ns.name())?;
                entries.retain(|key, _| !key.starts_with(prefix));
                Some((state, waits, ns.delete_prefix(prefix)))
            }
            Act::Sync => Some((self.visible.clone(), true, self.store().sync())),
            Act::Checkpoint => Some((self.visible.clone(), true, self.store().checkpoint())),
            Act::Compact => {
                let result = self.store().compact();
                Some((self.visible.clone(), false, result.map(drop)))
            }
            Act::Create { ns } => {
                let name = NAMES[*ns];
                let new = state.insert(name.into(), Default::default()).is_none();
                let result = self.store().create_namespace(name);
                let taken = matches!(result, Err(Error::NamespaceExists { .. }));
                assert_eq!(taken, !new);
                new.then(|| (state, true, result.map(drop)))
            }
            Act::Drop { ns } => {
                let ns = self.namespace(*ns)?;
                state.remove(&ns.name());
                Some((state, true, self.store().drop_namespace(ns.id())))
            }
            Act::Rename { from, to } => {
                let ns = self.namespace(*from)?;
                if state.contains_key(NAMES[*to]) {
                    return None;
                }
                let entries = state.remove(NAMES[*from])?;
                state.insert(NAMES[*to].into(), entries);
                let result = self.store().rename_namespace(ns.id(), NAMES[*to]);
                Some((state, true, result))
            }
            _ => None,
        }
    }

    /// Closes the store and opens it again. No power was cut: everything acknowledged is there.
    fn reopen(&mut self, meanwhile: impl Fn(&mut Session)) {
        self.store = None;
        meanwhile(self);
        let opened = open_alone(&self.disk, &self.clock, self.durability);
        self.disk.heal();
        let store = opened.unwrap_or_else(|_| {
            self.disk.limit(None);
            self.open()
        });
        let seen = observe(&store, &keys());
        let now = self.clock.now();
        let explained = self.history.explain_since(&seen, self.acknowledged, now);
        assert!(explained, "reopened: {seen:#?}\n{:#?}", self.history);
        self.begin(store);
    }

    /// Cuts the power and goes on with what is left.
    fn cut_here(&mut self, place: usize, cut: Cut) {
        let left = self.disk.crash_at(place, cut);
        let store = self.check_left(&left, place, &cut);
        self.store = None;
        self.disk = left;
        self.floor = 0;
        self.power_on(store);
    }

    /// Opens what a cut left, and checks what it shows.
    fn check_left(&self, left: &SimDisk, place: usize, context: &dyn Debug) -> Store {
        let (store, seen) = self.reveal(left, context);
        self.explain(&seen, place, context);
        store
    }

    /// What a cut left, opened. It is durable, so that a cut at once leaves the same.
    pub(crate) fn reveal(&self, left: &SimDisk, context: &dyn Debug) -> (Store, State) {
        let store = open_alone(left, &self.clock, self.durability)
            .unwrap_or_else(|error| panic!("{context:?}: {error}"));
        let damage = store.stats().damage;
        assert!(damage.is_empty(), "{context:?}: {damage:?}");
        let seen = observe(&store, &keys());
        let again = left.crash(Cut::LOST);
        let again = open_alone(&again, &self.clock, self.durability).unwrap();
        let again = observe(&again, &keys());
        assert_eq!(again, seen, "{context:?}, cut again at once");
        (store, seen)
    }

    /// What is seen after a cut must be one state of the history, none that is older than a promise.
    pub(crate) fn explain(&self, seen: &State, place: usize, context: &dyn Debug) {
        let explained = self.history.explain(seen, place, self.clock.now());
        let history = &self.history;
        assert!(explained, "{context:?} at {place}: {seen:#?}\n{history:#?}");
    }
}

/// Whether an error says that nothing is written any more. A large value is written to its own file
/// before the log is asked, so that an error of the disk may come first.
fn writing_stopped(error: &Error) -> bool {
    matches!(error, Error::Poisoned | Error::Io { .. } | Error::Full)
}

/// Removes what the log alone must be able to replace, durably.
fn forget_all_but_the_log(disk: &SimDisk) {
    disk.heal();
    let dir = Path::new(DIR);
    for name in disk.list(dir).unwrap_or_default() {
        if !name.ends_with(".seg") && !name.ends_with(".large") {
            disk.remove(&dir.join(name)).unwrap();
        }
    }
    disk.sync_dir(dir).unwrap();
}

fn keys() -> Vec<Vec<u8>> {
    (0..KEYS).map(|key| vec![key]).collect()
}

/// How much of the log has to be unflushed until records are written through memory: more than there ever is;
/// none, so that all are; or some, so that after a flush the first ones are not.
pub(crate) const MAPPED_FROM: [Option<u64>; 3] = [None, Some(0), Some(1_000)];

/// Durabilities that a store may be opened with.
pub(crate) const DURABILITIES: [Durability; 3] =
    [Durability::Immediate, Durability::None, INTERVAL];

/// Of a store whose flushes are turns of maintenance.
pub(crate) const INTERVAL: Durability = Durability::Interval(Duration::from_millis(1));
