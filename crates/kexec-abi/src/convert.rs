//! Conversions from and into the types of other crates, and adaptors for what they give. Each behind a feature that is named for
//! the version it serves.

#[cfg(feature = "bootloader_api_0_11")]
pub mod bootloader_api_0_11;
#[cfg(all(feature = "x86_64_0_15", target_arch = "x86_64"))]
pub mod x86_64_0_15;
