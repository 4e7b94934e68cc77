//! The INS8250, NS16450, NS16550 and PC16550D, after National Semiconductor's data sheets; independent of the crate's and of
//! `uart_16550`'s register definitions.
//!
//! Time is counted in register accesses: a character takes as many of them as the test says.

use std::collections::VecDeque;

use super::Chip;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Model {
    /// No scratch register, no FIFO.
    Ins8250,
    /// Scratch register, no FIFO.
    Ns16450,
    /// A FIFO that loses characters: never to be used. Identifies itself by bit 7 alone.
    Ns16550,
    /// A FIFO of 16.
    Pc16550d,
}

/// A character that went out on the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) byte: u8,
    /// The divisor latch and the line control when its last bit went out.
    pub(crate) divisor: u16,
    pub(crate) line_control: u8,
}

pub(crate) struct Uart {
    pub(crate) model: Model,
    /// Register accesses that a character takes; `usize::MAX`: it never gets out.
    pub(crate) ticks: usize,
    pub(crate) sent: Vec<Sent>,
    /// Characters written over before they were sent.
    pub(crate) lost: usize,
    pub(crate) divisor: u16,
    pub(crate) interrupt_enable: u8,
    pub(crate) modem_control: u8,
    line_control: u8,
    /// Of the line status; cleared when read.
    errors: u8,
    fifo_control: u8,
    scratch: u8,
    /// THR, or the FIFO behind it.
    holding: VecDeque<u8>,
    shifting: Option<(u8, usize)>,
}

const DLAB: u8 = 0x80;

impl Uart {
    /// As firmware leaves it: 9600n8, FIFO off.
    pub(crate) fn new(model: Model, ticks: usize) -> Self {
        Self {
            model,
            ticks,
            sent: Vec::new(),
            lost: 0,
            divisor: 12,
            interrupt_enable: 0,
            line_control: 3,
            modem_control: 0,
            errors: 0,
            fifo_control: 0,
            scratch: 0,
            holding: VecDeque::new(),
            shifting: None,
        }
    }

    pub(crate) fn with_fifo_on(mut self) -> Self {
        self.fifo_control = 1;
        self
    }

    /// As a receiver sets the error bits of the line status.
    pub(crate) fn with_errors(mut self, errors: u8) -> Self {
        self.errors = errors;
        self
    }

    /// As after a driver that used interrupts.
    pub(crate) fn with_interrupts(mut self) -> Self {
        self.interrupt_enable = 0x0f;
        self
    }

    /// As after a program that left characters in the FIFO.
    pub(crate) fn with_backlog(mut self, bytes: &[u8]) -> Self {
        self.holding.extend(bytes);
        self
    }

    /// What was heard at the other end, once all is out.
    pub(crate) fn heard(&mut self) -> Vec<u8> {
        for _ in 0..100_000 {
            self.tick();
        }
        self.sent.iter().map(|sent| sent.byte).collect()
    }

    pub(crate) fn fifo_is_on(&self) -> bool {
        self.fifo_control & 1 != 0
    }

    fn capacity(&self) -> usize {
        match self.model {
            Model::Pc16550d if self.fifo_is_on() => 16,
            _ => 1,
        }
    }

    fn tick(&mut self) {
        if let Some((byte, left)) = &mut self.shifting {
            *left = left.saturating_sub(usize::from(self.ticks != usize::MAX));
            if *left == 0 {
                self.sent.push(Sent { byte: *byte, divisor: self.divisor, line_control: self.line_control });
                self.shifting = None;
            }
        }
        if self.shifting.is_none() {
            self.shifting = self.holding.pop_front().map(|byte| (byte, self.ticks));
        }
    }
}

impl Chip for Uart {
    fn read(&mut self, register: u8) -> u8 {
        self.tick();
        match (register, self.line_control & DLAB != 0) {
            (0, true) => self.divisor as u8,
            (1, true) => (self.divisor >> 8) as u8,
            (0, false) => 0,
            (1, false) => self.interrupt_enable,
            (2, _) => {
                1 | match (self.model, self.fifo_is_on()) {
                    (Model::Pc16550d, true) => 0xc0,
                    (Model::Ns16550, true) => 0x80,
                    _ => 0,
                }
            }
            (3, _) => self.line_control,
            (4, _) => self.modem_control,
            (5, _) => {
                let empty = self.holding.is_empty();
                let idle = empty && self.shifting.is_none();
                u8::from(empty) << 5 | u8::from(idle) << 6 | std::mem::take(&mut self.errors)
            }
            (6, _) => 0xb0,
            (7, _) if self.model == Model::Ins8250 => 0xff,
            (7, _) => self.scratch,
            _ => unreachable!("eight registers"),
        }
    }

    fn write(&mut self, register: u8, value: u8) {
        self.tick();
        match (register, self.line_control & DLAB != 0) {
            (0, true) => self.divisor = self.divisor & 0xff00 | u16::from(value),
            (1, true) => self.divisor = self.divisor & 0x00ff | u16::from(value) << 8,
            (0, false) => {
                if self.holding.len() == self.capacity() {
                    self.holding.pop_back();
                    self.lost += 1;
                }
                self.holding.push_back(value);
            }
            (1, false) => self.interrupt_enable = value & 0x0f,
            (2, _) if matches!(self.model, Model::Ns16550 | Model::Pc16550d) => {
                // "Bit 0 must be a 1 when other FCR bits are written to"; a change of it clears the FIFOs.
                if (value ^ self.fifo_control) & 1 != 0 || value & 5 == 5 {
                    self.lost += self.holding.len();
                    self.holding.clear();
                }
                self.fifo_control = value;
            }
            (2, _) => {}
            (3, _) => self.line_control = value,
            (4, _) => self.modem_control = value & 0x1f,
            (5, _) | (6, _) => {} // read only, but in the factory
            (7, _) => self.scratch = value,
            _ => unreachable!("eight registers"),
        }
    }
}

/// A port where nothing answers: every read gives this.
pub(crate) struct Nothing(pub(crate) u8);

impl Chip for Nothing {
    fn read(&mut self, _: u8) -> u8 {
        self.0
    }

    fn write(&mut self, _: u8, _: u8) {}
}
