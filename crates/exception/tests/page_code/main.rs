//! The page code runs on the host as it is: a region of memory stands for the machine's, signals for its exceptions.
#![cfg(all(feature = "page-code", target_arch = "x86_64", target_os = "linux"))]

mod dump;
mod expected;
mod frame;
mod handlers;
mod machine;
mod pieces;
