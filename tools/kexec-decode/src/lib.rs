//! Finds kexec fault dumps in a serial log and explains them: which function and source line, which segment, list entry
//! or table, and why the address faulted.
//!
//! A dump is what the exceptions of a transition print (`kexec-exception`, docs/dump-format.md); a plan is what `reloc`
//! prints of an image before the jump. Both are found among whatever else a console carried.
//!
//! ```
//! use kexec_decode::{Dump, Plan, Report};
//!
//! let log = b"[noise]\r\nkexec-dump begin version=1\r\nvector=0000000000000006\r\n[cut off]";
//! for found in Dump::find_all(log) {
//!     let plan = Plan::find_all(log).pop();
//!     let report = Report::new(&found, &[], plan.as_ref());
//!     assert!(report.to_string().contains("#UD invalid opcode, vector 6"));
//!     assert!(report.to_string().contains("the dump is truncated"));
//! }
//! ```
//!
//! [`explain`] does all of it for a log. With [`Kernel`]s, the ELF files of the kernels that took part, addresses become functions and lines. [`cli::run`] is the
//! program `kexec-decode`, for who wraps it.
//!
//! It never fails on a log: a damaged or truncated dump is explained as far as it goes, and what makes the explanation
//! doubtful is said. It reads no memory image, unwinds no stack (the dump has eight words of it), and does not guess
//! the contents of memory that the dump does not show.

mod cause;
pub mod cli;
mod disassembly;
pub mod dump;
mod explain;
pub mod kernel;
mod place;
pub mod plan;
pub mod report;
mod walk;

pub use dump::{Dump, Found};
pub use explain::explain;
pub use kernel::Kernel;
pub use plan::Plan;
pub use report::Report;
