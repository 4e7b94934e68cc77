//! A kernel's ELF: from addresses to functions, files and lines, and to the bytes that were linked there.

use core::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use object::elf::{PF_X, PT_LOAD};
use object::read::elf::{FileHeader, ProgramHeader};
use object::{Object, ObjectKind, ObjectSymbol};

use crate::plan::Plan;

/// A kernel, as it was linked and as far as it is known where it was loaded.
pub struct Kernel {
    name: String,
    loader: addr2line::Loader,
    segments: Vec<Segment>,
    symbols: Vec<Symbol>,
    entry: u64,
    relocatable: bool,
    bias: Option<u64>,
}

/// A loaded part of the file.
struct Segment {
    linked: Range<u64>,
    physical: u64,
    executable: bool,
    bytes: Vec<u8>,
}

struct Symbol {
    address: u64,
    size: u64,
    name: String,
}

/// A function at an address, or one that was inlined there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// Demangled; empty where it is not known.
    pub function: String,
    /// The source file and line.
    pub location: Option<(String, Option<u32>)>,
}

/// A symbol and the distance from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Near {
    /// Demangled.
    pub name: String,
    /// Bytes past the symbol.
    pub offset: u64,
}

impl Kernel {
    /// Reads the kernel at `path`. `bias` is what was added to each address that it was linked at, for a kernel that can be
    /// loaded anywhere; where it is not known, [`find_bias`](Self::find_bias) may find it.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or is no 64-bit ELF.
    pub fn open(path: impl AsRef<Path>, bias: Option<u64>) -> Result<Self> {
        let path = path.as_ref();
        Self::read(path, bias).with_context(|| format!("cannot use {} as a kernel", path.display()))
    }

    /// Reads the kernel that a command line names: `ELF`, or `ELF@BIAS` with a hexadecimal bias (`0x` may be left out).
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn from_argument(argument: &str) -> Result<Self> {
        let bias = |digits: &str| u64::from_str_radix(digits.strip_prefix("0x").unwrap_or(digits), 16).ok();
        if let Some((path, digits)) = argument.rsplit_once('@')
            && let Some(bias) = bias(digits)
            && !Path::new(argument).exists()
        {
            return Self::open(path, Some(bias));
        }
        Self::open(PathBuf::from(argument), None)
    }

    fn read(path: &Path, bias: Option<u64>) -> Result<Self> {
        let data = std::fs::read(path)?;
        let elf = object::elf::FileHeader64::<object::Endianness>::parse(&*data)?;
        let endian = elf.endian()?;
        let mut segments = Vec::new();
        for header in elf.program_headers(endian, &*data)? {
            if header.p_type(endian) != PT_LOAD {
                continue;
            }
            let start = header.p_vaddr(endian);
            segments.push(Segment {
                linked: start..start.saturating_add(header.p_memsz(endian)),
                physical: header.p_paddr(endian),
                executable: header.p_flags(endian).0 & PF_X.0 != 0,
                bytes: header.data(endian, &*data).unwrap_or_default().to_vec(),
            });
        }
        let object = object::File::parse(&*data)?;
        let mut symbols: Vec<Symbol> = object
            .symbols()
            .filter(|symbol| !symbol.is_undefined() && symbol.kind() != object::SymbolKind::File)
            .filter(|symbol| symbol.kind() != object::SymbolKind::Section)
            .filter_map(|symbol| {
                Some(Symbol {
                    address: symbol.address(),
                    size: symbol.size(),
                    name: symbol.name().ok()?.to_owned(),
                })
            })
            .filter(|symbol| !symbol.name.is_empty() && !symbol.name.starts_with("$"))
            .collect();
        symbols.sort_by_key(|symbol| symbol.address);
        let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        let loader = addr2line::Loader::new(path).map_err(|error| anyhow!("{error}"))?;
        let relocatable = object.kind() == ObjectKind::Dynamic;
        Ok(Kernel { name, loader, segments, symbols, entry: object.entry(), relocatable, bias })
    }

    /// The file's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What was added to each linked address; `None` where the kernel can be loaded anywhere and it is not known.
    #[must_use]
    pub fn bias(&self) -> Option<u64> {
        if self.relocatable { self.bias } else { Some(self.bias.unwrap_or(0)) }
    }

    /// Sets the bias of a kernel for which it is not known yet, from what is shown: by a line of the log `NAME: image base 0x…`,
    /// where NAME is that of the kernel's file; by a plan that enters the kernel in one of its segments; by such a line that
    /// is the only one, whatever its name; by the bytes at some RIP, where they occur just once in the text, at the same place
    /// in a page.
    pub fn find_bias(&mut self, log: &[u8], plans: &[Plan], code: &[(u64, Vec<u8>)]) {
        if self.bias().is_none() {
            self.bias = self
                .printed_bias(log, true)
                .or_else(|| plans.iter().rev().find_map(|plan| self.planned_bias(plan)))
                .or_else(|| self.printed_bias(log, false))
                .or_else(|| code.iter().find_map(|(rip, code)| self.bias_of(*rip, code)));
        }
    }

    /// From a line with this kernel's name, or from the only line.
    fn printed_bias(&self, log: &[u8], by_name: bool) -> Option<u64> {
        let mut bases: Vec<(String, u64)> = String::from_utf8_lossy(log)
            .lines()
            .filter_map(|line| {
                let (front, base) = line.split_once(": image base 0x")?;
                let digits = base.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(base.len());
                let name = front.split_whitespace().last()?.to_owned();
                Some((name, u64::from_str_radix(&base[..digits], 16).ok()?))
            })
            .collect();
        let stem = Path::new(&self.name).file_stem().map(|stem| stem.to_string_lossy().into_owned());
        let named = bases.iter().rev().find(|(name, _)| *name == self.name || Some(name) == stem.as_ref());
        let base = match named {
            Some((_, base)) => *base,
            None if by_name => return None,
            None => {
                bases.dedup_by_key(|(_, base)| *base);
                let [(_, base)] = bases[..] else { return None };
                base
            }
        };
        Some(base.wrapping_sub(self.first_address() & !0xfff))
    }

    fn planned_bias(&self, plan: &Plan) -> Option<u64> {
        let bias = plan.entry?.wrapping_sub(self.entry);
        let planned = |segment: &Segment| plan.segment(segment.linked.start.wrapping_add(bias)).is_some();
        (bias & 0xfff == 0 && self.segments.iter().all(planned)).then_some(bias)
    }

    fn bias_of(&self, rip: u64, code: &[u8]) -> Option<u64> {
        // Fewer bytes occur by chance.
        if code.len() < 8 {
            return None;
        }
        let mut biases = self.segments.iter().filter(|segment| segment.executable).flat_map(|segment| {
            let first = (rip.wrapping_sub(segment.linked.start) & 0xfff) as usize;
            (first..segment.bytes.len())
                .step_by(4096)
                .filter(|&at| segment.bytes[at..].starts_with(code))
                .map(|at| rip.wrapping_sub(segment.linked.start.wrapping_add(at as u64)))
        });
        match (biases.next(), biases.next()) {
            (Some(bias), None) => Some(bias),
            _ => None,
        }
    }

    fn first_address(&self) -> u64 {
        self.segments.iter().map(|segment| segment.linked.start).min().unwrap_or(0)
    }

    /// The address at which what lies at `address` was linked, if that is in the kernel: by its virtual addresses with the
    /// bias, or else by the physical addresses of its program headers, as before a kernel has set up its own map.
    #[must_use]
    pub fn linked(&self, address: u64) -> Option<u64> {
        let linked = address.wrapping_sub(self.bias()?);
        if self.segments.iter().any(|segment| segment.linked.contains(&linked)) {
            return Some(linked);
        }
        self.segments.iter().filter(|segment| segment.physical != segment.linked.start).find_map(|segment| {
            let offset = linked.checked_sub(segment.physical)?;
            let size = segment.linked.end - segment.linked.start;
            (offset < size).then(|| segment.linked.start.wrapping_add(offset))
        })
    }

    /// Whether `address` lies in the kernel's text.
    #[must_use]
    pub fn is_text(&self, address: u64) -> bool {
        self.linked(address)
            .is_some_and(|linked| self.segment(linked).is_some_and(|segment| segment.executable))
    }

    fn segment(&self, linked: u64) -> Option<&Segment> {
        self.segments.iter().find(|segment| segment.linked.contains(&linked))
    }

    /// Up to `length` bytes of the file that belong at `address`.
    #[must_use]
    pub fn bytes(&self, address: u64, length: usize) -> Option<&[u8]> {
        let linked = self.linked(address)?;
        let segment = self.segment(linked)?;
        let from = usize::try_from(linked - segment.linked.start).ok()?;
        let rest = segment.bytes.get(from..).filter(|rest| !rest.is_empty())?;
        Some(&rest[..length.min(rest.len())])
    }

    /// The functions at `address`, the innermost inlined one first. Empty where there is no debug information.
    #[must_use]
    pub fn frames(&self, address: u64) -> Vec<Frame> {
        let Some(linked) = self.linked(address) else { return Vec::new() };
        let mut frames = Vec::new();
        let Ok(mut iterator) = self.loader.find_frames(linked) else { return frames };
        while let Ok(Some(frame)) = iterator.next() {
            let function = match &frame.function {
                Some(function) => function.demangle().map(|name| name.into_owned()).unwrap_or_default(),
                None => String::new(),
            };
            let location = frame.location.and_then(|at| Some((at.file?.to_owned(), at.line)));
            if !function.is_empty() || location.is_some() {
                frames.push(Frame { function, location });
            }
        }
        frames
    }

    /// The function or datum that `address` lies in, or else the last label at or below it, in the same loaded part.
    #[must_use]
    pub fn near(&self, address: u64) -> Option<Near> {
        let linked = self.linked(address)?;
        let segment = self.segment(linked)?;
        let count = self.symbols.partition_point(|symbol| symbol.address <= linked);
        let mut below =
            self.symbols[..count].iter().rev().filter(|symbol| segment.linked.contains(&symbol.address));
        let around = below.clone().find(|symbol| linked - symbol.address < symbol.size);
        let symbol = around.or_else(|| below.next())?;
        let name = format!("{:#}", rustc_demangle::demangle(&symbol.name));
        Some(Near { name, offset: linked - symbol.address })
    }

    /// The template of the piece of page code of that name: the address where it was linked, and the bytes from there on.
    #[must_use]
    pub fn piece(&self, name: &str) -> Option<(u64, &[u8])> {
        let end = format!("_{name}");
        let symbol = self
            .symbols
            .iter()
            .find(|symbol| symbol.name.starts_with("page_code_") && symbol.name.ends_with(&end))?;
        let segment = self.segment(symbol.address)?;
        let from = usize::try_from(symbol.address - segment.linked.start).ok()?;
        Some((symbol.address, segment.bytes.get(from..)?))
    }
}
