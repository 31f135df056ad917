//! Both ways to find a key: the table for `get`, the runs for `list`. Derived from the log.

mod buckets;
pub(crate) mod checkpoint;
pub(crate) mod keys;
pub(crate) mod runs;
pub(crate) mod table;
