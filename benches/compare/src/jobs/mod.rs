//! What is measured in a process of its own and takes more than a few lines.

pub mod churn;
pub mod stalls;
pub mod starved;
