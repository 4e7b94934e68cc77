//! Linux's `boot_params` ("zero page"): what its 64-bit boot protocol hands to a kernel in RSI.
//!
//! Byte for byte as documented in Linux's Documentation/arch/x86/boot.rst and zero-page.rst. Every integer is
//! little-endian and unaligned (the header begins at the odd offset 0x1f1), so each structure has alignment 1 and no
//! padding, and may be read from and written to bytes wherever they lie. Values that another party writes are never Rust
//! enums: an unknown one is kept as it is.

use static_assertions::const_assert_eq;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::memory_map::MemoryKind;

/// [`SetupHeader::boot_flag`].
pub const BOOT_FLAG: u16 = 0xaa55;

/// [`SetupHeader::header`]: "HdrS".
pub const HEADER_MAGIC: u32 = u32::from_le_bytes(*b"HdrS");

/// Where the setup header begins, in a bzImage and in [`BootParams`] alike, in bytes.
pub const SETUP_HEADER_OFFSET: usize = 0x1f1;

/// What [`SetupHeader::jump`]'s displacement counts from: the header ends at this offset plus the byte at 0x201.
pub const SETUP_HEADER_END_BASE: usize = 0x202;

/// One past the last offset that a setup header may ever reach in [`BootParams`], in bytes.
pub const SETUP_HEADER_END_MAX: usize = 0x290;

/// The lowest physical address for `boot_params`: what lies below belongs to the real-mode kernel (Linux
/// `MIN_BOOTPARAM_ADDR`).
pub const BOOT_PARAMS_MIN: u64 = 0x3000;

/// The most entries of [`BootParams::e820_table`]; more go through [`SetupDataType::E820_EXT`].
pub const E820_MAX_ENTRIES_ZEROPAGE: usize = 128;

bitflags::bitflags! {
    /// [`SetupHeader::loadflags`].
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct LoadFlags: u8 {
        /// The protected-mode code is loaded at 1 MiB or above: the file is a bzImage.
        const LOADED_HIGH = 1 << 0;
        /// Used by the kernel itself: the address was chosen at random.
        const KASLR = 1 << 1;
        /// Early messages are suppressed.
        const QUIET = 1 << 5;
        /// The 32-bit entry must not reload the segment registers.
        const KEEP_SEGMENTS = 1 << 6;
        /// `heap_end_ptr` is valid.
        const CAN_USE_HEAP = 1 << 7;
    }
}

bitflags::bitflags! {
    /// [`SetupHeader::xloadflags`].
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct XLoadFlags: u16 {
        /// There is a 64-bit entry point at 0x200.
        const KERNEL_64 = 1 << 0;
        /// Kernel, `boot_params`, command line and ramdisk may lie at or above 4 GiB.
        const CAN_BE_LOADED_ABOVE_4G = 1 << 1;
        /// There is a 32-bit EFI handover entry point.
        const EFI_HANDOVER_32 = 1 << 2;
        /// There is a 64-bit EFI handover entry point.
        const EFI_HANDOVER_64 = 1 << 3;
        /// The kernel takes EFI's memory map from a kexec.
        const EFI_KEXEC = 1 << 4;
        /// The kernel can be entered with 5-level paging.
        const FIVE_LEVEL = 1 << 5;
        /// The kernel goes on using 5-level paging.
        const FIVE_LEVEL_ENABLED = 1 << 6;
        /// Memory encryption is set up by the kernel.
        const MEM_ENCRYPTION = 1 << 7;
    }
}

/// The setup header: what the file says of itself, and where the loader writes its answers.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct SetupHeader {
    /// 512-byte sectors of real-mode code after the first one; 0 means 4.
    pub setup_sects: u8,
    /// Whether the root file system is mounted read-only.
    pub root_flags: U16,
    /// Protected-mode code in the file, in units of 16 bytes.
    pub syssize: U32,
    /// Obsolete.
    pub ram_size: U16,
    /// Video mode.
    pub vid_mode: U16,
    /// Default root device.
    pub root_dev: U16,
    /// [`BOOT_FLAG`].
    pub boot_flag: U16,
    /// A jump; its second byte, unsigned, plus 0x202 is the offset of the header's end.
    pub jump: [u8; 2],
    /// [`HEADER_MAGIC`].
    pub header: U32,
    /// Protocol version: major in the high byte, minor in the low one.
    pub version: U16,
    /// Real-mode hook.
    pub realmode_swtch: U32,
    /// Obsolete.
    pub start_sys_seg: U16,
    /// File offset of the version string, less 0x200; 0 for none.
    pub kernel_version: U16,
    /// Who loads; 0xff for a loader without a number. A kernel ignores the ramdisk when it is 0.
    pub type_of_loader: u8,
    /// [`LoadFlags`].
    pub loadflags: u8,
    /// Real-mode only.
    pub setup_move_size: U16,
    /// 32-bit entry point, a physical address.
    pub code32_start: U32,
    /// Bits 31:0 of the ramdisk's physical address.
    pub ramdisk_image: U32,
    /// Bits 31:0 of the ramdisk's size in bytes.
    pub ramdisk_size: U32,
    /// Obsolete.
    pub bootsect_kludge: U32,
    /// Real-mode only.
    pub heap_end_ptr: U16,
    /// Extension of the loader's version.
    pub ext_loader_ver: u8,
    /// Extension of the loader's number.
    pub ext_loader_type: u8,
    /// Bits 31:0 of the command line's physical address.
    pub cmd_line_ptr: U32,
    /// Highest address of a ramdisk's last byte, for a kernel that is loaded below 4 GiB.
    pub initrd_addr_max: U32,
    /// Alignment of the load address in bytes, a power of two.
    pub kernel_alignment: U32,
    /// Non-zero if the kernel may be loaded at any address that is aligned.
    pub relocatable_kernel: u8,
    /// Log2 of the smallest alignment with which the kernel still boots.
    pub min_alignment: u8,
    /// [`XLoadFlags`].
    pub xloadflags: U16,
    /// The longest command line in bytes, without the terminating zero.
    pub cmdline_size: U32,
    /// Paravirtual environment; 0 for a PC.
    pub hardware_subarch: U32,
    /// Data for `hardware_subarch`.
    pub hardware_subarch_data: U64,
    /// Where the compressed kernel begins, in bytes from the start of the protected-mode code.
    pub payload_offset: U32,
    /// Bytes of the compressed kernel.
    pub payload_length: U32,
    /// Physical address of the first [`SetupData`]; 0 for none.
    pub setup_data: U64,
    /// The address the kernel would like to be loaded at. Loaded below it, it moves itself there.
    pub pref_address: U64,
    /// Bytes from the load address that the kernel needs before it has read its memory map.
    pub init_size: U32,
    /// EFI handover entry point.
    pub handover_offset: U32,
    /// Offset of `kernel_info`, in bytes from the start of the protected-mode code.
    pub kernel_info_offset: U32,
}

/// The screen as the previous kernel left it.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct ScreenInfo {
    /// Cursor column.
    pub orig_x: u8,
    /// Cursor row.
    pub orig_y: u8,
    /// Extended memory in KiB, from the BIOS.
    pub ext_mem_k: U16,
    /// Active page of text mode.
    pub orig_video_page: U16,
    /// BIOS video mode.
    pub orig_video_mode: u8,
    /// Columns of text mode.
    pub orig_video_cols: u8,
    /// Bit 0: no cursor.
    pub flags: u8,
    /// Unused.
    pub unused2: u8,
    /// EGA's BX.
    pub orig_video_ega_bx: U16,
    /// Unused.
    pub unused3: U16,
    /// Rows of text mode.
    pub orig_video_lines: u8,
    /// What the screen is: [`ScreenInfo::VLFB`], [`ScreenInfo::EFI`], 1 for VGA text, 0 for none.
    pub orig_video_is_vga: u8,
    /// Height of a character in text mode.
    pub orig_video_points: U16,
    /// Width of the framebuffer in pixels.
    pub lfb_width: U16,
    /// Height of the framebuffer in pixels.
    pub lfb_height: U16,
    /// Bits of a pixel.
    pub lfb_depth: U16,
    /// Bits 31:0 of the framebuffer's physical address.
    pub lfb_base: U32,
    /// Size of the framebuffer: in bytes for `EFI`, in 64 KiB for `VLFB`.
    pub lfb_size: U32,
    /// Old command line magic.
    pub cl_magic: U16,
    /// Old command line offset.
    pub cl_offset: U16,
    /// Bytes of a line.
    pub lfb_linelength: U16,
    /// Bits of red in a pixel.
    pub red_size: u8,
    /// Lowest bit of red.
    pub red_pos: u8,
    /// Bits of green in a pixel.
    pub green_size: u8,
    /// Lowest bit of green.
    pub green_pos: u8,
    /// Bits of blue in a pixel.
    pub blue_size: u8,
    /// Lowest bit of blue.
    pub blue_pos: u8,
    /// Reserved bits in a pixel.
    pub rsvd_size: u8,
    /// Lowest of the reserved bits.
    pub rsvd_pos: u8,
    /// VESA protected-mode interface.
    pub vesapm_seg: U16,
    /// VESA protected-mode interface.
    pub vesapm_off: U16,
    /// Pages of video memory.
    pub pages: U16,
    /// VESA attributes.
    pub vesa_attributes: U16,
    /// Bit 0: no quirks; bit 1: `ext_lfb_base` is valid.
    pub capabilities: U32,
    /// Bits 63:32 of the framebuffer's physical address.
    pub ext_lfb_base: U32,
    /// Reserved.
    pub reserved: [u8; 2],
}

impl ScreenInfo {
    /// `orig_video_is_vga`: a linear framebuffer set up by VESA.
    pub const VLFB: u8 = 0x23;
    /// `orig_video_is_vga`: a linear framebuffer set up by EFI.
    pub const EFI: u8 = 0x70;
    /// `capabilities`: `ext_lfb_base` is valid.
    pub const CAPABILITY_64BIT_BASE: u32 = 1 << 1;
}

/// Where EFI's tables are; all zero for a machine without EFI, or when they are not known.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct EfiInfo {
    /// "EL64" for 64-bit EFI.
    pub loader_signature: U32,
    /// Bits 31:0 of the system table's physical address.
    pub systab: U32,
    /// Bytes of a memory descriptor.
    pub memdesc_size: U32,
    /// Version of the memory descriptors.
    pub memdesc_version: U32,
    /// Bits 31:0 of the memory map's physical address.
    pub memmap: U32,
    /// Bytes of the memory map.
    pub memmap_size: U32,
    /// Bits 63:32 of the system table's physical address.
    pub systab_hi: U32,
    /// Bits 63:32 of the memory map's physical address.
    pub memmap_hi: U32,
}

/// The type of an [`E820Entry`] (ACPI 6.5, table 15.3).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(transparent)]
pub struct E820Type(pub U32);

impl E820Type {
    /// Free RAM.
    pub const RAM: Self = Self(U32::new(1));
    /// Not to be touched.
    pub const RESERVED: Self = Self(U32::new(2));
    /// ACPI tables, RAM once they are read.
    pub const ACPI: Self = Self(U32::new(3));
    /// ACPI non-volatile storage.
    pub const NVS: Self = Self(U32::new(4));
    /// RAM with errors.
    pub const UNUSABLE: Self = Self(U32::new(5));
    /// Persistent memory.
    pub const PMEM: Self = Self(U32::new(7));
}

impl From<MemoryKind> for E820Type {
    fn from(kind: MemoryKind) -> Self {
        match kind {
            MemoryKind::Usable => Self::RAM,
            MemoryKind::Reserved => Self::RESERVED,
            MemoryKind::AcpiReclaimable => Self::ACPI,
            MemoryKind::AcpiNvs => Self::NVS,
            MemoryKind::Unusable => Self::UNUSABLE,
            MemoryKind::Persistent => Self::PMEM,
        }
    }
}

impl From<E820Type> for MemoryKind {
    /// The kind; [`MemoryKind::Reserved`] for a type that is not known here, as the ACPI specification asks.
    fn from(e820: E820Type) -> Self {
        match e820 {
            E820Type::RAM => Self::Usable,
            E820Type::ACPI => Self::AcpiReclaimable,
            E820Type::NVS => Self::AcpiNvs,
            E820Type::UNUSABLE => Self::Unusable,
            E820Type::PMEM => Self::Persistent,
            _ => Self::Reserved,
        }
    }
}

/// An entry of the memory map that a kernel is given.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct E820Entry {
    /// First physical address.
    pub addr: U64,
    /// Bytes.
    pub size: U64,
    /// Use.
    pub kind: E820Type,
}

/// The head of a `setup_data` node; `len` bytes of data follow it.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct SetupData {
    /// Physical address of the next node; 0 for none.
    pub next: U64,
    /// What the data is.
    pub kind: SetupDataType,
    /// Bytes of data, without this head.
    pub len: U32,
}

/// The type of a [`SetupData`] node.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(transparent)]
pub struct SetupDataType(pub U32);

impl SetupDataType {
    /// More [`E820Entry`]s.
    pub const E820_EXT: Self = Self(U32::new(1));
    /// A device tree.
    pub const DTB: Self = Self(U32::new(2));
    /// A PCI option ROM.
    pub const PCI: Self = Self(U32::new(3));
    /// EFI's tables at their run-time addresses, from a kexec.
    pub const EFI: Self = Self(U32::new(4));
    /// Seed of the random number generator.
    pub const RNG_SEED: Self = Self(U32::new(9));
}

/// `struct boot_params`, one page.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct BootParams {
    /// The screen.
    pub screen_info: ScreenInfo,
    /// APM BIOS.
    pub apm_bios_info: [u8; 20],
    /// Unused.
    pub pad2: [u8; 4],
    /// Physical address of tboot's shared page.
    pub tboot_addr: U64,
    /// SpeedStep BIOS.
    pub ist_info: [u8; 16],
    /// Physical address of ACPI's RSDP; 0 if it is not known.
    pub acpi_rsdp_addr: U64,
    /// Unused.
    pub pad3: [u8; 8],
    /// Obsolete.
    pub hd0_info: [u8; 16],
    /// Obsolete.
    pub hd1_info: [u8; 16],
    /// Obsolete.
    pub sys_desc_table: [u8; 16],
    /// OLPC's Open Firmware.
    pub olpc_ofw_header: [u8; 16],
    /// Bits 63:32 of the ramdisk's physical address.
    pub ext_ramdisk_image: U32,
    /// Bits 63:32 of the ramdisk's size.
    pub ext_ramdisk_size: U32,
    /// Bits 63:32 of the command line's physical address.
    pub ext_cmd_line_ptr: U32,
    /// Unused.
    pub pad4: [u8; 112],
    /// Physical address of the SEV confidential-computing blob.
    pub cc_blob_address: U32,
    /// EDID of the monitor.
    pub edid_info: [u8; 128],
    /// EFI.
    pub efi_info: EfiInfo,
    /// Memory above 1 MiB in KiB, from the BIOS.
    pub alt_mem_k: U32,
    /// Used by the kernel itself.
    pub scratch: U32,
    /// Number of valid entries in `e820_table`.
    pub e820_entries: u8,
    /// Number of valid entries in `eddbuf`.
    pub eddbuf_entries: u8,
    /// Number of valid entries in `edd_mbr_sig_buffer`.
    pub edd_mbr_sig_buf_entries: u8,
    /// Keyboard status.
    pub kbd_status: u8,
    /// EFI's secure boot.
    pub secure_boot: u8,
    /// Unused.
    pub pad5: [u8; 2],
    /// Must be 0: a kernel that finds another value clears much of this page.
    pub sentinel: u8,
    /// Unused.
    pub pad6: u8,
    /// The setup header, copied from the file and completed.
    pub hdr: SetupHeader,
    /// Room for the header to grow.
    pub pad7: [u8; SETUP_HEADER_END_MAX - SETUP_HEADER_OFFSET - size_of::<SetupHeader>()],
    /// Enhanced disk drive.
    pub edd_mbr_sig_buffer: [U32; 16],
    /// The memory map.
    pub e820_table: [E820Entry; E820_MAX_ENTRIES_ZEROPAGE],
    /// Unused.
    pub pad8: [u8; 48],
    /// Enhanced disk drive.
    pub eddbuf: [[u8; 82]; 6],
    /// Unused.
    pub pad9: [u8; 276],
}

impl Default for BootParams {
    /// All zero, as the protocol asks a loader to begin.
    fn default() -> Self {
        Self::new_zeroed()
    }
}

macro_rules! assert_offsets {
    ($($type:ident { $($field:ident: $offset:expr),* $(,)? })*) => {
        $($(const_assert_eq!(core::mem::offset_of!($type, $field), $offset);)*)*
    };
}

const_assert_eq!(size_of::<ScreenInfo>(), 64);
const_assert_eq!(size_of::<EfiInfo>(), 32);
const_assert_eq!(size_of::<E820Entry>(), 20);
const_assert_eq!(size_of::<SetupData>(), 16);
const_assert_eq!(size_of::<SetupHeader>(), 0x26c - SETUP_HEADER_OFFSET);
const_assert_eq!(size_of::<BootParams>(), 4096);
const_assert_eq!(align_of::<BootParams>(), 1);

assert_offsets! {
    SetupHeader {
        setup_sects: 0x1f1 - 0x1f1, root_flags: 0x1f2 - 0x1f1, syssize: 0x1f4 - 0x1f1, ram_size: 0x1f8 - 0x1f1,
        vid_mode: 0x1fa - 0x1f1, root_dev: 0x1fc - 0x1f1, boot_flag: 0x1fe - 0x1f1, jump: 0x200 - 0x1f1,
        header: 0x202 - 0x1f1, version: 0x206 - 0x1f1, realmode_swtch: 0x208 - 0x1f1, start_sys_seg: 0x20c - 0x1f1,
        kernel_version: 0x20e - 0x1f1, type_of_loader: 0x210 - 0x1f1, loadflags: 0x211 - 0x1f1,
        setup_move_size: 0x212 - 0x1f1, code32_start: 0x214 - 0x1f1, ramdisk_image: 0x218 - 0x1f1,
        ramdisk_size: 0x21c - 0x1f1, bootsect_kludge: 0x220 - 0x1f1, heap_end_ptr: 0x224 - 0x1f1,
        ext_loader_ver: 0x226 - 0x1f1, ext_loader_type: 0x227 - 0x1f1, cmd_line_ptr: 0x228 - 0x1f1,
        initrd_addr_max: 0x22c - 0x1f1, kernel_alignment: 0x230 - 0x1f1, relocatable_kernel: 0x234 - 0x1f1,
        min_alignment: 0x235 - 0x1f1, xloadflags: 0x236 - 0x1f1, cmdline_size: 0x238 - 0x1f1,
        hardware_subarch: 0x23c - 0x1f1, hardware_subarch_data: 0x240 - 0x1f1, payload_offset: 0x248 - 0x1f1,
        payload_length: 0x24c - 0x1f1, setup_data: 0x250 - 0x1f1, pref_address: 0x258 - 0x1f1,
        init_size: 0x260 - 0x1f1, handover_offset: 0x264 - 0x1f1, kernel_info_offset: 0x268 - 0x1f1,
    }
    ScreenInfo {
        orig_x: 0x00, orig_y: 0x01, ext_mem_k: 0x02, orig_video_page: 0x04, orig_video_mode: 0x06,
        orig_video_cols: 0x07, flags: 0x08, unused2: 0x09, orig_video_ega_bx: 0x0a, unused3: 0x0c,
        orig_video_lines: 0x0e, orig_video_is_vga: 0x0f, orig_video_points: 0x10, lfb_width: 0x12, lfb_height: 0x14,
        lfb_depth: 0x16, lfb_base: 0x18, lfb_size: 0x1c, cl_magic: 0x20, cl_offset: 0x22, lfb_linelength: 0x24,
        red_size: 0x26, red_pos: 0x27, green_size: 0x28, green_pos: 0x29, blue_size: 0x2a, blue_pos: 0x2b,
        rsvd_size: 0x2c, rsvd_pos: 0x2d, vesapm_seg: 0x2e, vesapm_off: 0x30, pages: 0x32, vesa_attributes: 0x34,
        capabilities: 0x36, ext_lfb_base: 0x3a, reserved: 0x3e,
    }
    EfiInfo {
        loader_signature: 0x00, systab: 0x04, memdesc_size: 0x08, memdesc_version: 0x0c, memmap: 0x10,
        memmap_size: 0x14, systab_hi: 0x18, memmap_hi: 0x1c,
    }
    E820Entry { addr: 0, size: 8, kind: 16 }
    SetupData { next: 0, kind: 8, len: 12 }
    BootParams {
        screen_info: 0x000, apm_bios_info: 0x040, pad2: 0x054, tboot_addr: 0x058, ist_info: 0x060,
        acpi_rsdp_addr: 0x070, pad3: 0x078, hd0_info: 0x080, hd1_info: 0x090, sys_desc_table: 0x0a0,
        olpc_ofw_header: 0x0b0, ext_ramdisk_image: 0x0c0, ext_ramdisk_size: 0x0c4, ext_cmd_line_ptr: 0x0c8,
        pad4: 0x0cc, cc_blob_address: 0x13c, edid_info: 0x140, efi_info: 0x1c0, alt_mem_k: 0x1e0, scratch: 0x1e4,
        e820_entries: 0x1e8, eddbuf_entries: 0x1e9, edd_mbr_sig_buf_entries: 0x1ea, kbd_status: 0x1eb,
        secure_boot: 0x1ec, pad5: 0x1ed, sentinel: 0x1ef, pad6: 0x1f0, hdr: SETUP_HEADER_OFFSET, pad7: 0x26c,
        edd_mbr_sig_buffer: SETUP_HEADER_END_MAX, e820_table: 0x2d0, pad8: 0xcd0, eddbuf: 0xd00, pad9: 0xeec,
    }
}

impl BootParams {
    /// The ramdisk's physical address and size in bytes, as the two halves say; `None` for none.
    #[must_use]
    pub fn ramdisk(&self) -> Option<(u64, u64)> {
        let size = wide(self.ext_ramdisk_size, self.hdr.ramdisk_size);
        (size != 0).then(|| (wide(self.ext_ramdisk_image, self.hdr.ramdisk_image), size))
    }

    /// The command line's physical address; `None` for none.
    #[must_use]
    pub fn command_line(&self) -> Option<u64> {
        let address = wide(self.ext_cmd_line_ptr, self.hdr.cmd_line_ptr);
        (address != 0).then_some(address)
    }

    /// The valid entries of `e820_table`. There may be more in a [`SetupData`] of type [`SetupDataType::E820_EXT`].
    #[must_use]
    pub fn e820(&self) -> &[E820Entry] {
        &self.e820_table[..usize::from(self.e820_entries).min(E820_MAX_ENTRIES_ZEROPAGE)]
    }

    /// Writes the ramdisk's physical address and size in bytes, both halves.
    pub fn set_ramdisk(&mut self, address: u64, size: u64) {
        (self.ext_ramdisk_image, self.hdr.ramdisk_image) = halves(address);
        (self.ext_ramdisk_size, self.hdr.ramdisk_size) = halves(size);
    }

    /// Writes the command line's physical address, both halves.
    pub fn set_command_line(&mut self, address: u64) {
        (self.ext_cmd_line_ptr, self.hdr.cmd_line_ptr) = halves(address);
    }
}

fn wide(high: U32, low: U32) -> u64 {
    u64::from(high.get()) << 32 | u64::from(low.get())
}

fn halves(value: u64) -> (U32, U32) {
    (U32::new((value >> 32) as u32), U32::new(value as u32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ramdisk_above_4_gib_is_written_and_read_in_both_halves() {
        let mut params = BootParams::default();
        params.set_ramdisk(0x1_2345_6000, 0x2_0000_0007);
        let bytes = params.as_bytes();
        assert_eq!(bytes[0x218..0x220], [0x00, 0x60, 0x45, 0x23, 0x07, 0, 0, 0]);
        assert_eq!(bytes[0xc0..0xc8], [1, 0, 0, 0, 2, 0, 0, 0]);
        assert_eq!(params.ramdisk(), Some((0x1_2345_6000, 0x2_0000_0007)));
    }

    #[test]
    fn a_command_line_above_4_gib_is_written_and_read_in_both_halves() {
        let mut params = BootParams::default();
        assert_eq!(params.command_line(), None);
        params.set_command_line(0x7_0000_1000);
        assert_eq!(params.as_bytes()[0x228..0x22c], [0, 0x10, 0, 0]);
        assert_eq!(params.as_bytes()[0xc8], 7);
        assert_eq!(params.command_line(), Some(0x7_0000_1000));
    }

    #[test]
    fn an_e820_count_over_the_tables_size_reads_no_further_than_the_table() {
        let params = BootParams { e820_entries: 255, ..Default::default() };
        assert_eq!(params.e820().len(), 128);
    }

    #[test]
    fn every_memory_kind_survives_the_way_through_e820_and_unknown_types_are_reserved() {
        for kind in [
            MemoryKind::Usable,
            MemoryKind::Reserved,
            MemoryKind::AcpiReclaimable,
            MemoryKind::AcpiNvs,
            MemoryKind::Unusable,
            MemoryKind::Persistent,
        ] {
            assert_eq!(MemoryKind::from(E820Type::from(kind)), kind);
        }
        assert_eq!(MemoryKind::from(E820Type(U32::new(0xf000_0000))), MemoryKind::Reserved);
    }
}
