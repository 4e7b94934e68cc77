//! What the processor can do, and how a map is to be made.

use kexec_abi::Levels;

use crate::entry;
use crate::error::Error;

/// How a map is made. The default suits any x86-64 processor with NX: 4 levels, leaves of 4 KiB and 2 MiB, 52 address bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// The paging depth that the tables are for.
    pub levels: Levels,
    /// Whether leaves of 1 GiB may be used (CPUID.80000001H:EDX\[26\]).
    pub giant_pages: bool,
    /// Whether no-execute is on (EFER.NXE). Where it is not, every page is executable.
    pub nx: bool,
    /// The number of physical address bits, MAXPHYADDR (CPUID.80000008H:EAX\[7:0\]), at most 52. On AMD processors with memory
    /// encryption on, less the reduction in CPUID.8000001FH:EBX\[11:6\].
    pub phys_bits: u8,
    /// Memory encryption.
    pub encryption: Encryption,
    /// Bits that non-leaf entries have set beyond P, R/W, A and the encryption bit: any of U/S (bit 2), PWT (3), PCD (4) and
    /// the bits that the processor ignores (6 and 8 to 11).
    pub table_flags: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            levels: Levels::Four,
            giant_pages: false,
            nx: true,
            phys_bits: 52,
            encryption: Encryption::Off,
            table_flags: 0,
        }
    }
}

impl Options {
    /// One past the highest physical address that an entry can hold.
    pub(crate) const fn phys_limit(&self) -> u64 {
        let limit = 1 << self.phys_bits;
        match self.encryption.mask() {
            0 => limit,
            mask if mask < limit => mask,
            _ => limit,
        }
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        if !(12..=52).contains(&self.phys_bits) {
            return Err(Error::PhysBits(self.phys_bits));
        }
        let mask = self.encryption.mask();
        if self.encryption != Encryption::Off
            && !(mask.is_power_of_two() && (1 << 12..1 << 52).contains(&mask))
        {
            return Err(Error::EncryptionMask(mask));
        }
        if self.table_flags & !entry::TABLE_FLAGS != 0 {
            return Err(Error::TableFlags(self.table_flags));
        }
        Ok(())
    }
}

/// The bit of an address in a table entry that says whether memory is encrypted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Encryption {
    /// No memory encryption.
    #[default]
    Off,
    /// AMD SME and SEV: this one bit (a mask, the C-bit of CPUID.8000001FH:EBX\[5:0\]) is set where memory is encrypted.
    /// Table frames are, so every non-leaf entry has it.
    EncryptedBit(u64),
    /// Intel TDX: this one bit (a mask) is set where memory is shared, so not in non-leaf entries.
    SharedBit(u64),
}

impl Encryption {
    /// The bit, or 0.
    #[must_use]
    pub const fn mask(self) -> u64 {
        match self {
            Self::Off => 0,
            Self::EncryptedBit(mask) | Self::SharedBit(mask) => mask,
        }
    }

    /// The bit as an entry for shared or encrypted memory has it.
    pub(crate) const fn bits(self, shared: bool) -> u64 {
        match self {
            Self::Off => 0,
            Self::EncryptedBit(mask) => mask * !shared as u64,
            Self::SharedBit(mask) => mask * shared as u64,
        }
    }

    /// Whether an entry is for shared memory.
    pub(crate) const fn is_shared(self, entry: u64) -> bool {
        match self {
            Self::Off => false,
            Self::EncryptedBit(mask) => entry & mask == 0,
            Self::SharedBit(mask) => entry & mask != 0,
        }
    }
}
