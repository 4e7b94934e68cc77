//! What a page may be used for, and how it is cached.

use core::fmt;

/// The attributes of a page. A mapped page can always be read.
///
/// Printed as `rwx wb`, `r-x wb`, `rw- uc`, with ` shared` behind it for a shared page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Attributes {
    /// Whether the page may be written.
    pub writable: bool,
    /// Whether instructions may be fetched from the page.
    pub executable: bool,
    /// The cache type.
    pub cache: Cache,
    /// Whether the page is shared with the hypervisor or with devices, so not encrypted. Means nothing on a machine
    /// without memory encryption ([`Encryption::Off`](crate::Encryption::Off)).
    pub shared: bool,
}

impl Attributes {
    /// Read only, not executable, write-back: `r-- wb`.
    pub const R: Self = Self { writable: false, executable: false, cache: Cache::WriteBack, shared: false };
    /// Read and write, not executable, write-back: `rw- wb`.
    pub const RW: Self = Self { writable: true, ..Self::R };
    /// Read and execute, write-back: `r-x wb`.
    pub const RX: Self = Self { executable: true, ..Self::R };
    /// Read, write and execute, write-back: `rwx wb`.
    pub const RWX: Self = Self { writable: true, ..Self::RX };

    /// The same with the cache type `cache`.
    #[must_use]
    pub const fn with_cache(self, cache: Cache) -> Self {
        Self { cache, ..self }
    }

    /// The same, shared or encrypted.
    #[must_use]
    pub const fn with_shared(self, shared: bool) -> Self {
        Self { shared, ..self }
    }
}

impl fmt::Display for Attributes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let w = if self.writable { 'w' } else { '-' };
        let x = if self.executable { 'x' } else { '-' };
        write!(f, "r{w}{x} {}", self.cache)?;
        if self.shared { f.write_str(" shared") } else { Ok(()) }
    }
}

/// The cache type of a page: an index into the processor's page attribute table (PAT), which this crate leaves alone.
///
/// The first four are named for what they mean in the PAT that the processor starts with (SDM Vol. 3A, 13.12.4), and
/// entries 0 and 3 mean the same under every common kernel. Under another PAT the others mean what that kernel put there:
/// Linux has write-combining in entry 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Cache {
    /// PAT entry 0: write-back.
    WriteBack = 0,
    /// PAT entry 1 (PWT): write-through at power-on.
    WriteThrough = 1,
    /// PAT entry 2 (PCD): uncached, unless the MTRRs say write-combining.
    UncachedMinus = 2,
    /// PAT entry 3 (PCD and PWT): uncached.
    Uncached = 3,
    /// PAT entry 4 (PAT).
    Pat4 = 4,
    /// PAT entry 5 (PAT and PWT).
    Pat5 = 5,
    /// PAT entry 6 (PAT and PCD).
    Pat6 = 6,
    /// PAT entry 7 (PAT, PCD and PWT).
    Pat7 = 7,
}

impl Cache {
    /// The cache type with an index into the PAT; taken modulo 8.
    #[must_use]
    pub const fn from_pat_index(index: u8) -> Self {
        match index % 8 {
            0 => Self::WriteBack,
            1 => Self::WriteThrough,
            2 => Self::UncachedMinus,
            3 => Self::Uncached,
            4 => Self::Pat4,
            5 => Self::Pat5,
            6 => Self::Pat6,
            _ => Self::Pat7,
        }
    }

    /// The index into the PAT, 0 to 7.
    #[must_use]
    pub const fn pat_index(self) -> u8 {
        self as u8
    }
}

impl fmt::Display for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::WriteBack => "wb",
            Self::WriteThrough => "wt",
            Self::UncachedMinus => "uc-",
            Self::Uncached => "uc",
            Self::Pat4 => "pat4",
            Self::Pat5 => "pat5",
            Self::Pat6 => "pat6",
            Self::Pat7 => "pat7",
        })
    }
}
