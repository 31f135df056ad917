//! The server over a real socket.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod abuse;
mod binding;
mod limits;
mod metrics;
mod rest;
mod support;
