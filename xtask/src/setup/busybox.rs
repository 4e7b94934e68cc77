//! A busybox that needs no library: the whole user space of the initrd.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use super::apt::{self, Apt};
use super::in_path;
use crate::paths;

/// The system's, or Debian's package unpacked under target/.
pub(crate) fn find() -> Result<PathBuf> {
    if let Some(path) = installed() {
        return Ok(path);
    }
    let tree = paths::folder("setup")?.join("busybox");
    let find =
        || ["usr/bin/busybox", "bin/busybox"].map(|name| tree.join(name)).into_iter().find(|p| p.is_file());
    if find().is_none() && apt::is_debian() {
        Apt::new(&["bookworm"])?.unpack("busybox-static", &tree)?;
    }
    find().context("there is no static busybox; `cargo xtask setup` says how to get one")
}

/// The system's, if it is a static one.
pub(super) fn installed() -> Option<PathBuf> {
    in_path("busybox").filter(|path| fs::read(path).is_ok_and(|elf| is_static(&elf)))
}

/// Whether an ELF64 file names no program interpreter.
fn is_static(elf: &[u8]) -> bool {
    const PT_INTERP: u32 = 3;
    let u16_at = |at: usize| Some(u16::from_le_bytes(elf.get(at..at + 2)?.try_into().ok()?) as usize);
    let table =
        elf.get(0x20..0x28).and_then(|bytes| Some(u64::from_le_bytes(bytes.try_into().ok()?) as usize));
    let (Some(table), Some(size), Some(count)) = (table, u16_at(0x36), u16_at(0x38)) else { return false };
    elf.starts_with(b"\x7fELF\x02")
        && (0..count).all(|index| {
            let kind = elf.get(table + index * size..).and_then(|header| header.get(..4));
            kind.is_some_and(|kind| kind != PT_INTERP.to_le_bytes())
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dynamic_program_and_a_text_are_not_static() {
        let own = fs::read("/proc/self/exe").unwrap();
        assert!(!is_static(&own), "a test program has an interpreter");
        assert!(!is_static(b"#!/bin/sh\n"));
        assert!(!is_static(&own[..0x30]));
    }

    #[test]
    fn an_elf_file_whose_headers_name_no_interpreter_is_static() {
        let mut elf = vec![0; 0x40 + 2 * 0x38];
        elf[..5].copy_from_slice(b"\x7fELF\x02");
        elf[0x20] = 0x40;
        elf[0x36] = 0x38;
        elf[0x38] = 2;
        elf[0x40] = 1;
        assert!(is_static(&elf));
        elf[0x40 + 0x38] = 3;
        assert!(!is_static(&elf));
    }
}
