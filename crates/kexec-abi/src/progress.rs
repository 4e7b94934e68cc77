//! How far a transition has come: written by the engine, read by whoever prints a dump.

/// Where in the transition the engine is. The discriminant is what [`Progress::phase`] holds and a dump prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
#[non_exhaustive]
pub enum Phase {
    /// Under the old map: the debug descriptor tables are being loaded.
    Enter = 1,
    /// In the code frame, under the transition map: control registers are set, the debug tables taken over.
    Identity = 2,
    /// The list is walked.
    Move = 3,
    /// The new kernel's registers are loaded, its paging depth is set, the jump is made; and all the time it runs
    /// without a descriptor table of its own.
    Leave = 4,
    /// The callee has returned: the control block is found again, control registers are set.
    Reenter = 5,
    /// The list is walked back.
    MoveBack = 6,
    /// The old kernel's map and registers are restored.
    Restore = 7,
}

impl Phase {
    /// All phases, in order.
    pub const ALL: [Self; 7] =
        [Self::Enter, Self::Identity, Self::Move, Self::Leave, Self::Reenter, Self::MoveBack, Self::Restore];

    /// The phase with the given discriminant.
    #[must_use]
    pub fn from_u64(value: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|phase| *phase as u64 == value)
    }

    /// The name that plans, dumps and commands use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Enter => "enter",
            Self::Identity => "identity",
            Self::Move => "move",
            Self::Leave => "leave",
            Self::Reenter => "reenter",
            Self::MoveBack => "move-back",
            Self::Restore => "restore",
        }
    }
}

/// What the engine notes as it goes. Valid when read by a dumper on the same processor, at any instruction boundary.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Progress {
    /// The [`Phase`], or 0 before the first.
    pub phase: u64,
    /// The list entry at hand, as it stands in the list; 0 outside a walk.
    pub entry: u64,
    /// Physical address of that entry; 0 for the head and outside a walk.
    pub entry_address: u64,
    /// Physical address of the code frame, where the pieces lie as the plan says.
    pub code: u64,
}

static_assertions::assert_eq_size!(Progress, [u8; 32]);
static_assertions::const_assert_eq!(core::mem::offset_of!(Progress, phase), 0);
static_assertions::const_assert_eq!(core::mem::offset_of!(Progress, entry), 8);
static_assertions::const_assert_eq!(core::mem::offset_of!(Progress, entry_address), 16);
static_assertions::const_assert_eq!(core::mem::offset_of!(Progress, code), 24);
