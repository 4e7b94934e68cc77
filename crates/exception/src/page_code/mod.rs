//! The exceptions of a kexec transition, as page code.
