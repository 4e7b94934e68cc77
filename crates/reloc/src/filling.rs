//! Fills an image from a payload.

use core::fmt;

use kexec_abi::{FrameAllocator, PhysAddr, PhysMemory, PhysRange};
use kexec_payload::Sink;

use crate::image::{AddError, Image, WriteError};

/// An [`Image`] and the memory that its frames come from, as a place where the loaders of `kexec-payload` put what they read.
#[derive(Debug)]
pub struct Filling<'f, 'a, M> {
    image: &'f mut Image<'a>,
    memory: &'f mut M,
}

impl<'a> Image<'a> {
    /// The image as the sink of a loader.
    pub fn filling<'f, M>(&'f mut self, memory: &'f mut M) -> Filling<'f, 'a, M>
    where
        M: PhysMemory + FrameAllocator,
    {
        Filling { image: self, memory }
    }
}

/// What can go wrong in the image while a payload is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FillError {
    /// A segment was not added.
    Add(AddError),
    /// Bytes were not written.
    Write(WriteError),
}

impl fmt::Display for FillError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Add(error) => error.fmt(f),
            Self::Write(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for FillError {}

impl<M: PhysMemory + FrameAllocator> Sink for Filling<'_, '_, M> {
    type Error = FillError;

    fn segment(&mut self, destination: PhysRange) -> Result<(), FillError> {
        self.image.add(destination).map_err(FillError::Add)
    }

    fn write(&mut self, at: PhysAddr, bytes: &[u8]) -> Result<(), FillError> {
        self.image.write(self.memory, at, bytes).map_err(FillError::Write)
    }
}
