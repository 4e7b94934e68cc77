#![no_std]
//! 
