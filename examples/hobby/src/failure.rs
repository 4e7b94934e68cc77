//! All that can go wrong on the way to the next kernel, in one type for `?`.

use core::fmt;

use kexec_abi::Unreachable;
use kexec_payload::{BzImageError, ElfError, LoadError, Part, PlaceError, Request};
use reloc::{AddError, FillError, PrepareError, Refused, WriteError};

/// Why the next kernel was not entered.
#[derive(Clone, Copy, Debug)]
pub enum Failure {
    /// The bundle has no such file.
    Missing(&'static str),
    /// The file is not the ELF file of a kernel.
    Elf(ElfError),
    /// The file is not a bzImage that can be entered.
    BzImage(BzImageError),
    /// The file could not be loaded.
    Load(LoadError<FillError>),
    /// A segment was not added.
    Add(AddError),
    /// A segment was not written.
    Write(WriteError),
    /// The image could not be prepared.
    Prepare(PrepareError),
    /// A frame cannot be reached.
    Unreachable(Unreachable),
    /// The jump was refused.
    Refused(Refused),
}

impl Failure {
    /// No place in memory for a kernel.
    pub const fn no_room(request: Request) -> Self {
        Self::Load(LoadError::Place(PlaceError::NoRoom { part: Part::Kernel, request }))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(name) => write!(f, "the bundle has no file {name}"),
            Self::Elf(error) => error.fmt(f),
            Self::BzImage(error) => error.fmt(f),
            Self::Load(error) => error.fmt(f),
            Self::Add(error) => error.fmt(f),
            Self::Write(error) => error.fmt(f),
            Self::Prepare(error) => error.fmt(f),
            Self::Unreachable(error) => error.fmt(f),
            Self::Refused(error) => error.fmt(f),
        }
    }
}

macro_rules! from {
    ($($error:ty => $variant:ident),* $(,)?) => {
        $(impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self::$variant(error)
            }
        })*
    };
}

from! {
    ElfError => Elf,
    BzImageError => BzImage,
    LoadError<FillError> => Load,
    AddError => Add,
    WriteError => Write,
    PrepareError => Prepare,
    Unreachable => Unreachable,
    Refused => Refused,
}
