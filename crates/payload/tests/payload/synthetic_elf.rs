//! An ELF64 file made from the generic ABI's tables, field by field.

pub(crate) const PT_LOAD: u32 = 1;
pub(crate) const PT_DYNAMIC: u32 = 2;
pub(crate) const PT_INTERP: u32 = 3;
pub(crate) const X: u32 = 1;
pub(crate) const W: u32 = 2;
pub(crate) const R: u32 = 4;

#[derive(Clone, Debug)]
pub(crate) struct Segment {
    pub(crate) p_type: u32,
    pub(crate) flags: u32,
    pub(crate) vaddr: u64,
    pub(crate) paddr: u64,
    pub(crate) data: Vec<u8>,
    pub(crate) memsz: u64,
    pub(crate) align: u64,
    /// Instead of the place where `data` really is.
    pub(crate) offset: Option<u64>,
    /// Instead of `data`'s length.
    pub(crate) filesz: Option<u64>,
}

impl Segment {
    pub(crate) fn load(flags: u32, at: u64, data: &[u8], memsz: u64) -> Self {
        Self {
            p_type: PT_LOAD,
            flags,
            vaddr: at,
            paddr: at,
            data: data.to_vec(),
            memsz,
            align: 0x1000,
            offset: None,
            filesz: None,
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct SyntheticElf {
    pub(crate) ident: [u8; 7],
    pub(crate) e_type: u16,
    pub(crate) e_machine: u16,
    pub(crate) e_entry: u64,
    pub(crate) e_phoff: u64,
    pub(crate) e_phentsize: u16,
    pub(crate) e_phnum: Option<u16>,
    pub(crate) segments: Vec<Segment>,
}

impl Default for SyntheticElf {
    /// A kernel at 2 MiB: text, read-only data, and data with bss that shares a page with the read-only data.
    fn default() -> Self {
        let bytes =
            |len: usize, seed: usize| (0..len).map(|n| (n * 13 + n / 255 + seed) as u8).collect::<Vec<_>>();
        Self {
            ident: [0x7f, b'E', b'L', b'F', 2, 1, 1],
            e_type: 2,
            e_machine: 62,
            e_entry: 0x20_0010,
            e_phoff: 64,
            e_phentsize: 56,
            e_phnum: None,
            segments: vec![
                Segment::load(R | X, 0x20_0000, &bytes(0x1234, 1), 0x1234),
                Segment::load(R, 0x20_3000, &bytes(0x1801, 2), 0x1801),
                Segment::load(R | W, 0x20_4900, &bytes(0x300, 3), 0x5000),
            ],
        }
    }
}

impl SyntheticElf {
    /// A position-independent kernel linked at 0, whose table of three relocations lies in its read-only segment.
    /// `relocations` are offset, type, addend.
    pub(crate) fn position_independent(relocations: &[(u64, u64, i64)]) -> Self {
        let mut table = Vec::new();
        for (offset, kind, addend) in relocations {
            table.extend(offset.to_le_bytes());
            table.extend(kind.to_le_bytes());
            table.extend(addend.to_le_bytes());
        }
        let tags = [(5, 0x123), (7, 0x1100), (8, table.len() as u64), (9, 24), (0, 0), (1, 0)];
        let dynamic: Vec<u8> = tags
            .iter()
            .flat_map(|(tag, value): &(u64, u64)| [tag.to_le_bytes(), value.to_le_bytes()].concat())
            .collect();
        let mut read_only = vec![0x11; 0x100];
        read_only.extend(&table);
        let mut segment = Segment::load(R | W, 0x3000, &dynamic, dynamic.len() as u64);
        segment.p_type = PT_DYNAMIC;
        let size = read_only.len() as u64;
        Self {
            e_type: 3,
            e_entry: 0x10,
            segments: vec![
                Segment::load(R | X, 0, &[0x90; 0x200], 0x200),
                Segment::load(R, 0x1000, &read_only, size),
                Segment::load(R | W, 0x2ff0, &[0; 0x100], 0x3000),
                segment,
            ],
            ..Default::default()
        }
    }

    pub(crate) fn build(&self) -> Vec<u8> {
        let mut file = self.ident.to_vec();
        file.resize(16, 0);
        let phnum = self.e_phnum.unwrap_or(self.segments.len() as u16);
        file.extend(self.e_type.to_le_bytes());
        file.extend(self.e_machine.to_le_bytes());
        file.extend(1u32.to_le_bytes());
        file.extend(self.e_entry.to_le_bytes());
        file.extend(self.e_phoff.to_le_bytes());
        file.extend(0u64.to_le_bytes());
        file.extend(0u32.to_le_bytes());
        for half in [64, self.e_phentsize, phnum, 0, 0, 0] {
            file.extend(half.to_le_bytes());
        }
        let mut offset = 64 + 56 * self.segments.len() as u64;
        for segment in &self.segments {
            file.extend(segment.p_type.to_le_bytes());
            file.extend(segment.flags.to_le_bytes());
            file.extend(segment.offset.unwrap_or(offset).to_le_bytes());
            file.extend(segment.vaddr.to_le_bytes());
            file.extend(segment.paddr.to_le_bytes());
            file.extend(segment.filesz.unwrap_or(segment.data.len() as u64).to_le_bytes());
            file.extend(segment.memsz.to_le_bytes());
            file.extend(segment.align.to_le_bytes());
            offset += segment.data.len() as u64;
        }
        for segment in &self.segments {
            file.extend(&segment.data);
        }
        file
    }
}
