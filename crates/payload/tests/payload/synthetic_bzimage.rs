//! A bzImage made from Documentation/arch/x86/boot.rst, field by field at its documented offset.

#[derive(Clone, Debug)]
pub(crate) struct SyntheticBzImage {
    pub(crate) setup_sects: u8,
    pub(crate) boot_flag: u16,
    pub(crate) jump: u8,
    pub(crate) header: [u8; 4],
    pub(crate) version: u16,
    pub(crate) loadflags: u8,
    pub(crate) initrd_addr_max: u32,
    pub(crate) kernel_alignment: u32,
    pub(crate) relocatable_kernel: u8,
    pub(crate) xloadflags: u16,
    pub(crate) cmdline_size: u32,
    pub(crate) payload_offset: u32,
    pub(crate) payload_length: u32,
    pub(crate) pref_address: u64,
    pub(crate) init_size: u32,
    /// In units of 16 bytes; `None` for what fits `code`.
    pub(crate) syssize: Option<u32>,
    /// Bytes of protected-mode code.
    pub(crate) code: usize,
}

impl Default for SyntheticBzImage {
    /// Like a small Debian kernel, but for the sizes.
    fn default() -> Self {
        Self {
            setup_sects: 3,
            boot_flag: 0xaa55,
            jump: 0x6a,
            header: *b"HdrS",
            version: 0x020f,
            loadflags: 0x01,
            initrd_addr_max: 0x7fff_ffff,
            kernel_alignment: 0x20_0000,
            relocatable_kernel: 1,
            xloadflags: 0x7f,
            cmdline_size: 2047,
            payload_offset: 0x2c0,
            payload_length: 0x1000,
            pref_address: 0x100_0000,
            init_size: 0x8000,
            syssize: None,
            code: 0x2460,
        }
    }
}

impl SyntheticBzImage {
    /// Where the protected-mode code begins in the file.
    pub(crate) fn code_offset(&self) -> usize {
        let sectors = if self.setup_sects == 0 { 4 } else { usize::from(self.setup_sects) };
        (sectors + 1) * 512
    }

    /// The protected-mode code: no two pages of it alike.
    pub(crate) fn code_bytes(&self) -> Vec<u8> {
        (0..self.code).map(|n| (n * 7 + n / 251) as u8 | 1).collect()
    }

    pub(crate) fn build(&self) -> Vec<u8> {
        let mut file = vec![0xcc; self.code_offset()];
        let mut put = |offset: usize, bytes: &[u8]| file[offset..offset + bytes.len()].copy_from_slice(bytes);
        // What a loader must overwrite or ignore holds 0xcc, from before the header to after it.
        put(0x1f1, &[self.setup_sects]);
        put(0x1f4, &self.syssize.unwrap_or((self.code / 16) as u32).to_le_bytes());
        put(0x1fe, &self.boot_flag.to_le_bytes());
        put(0x200, &[0xeb, self.jump]);
        put(0x202, &self.header);
        put(0x206, &self.version.to_le_bytes());
        put(0x211, &[self.loadflags]);
        put(0x22c, &self.initrd_addr_max.to_le_bytes());
        put(0x230, &self.kernel_alignment.to_le_bytes());
        put(0x234, &[self.relocatable_kernel]);
        put(0x236, &self.xloadflags.to_le_bytes());
        put(0x238, &self.cmdline_size.to_le_bytes());
        put(0x248, &self.payload_offset.to_le_bytes());
        put(0x24c, &self.payload_length.to_le_bytes());
        put(0x258, &self.pref_address.to_le_bytes());
        put(0x260, &self.init_size.to_le_bytes());
        file.extend(self.code_bytes());
        file
    }
}
