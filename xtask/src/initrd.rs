//! Linux's initrd: a static busybox, and an init that tells what it found and powers off.

use std::fs;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::cpio::Archive;
use crate::setup::busybox;

/// A file that travels in the initrd, so that every page on its way can be held to account. `init` prints its
/// digest; [`Payload::digest`] is what it must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Payload {
    /// Length in bytes.
    pub(crate) len: usize,
    pub(crate) seed: u64,
}

impl Default for Payload {
    /// With Debian's cloud kernel, an image of about 20 MiB.
    fn default() -> Self {
        Payload { len: 4 << 20, seed: 0x6b65_7865_6300_0001 }
    }
}

impl Payload {
    /// Bytes no page of which resembles another (xorshift64).
    fn bytes(self) -> Vec<u8> {
        let mut state = self.seed | 1;
        let mut bytes = Vec::with_capacity(self.len + 8);
        while bytes.len() < self.len {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            bytes.extend(state.to_le_bytes());
        }
        bytes.truncate(self.len);
        bytes
    }

    /// Its SHA-256 in hexadecimal.
    pub(crate) fn digest(self) -> String {
        Sha256::digest(self.bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The initrd that holds it.
    pub(crate) fn initrd(self) -> Result<Vec<u8>> {
        let busybox = busybox::find()?;
        let busybox = fs::read(&busybox).with_context(|| format!("cannot read {}", busybox.display()))?;
        let mut archive = Archive::default();
        for directory in ["bin", "dev", "proc"] {
            archive.directory(directory);
        }
        archive.character_device("dev/console", 5, 1);
        archive.file("bin/busybox", &busybox);
        archive.file("init", INIT.as_bytes());
        archive.file("payload", &self.bytes());
        Ok(archive.finish())
    }
}

/// Reads as sh; the kernel has no other file to run than busybox.
const INIT: &str = r#"#!/bin/busybox sh
b=/bin/busybox
$b mount -t proc proc /proc
echo "init: release $($b uname -r)"
echo "init: cmdline $($b cat /proc/cmdline)"
echo "init: digest $($b sha256sum /payload | $b cut -d ' ' -f 1) payload"
echo "init: power off"
$b poweroff -f
"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_has_the_length_asked_for_and_no_two_equal_pages() {
        let bytes = Payload { len: 64 * 4096 + 3, seed: 7 }.bytes();
        assert_eq!(bytes.len(), 64 * 4096 + 3);
        let mut pages: Vec<_> = bytes.chunks(4096).collect();
        pages.sort();
        pages.dedup();
        assert_eq!(pages.len(), 65);
    }
}
