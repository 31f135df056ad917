//! What is measured, in the order in which it happens to an engine's files.

mod churn;
mod cold;
mod large;
mod load;
mod open;
mod puts;
mod reads;
mod shared;
mod space;
mod stalls;
mod starved;
mod turns;

use crate::bench::Bench;

/// Loading comes first, then what needs everything in memory: opening empties the page cache, and what is read
/// back comes in small pages. What changes the files most comes last.
pub const ALL: &[fn(&mut Bench)] = &[
    load::run,
    reads::run,
    puts::run,
    large::run,
    open::run,
    cold::run,
    starved::run,
    space::run,
    stalls::run,
    churn::run,
];
