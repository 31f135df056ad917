//! The commit log: every change in one total order, in front segments; class segments with what
//! compaction copied, and large values in segments of their own. The log is the truth; the table and
//! the key runs are derived from it.

pub(crate) mod appender;
pub(crate) mod class;
pub(crate) mod commit;
pub(crate) mod large;
pub(crate) mod mapped;
pub(crate) mod scan;
pub(crate) mod segment;
pub(crate) mod usage;
