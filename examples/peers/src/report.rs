//! What a peer tells its caller, in a page of the caller's.

/// The physical address of it comes in RSI.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Report {
    /// How often the peer was entered.
    pub rounds: u64,
    /// Where its data lies: a physical address.
    pub data: u64,
    /// Its length in bytes.
    pub len: u64,
    /// The digest of the data as the peer left it: see [`digest`](Report::digest).
    pub digest: u64,
    /// Not 0: the data was not what the peer had left there the time before.
    pub changed: u64,
}

impl Report {
    /// The digest of some words.
    pub fn digest(words: impl Iterator<Item = u64>) -> u64 {
        words.fold(0, |digest, word| (digest ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29))
    }
}
