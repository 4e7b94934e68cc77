//! Where the transition stops for a dump, and goes on.

use kexec_abi::Phase;

bitflags::bitflags! {
    /// An `int3` on reaching each of these phases. Bit n stands for phase n.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Breakpoints: u64 {
        /// The debug tables have been loaded under the running kernel's map.
        const ENTER = 1 << Phase::Enter as u64;
        /// The code frame has been reached.
        const IDENTITY = 1 << Phase::Identity as u64;
        /// The list is about to be walked.
        const MOVE = 1 << Phase::Move as u64;
        /// The new kernel is about to be entered.
        const LEAVE = 1 << Phase::Leave as u64;
        /// The callee has returned.
        const REENTER = 1 << Phase::Reenter as u64;
        /// The list is about to be walked back.
        const MOVE_BACK = 1 << Phase::MoveBack as u64;
        /// The running kernel's map is about to be restored.
        const RESTORE = 1 << Phase::Restore as u64;
    }
}
