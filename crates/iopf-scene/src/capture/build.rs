//! How a VMM writes a capture at the moment of a fault.

use super::{Arch, Capture, Expect, Limits, Range, Registers, Request, Span};
use iopf::Gpa;
use std::collections::BTreeMap;

/// Puts a capture together.
///
/// ```
/// use iopf::{Access, Gpa, GroupIndex, Iova, Rid};
/// use iopf_scene::capture::{Arch, Builder, Device, Request, RequestKind};
///
/// let mut builder = Builder::new(Arch::Vtd);
/// builder.note("seen while the guest started its network card");
/// assert!(builder.register("RTADDR_REG", 0x10000));
/// builder.word(Gpa(0x10000), 0x11001);
/// builder.request(Request {
///     device: Device::Pci { segment: 0, rid: Rid(0x0028) },
///     pasid: None,
///     kind: RequestKind::Untranslated,
///     addr: Iova(0x7f00_1000),
///     len: 1,
///     access: Access::READ,
///     no_write: false,
///     group: GroupIndex(0),
///     last: false,
/// });
/// let text = builder.build().to_text();
/// assert!(text.contains("0x0000000000011001"));
/// ```
#[derive(Clone, Debug)]
pub struct Builder {
    arch: Arch,
    note: String,
    registers: Registers,
    bounds: Option<(Gpa, Gpa)>,
    words: BTreeMap<u64, u64>,
    aborts: Vec<Span>,
    requests: Vec<Request>,
    expect: Vec<Expect>,
}

impl Builder {
    /// A capture with nothing in it.
    #[must_use]
    pub fn new(arch: Arch) -> Self {
        Self {
            arch,
            note: String::new(),
            registers: Registers::default(),
            bounds: None,
            words: BTreeMap::new(),
            aborts: Vec::new(),
            requests: Vec::new(),
            expect: Vec::new(),
        }
    }

    /// Whose tables these are.
    #[must_use]
    pub const fn arch(&self) -> Arch {
        self.arch
    }

    /// Says in words what this is.
    pub fn note(&mut self, note: &str) {
        note.clone_into(&mut self.note);
    }

    /// Notes a register's value. False, and nothing noted, where a capture of this architecture
    /// has no such register.
    #[must_use]
    pub fn register(&mut self, name: &str, value: u64) -> bool {
        let known = self.arch.registers().iter().copied().find(|r| *r == name);
        if let Some(name) = known {
            self.registers.set(name, value);
        }
        known.is_some()
    }

    /// Says where memory is: from `base` up to, not including, `limit`.
    pub fn memory_bounds(&mut self, base: Gpa, limit: Gpa) {
        self.bounds = Some((base, limit));
    }

    /// Notes the aligned 64-bit word at `at`. False, and nothing noted, where `at` is not a
    /// multiple of 8 or the capture holds as much as a reader takes.
    pub fn word(&mut self, at: Gpa, word: u64) -> bool {
        // The most words whose text is sure to stay below the reader's limit.
        let room = self.words.len() < Limits::BYTES / 64;
        let good = at.0.is_multiple_of(8) && room;
        if good {
            self.words.insert(at.0, word);
        }
        good
    }

    /// Notes that reads of `len` bytes from `at` on abort.
    pub fn abort(&mut self, at: Gpa, len: u64) {
        let span = Span { addr: at, len };
        if self.aborts.len() < Limits::ABORTS && !self.aborts.contains(&span) {
            self.aborts.push(span);
        }
    }

    /// Adds a request. False, and nothing added, where there are as many as a reader takes.
    pub fn request(&mut self, request: Request) -> bool {
        let room = self.requests.len() < Limits::REQUESTS;
        if room {
            self.requests.push(request);
        }
        room
    }

    /// Says what should come of the first request that has no expectation yet.
    pub fn expect(&mut self, expect: Expect) {
        if self.expect.len() < self.requests.len() {
            self.expect.push(expect);
        }
    }

    /// The capture.
    #[must_use]
    pub fn build(self) -> Capture {
        let mut memory: Vec<Range> = Vec::new();
        let mut next = None;
        for (at, word) in self.words {
            match memory.last_mut() {
                Some(range) if next == Some(at) => range.data.extend(word.to_le_bytes()),
                _ => memory.push(Range {
                    addr: Gpa(at),
                    data: word.to_le_bytes().to_vec(),
                }),
            }
            next = at.checked_add(8);
        }
        Capture {
            arch: self.arch,
            note: self.note,
            registers: self.registers,
            memory_base: self.bounds.map_or(Gpa(0), |(base, _)| base),
            memory_limit: self.bounds.map(|(_, limit)| limit),
            memory,
            aborts: self.aborts,
            requests: self.requests,
            expect: self.expect,
        }
    }
}
