//! Linux's bzImage, by its 64-bit boot protocol (Documentation/arch/x86/boot.rst).

use core::fmt;

use kexec_abi::boot_params::{
    BOOT_FLAG, BootParams, HEADER_MAGIC, LoadFlags, SETUP_HEADER_END_BASE, SETUP_HEADER_END_MAX,
    SETUP_HEADER_OFFSET, SetupHeader, XLoadFlags,
};
use kexec_abi::{EntryState, Levels, PAGE_SIZE, PHYS_ADDR_LIMIT, PhysAddr, PhysRange};
use zerocopy::IntoBytes;

use crate::load::{LoadError, Sink, copy};
use crate::parameters::{LOW_MEMORY_END, Parameters, below};
use crate::place::{Part, PlaceError, Request, place};
use crate::read::{ReadAt, ReadError};

/// The oldest protocol with `xloadflags`, and so the first that says whether there is a 64-bit entry.
const MIN_VERSION: u16 = 0x020c;

/// The 64-bit entry point, in bytes from the start of the protected-mode code.
const ENTRY_64: u64 = 0x200;

const SECTOR: u64 = 512;

/// One past `init_size`, the last field that is needed here: where a header of protocol 2.12 cannot end before.
const HEADER_END_MIN: usize = SETUP_HEADER_OFFSET + core::mem::offset_of!(SetupHeader, handover_offset);

/// A bzImage that has been checked.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct BzImage<F> {
    file: F,
    /// The file's setup header, with zeros after its end.
    header: [u8; SETUP_HEADER_END_MAX - SETUP_HEADER_OFFSET],
    hdr: SetupHeader,
    /// The protected-mode code, in bytes of the file: from here to its end.
    code: u64,
}

impl<F: ReadAt> BzImage<F> {
    /// Reads and checks the setup header.
    ///
    /// # Errors
    ///
    /// [`BzImageError`] if the file is not a bzImage, is cut off, contradicts itself, or has no 64-bit entry point.
    pub fn parse(file: F) -> Result<Self, BzImageError> {
        use BzImageError as E;
        let len = file.len();
        let mut header = [0; SETUP_HEADER_END_MAX - SETUP_HEADER_OFFSET];
        let needed = HEADER_END_MIN as u64;
        if len < needed {
            return Err(E::Truncated { len, needed });
        }
        let readable = len.min(SETUP_HEADER_END_MAX as u64) as usize - SETUP_HEADER_OFFSET;
        file.read_at(SETUP_HEADER_OFFSET as u64, &mut header[..readable])?;
        let hdr = parse_header(&header);
        if hdr.boot_flag != BOOT_FLAG {
            return Err(E::BootFlag { found: hdr.boot_flag.get() });
        }
        if hdr.header != HEADER_MAGIC {
            return Err(E::Magic { found: hdr.header.get() });
        }
        if hdr.version < MIN_VERSION {
            return Err(E::OldProtocol { version: hdr.version.get() });
        }
        // The displacement is unsigned: a header may end up to 0x301 by it, and does not end before 0x202.
        let end = SETUP_HEADER_END_BASE + usize::from(hdr.jump[1]);
        if !(HEADER_END_MIN..=SETUP_HEADER_END_MAX).contains(&end) {
            return Err(E::HeaderEnd { end });
        }
        header[end - SETUP_HEADER_OFFSET..].fill(0);
        let hdr = parse_header(&header);

        if !LoadFlags::from_bits_retain(hdr.loadflags).contains(LoadFlags::LOADED_HIGH) {
            return Err(E::NotLoadedHigh { loadflags: hdr.loadflags });
        }
        let xloadflags = hdr.xloadflags.get();
        if !XLoadFlags::from_bits_retain(xloadflags).contains(XLoadFlags::KERNEL_64) {
            return Err(E::No64BitEntry { xloadflags });
        }
        let kernel_alignment = hdr.kernel_alignment.get();
        if !kernel_alignment.is_power_of_two() {
            return Err(E::Alignment { kernel_alignment });
        }
        let pref_address = hdr.pref_address.get();
        let init_size = hdr.init_size.get();
        let highest = PHYS_ADDR_LIMIT - u64::from(init_size);
        let fixed = hdr.relocatable_kernel == 0;
        if pref_address > highest
            || fixed && (pref_address < LOW_MEMORY_END || !pref_address.is_multiple_of(PAGE_SIZE))
        {
            return Err(E::PrefAddress { pref_address });
        }

        let setup_sects = if hdr.setup_sects == 0 { 4 } else { hdr.setup_sects };
        let code = (u64::from(setup_sects) + 1) * SECTOR;
        let syssize = u64::from(hdr.syssize.get()) * 16;
        // The last paragraph need not be whole (memtest86+ counts it and ends in its middle), and the entry point lies in the
        // code whatever syssize says.
        let needed = code + syssize.saturating_sub(15).max(ENTRY_64 + 1);
        if len < needed {
            return Err(E::Truncated { len, needed });
        }
        let code_size = len - code;
        if syssize <= ENTRY_64 {
            return Err(E::Syssize { syssize });
        }
        if code_size > u64::from(init_size) {
            return Err(E::InitSize { init_size, code_size });
        }
        let (payload_offset, payload_length) = (hdr.payload_offset.get(), hdr.payload_length.get());
        if u64::from(payload_offset) + u64::from(payload_length) > code_size {
            return Err(E::Payload { payload_offset, payload_length, code_size });
        }
        Ok(Self { file, header, hdr, code })
    }

    /// The setup header, as the file has it.
    #[must_use]
    pub const fn header(&self) -> &SetupHeader {
        &self.hdr
    }

    /// Finds places for the kernel and its parameters, gives all of it to the sink, and says how the kernel is entered
    /// with `levels` of paging: that of the running processor, unless the entry is to change it.
    ///
    /// The kernel gets `init_size` bytes at the lowest aligned place from the higher of 1 MiB and `pref_address` on: loaded
    /// below that, it would move itself there, over whatever the memory map says (Linux 43b1d3e68ee7). A kernel that
    /// is not relocatable gets that address or none. Without
    /// [`CAN_BE_LOADED_ABOVE_4G`](XLoadFlags::CAN_BE_LOADED_ABOVE_4G) everything lies below 4 GiB, and the ramdisk not above
    /// `initrd_addr_max`.
    ///
    /// # Errors
    ///
    /// [`LoadError::Place`] if there is no room, the command line does not fit, or the kernel cannot be entered with
    /// `levels`, before anything was given to the sink; [`LoadError::Read`] or [`LoadError::Sink`] on the way.
    pub fn load<S: Sink + ?Sized>(
        &self,
        parameters: &Parameters<'_>,
        levels: Levels,
        sink: &mut S,
    ) -> Result<EntryState, LoadError<S::Error>> {
        let xloadflags = XLoadFlags::from_bits_retain(self.hdr.xloadflags.get());
        if levels == Levels::Five && !xloadflags.contains(XLoadFlags::FIVE_LEVEL) {
            return Err(PlaceError::Levels { levels }.into());
        }
        let kernel = self.place(parameters)?;
        let places = parameters.place(&self.hdr, [kernel].into_iter())?;

        sink.segment(kernel).map_err(LoadError::Sink)?;
        copy(&self.file, self.code, kernel.start, self.file.len() - self.code, sink)?;
        let mut params = BootParams::default();
        params.as_mut_bytes()[SETUP_HEADER_OFFSET..SETUP_HEADER_END_MAX].copy_from_slice(&self.header);
        let boot_params = parameters.write(params, &places, sink)?;

        let entry = PhysAddr::new(kernel.start.as_u64() + ENTRY_64);
        Ok(EntryState { rsi: boot_params.as_u64(), levels: Some(levels), ..EntryState::at(entry) })
    }

    fn place(&self, parameters: &Parameters<'_>) -> Result<PhysRange, PlaceError> {
        let size = u64::from(self.hdr.init_size.get());
        let pref_address = self.hdr.pref_address.get();
        let below = below(&self.hdr);
        let request = if self.hdr.relocatable_kernel == 0 {
            let end = pref_address + size.next_multiple_of(PAGE_SIZE);
            let (at_or_above, below) = (PhysAddr::new(pref_address), below.min(PhysAddr::new(end)));
            Request { size, align: PAGE_SIZE, at_or_above, below }
        } else {
            let at_or_above = PhysAddr::new(pref_address.max(LOW_MEMORY_END));
            Request { size, align: u64::from(self.hdr.kernel_alignment.get()), at_or_above, below }
        };
        place(parameters.memory_map, request, parameters.forbidden.iter().copied())
            .ok_or(PlaceError::NoRoom { part: Part::Kernel, request })
    }
}

fn parse_header(bytes: &[u8; SETUP_HEADER_END_MAX - SETUP_HEADER_OFFSET]) -> SetupHeader {
    let mut hdr = SetupHeader::default();
    hdr.as_mut_bytes().copy_from_slice(&bytes[..size_of::<SetupHeader>()]);
    hdr
}

/// Why a file is not a bzImage that can be entered in 64-bit mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BzImageError {
    /// The file could not be read.
    Read(ReadError),
    /// The file ends before what its header promises, or before its header does; in bytes.
    Truncated {
        /// The file's length.
        len: u64,
        /// The length that it must have.
        needed: u64,
    },
    /// `boot_flag` is not 0xaa55.
    BootFlag {
        /// What it is.
        found: u16,
    },
    /// `header` is not "HdrS".
    Magic {
        /// What it is.
        found: u32,
    },
    /// The boot protocol is older than 2.12.
    OldProtocol {
        /// Its version, major in the high byte.
        version: u16,
    },
    /// The header ends before `init_size` does, or where other fields of `boot_params` lie.
    HeaderEnd {
        /// Where it ends, in bytes.
        end: usize,
    },
    /// `loadflags` says that the kernel is to be loaded below 1 MiB: a zImage.
    NotLoadedHigh {
        /// The flags.
        loadflags: u8,
    },
    /// `xloadflags` says that there is no 64-bit entry point: a 32-bit kernel.
    No64BitEntry {
        /// The flags.
        xloadflags: u16,
    },
    /// `kernel_alignment` is not a power of two.
    Alignment {
        /// What it is.
        kernel_alignment: u32,
    },
    /// `pref_address` is not a physical address for a kernel of this size; of a kernel that is not relocatable also when
    /// it is below 1 MiB or not 4 KiB-aligned.
    PrefAddress {
        /// What it is.
        pref_address: u64,
    },
    /// `syssize` leaves no room for the 64-bit entry point at 0x200.
    Syssize {
        /// The size of the protected-mode code by the header, in bytes.
        syssize: u64,
    },
    /// `init_size` is less than the file's protected-mode code; in bytes.
    InitSize {
        /// The header's value.
        init_size: u32,
        /// The code's size.
        code_size: u64,
    },
    /// The compressed kernel does not lie in the protected-mode code; in bytes.
    Payload {
        /// `payload_offset`.
        payload_offset: u32,
        /// `payload_length`.
        payload_length: u32,
        /// The code's size.
        code_size: u64,
    },
}

impl From<ReadError> for BzImageError {
    fn from(error: ReadError) -> Self {
        Self::Read(error)
    }
}

impl fmt::Display for BzImageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(error) => error.fmt(f),
            Self::Truncated { len, needed } => {
                write!(f, "the bzImage is truncated: {len} bytes of at least {needed}")
            }
            Self::BootFlag { found } => {
                write!(f, "not a bzImage: boot_flag is {found:#06x}, not {BOOT_FLAG:#06x}")
            }
            Self::Magic { found } => write!(f, "not a bzImage: header is {found:#010x}, not \"HdrS\""),
            Self::OldProtocol { version } => write!(
                f,
                "boot protocol {}.{:02} is older than {}.{:02}",
                version >> 8,
                version & 0xff,
                MIN_VERSION >> 8,
                MIN_VERSION & 0xff
            ),
            Self::HeaderEnd { end } => write!(
                f,
                "the setup header ends at {end:#x}, not between {HEADER_END_MIN:#x} and {SETUP_HEADER_END_MAX:#x}"
            ),
            Self::NotLoadedHigh { loadflags } => {
                write!(f, "loadflags {loadflags:#04x}: a zImage, which is loaded below 1 MiB")
            }
            Self::No64BitEntry { xloadflags } => {
                write!(f, "xloadflags {xloadflags:#06x}: the kernel has no 64-bit entry point")
            }
            Self::Alignment { kernel_alignment } => {
                write!(f, "kernel_alignment {kernel_alignment:#x} is not a power of two")
            }
            Self::PrefAddress { pref_address } => {
                write!(f, "pref_address {pref_address:#x} is no address that the kernel can be loaded at")
            }
            Self::Syssize { syssize } => {
                write!(
                    f,
                    "syssize says {syssize:#x} bytes, which do not reach the entry point at {ENTRY_64:#x}"
                )
            }
            Self::InitSize { init_size, code_size } => {
                write!(
                    f,
                    "init_size {init_size:#x} is less than the {code_size:#x} bytes of code in the file"
                )
            }
            Self::Payload { payload_offset, payload_length, code_size } => write!(
                f,
                "the compressed kernel at {payload_offset:#x} of {payload_length:#x} bytes leaves the code's {code_size:#x} bytes"
            ),
        }
    }
}

impl core::error::Error for BzImageError {}
