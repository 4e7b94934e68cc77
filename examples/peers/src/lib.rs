#![no_std]
//! Small things to be called: the page of Linux's self-test, callees that return in bad shape, and the table that a peer
//! reports to its caller with.
//!
//! Each page works wherever it is loaded. A callee finds its return address at `[rsp]` and its entry point at `[rsp + 8]`; what it
//! leaves there is its next one.

mod hostile;
mod report;
mod self_test;

pub use hostile::HOSTILE;
pub use report::Report;
pub use self_test::SELF_TEST;
