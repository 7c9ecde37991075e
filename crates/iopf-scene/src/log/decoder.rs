//! From lines to records: what goes together, and when it is complete.

mod lines;

use std::collections::VecDeque;
use std::sync::LazyLock;

use aho_corasick::{AhoCorasick, packed};
use iopf::Iova;

use super::clean::{clean, unescape, unmark, unquote};
use super::dialect::{self, Start};
use super::message::Scan;
use super::normal::{Arch, Kind, Record, Summary};
use super::vtd;
use super::waiting::{Half, Message, TEXT, belongs, without_prefix};
use super::{amdvi, dump, journal, stamp};

/// Messages whose end may still come. An old kernel prints a message in two lines, and as many
/// messages as there are processors may be under way.
const WAITING: usize = 64;

/// How many lines may come between the parts of one message.
const WINDOW: u64 = 16;

/// Bytes of a line that are looked at.
const LINE: usize = 256 * 1024;

/// Decodes a log line by line.
///
/// Feed it with [`handle_line`](Self::handle_line), take what is complete with
/// [`poll_record`](Self::poll_record), and end with [`finish`](Self::finish). Records come in the
/// order in which their messages begin. A record is complete at the next line at the earliest, for
/// the kernel may print its tables there; a caller who follows a live log calls
/// [`flush`](Self::flush) when it has been quiet for a while. Memory is bounded: some 64 messages of
/// at most 8 KiB each may wait, and records that were not taken.
#[derive(Debug, Default)]
pub struct Decoder {
    summary: Summary,
    waiting: VecDeque<Message>,
    /// Second halves that could belong to several messages.
    halves: Vec<Half>,
    done: VecDeque<Record>,
    given: u64,
    /// The last line that was counted as part of a message.
    counted: u64,
    fault_lines: u64,
    /// The line before ended in a soft break.
    soft: bool,
}

impl Decoder {
    /// A decoder at the beginning of a log.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next line, without its line feed.
    pub fn handle_line(&mut self, line: &[u8]) {
        self.summary.lines += 1;
        let line = line.get(..LINE).unwrap_or(line);
        if let Some(entries) = journal::entries(line) {
            for (message, time) in entries {
                for part in message.split(|&byte| byte == b'\n') {
                    self.handle_text(part, time.as_deref());
                }
            }
        } else {
            self.handle_text(line, None);
        }
        self.close_old();
    }

    /// The next record, in the order of the log.
    #[must_use]
    pub fn poll_record(&mut self) -> Option<Record> {
        self.done.pop_front()
    }

    /// Completes what is waiting for more: nothing will come, or it would be too late.
    pub fn flush(&mut self) {
        self.pair_halves();
        for message in &mut self.waiting {
            message.closed = true;
        }
        self.give();
    }

    /// Ends the log: completes what is waiting, and gives the figures. Records may be left for
    /// [`poll_record`](Self::poll_record).
    pub fn finish(&mut self) -> Summary {
        self.flush();
        self.summary.not_faults = self.summary.lines - self.fault_lines;
        self.summary.clone()
    }

    fn handle_text(&mut self, raw: &[u8], time: Option<&str>) {
        let text = clean(raw);
        if self.waiting.is_empty() && !NEEDLES.any(&text) {
            return;
        }
        let after_soft = self.soft;
        let (text, soft) = unescape(unmark(text));
        self.soft = soft;
        if let Some(count) = dialect::suppressed(&text) {
            self.summary.suppressed = self.summary.suppressed.saturating_add(count);
            return;
        }
        if self.arm(&text, time, after_soft) {
            return;
        }
        let mut from = self.continuation(&text, after_soft);
        if let Some((at, report)) = vtd::page_report(&text) {
            self.page(&text, at, report, time);
            return;
        }
        let marked = dialect::marked(&text);
        while let Some(start) = dialect::find_start(&text, from) {
            from = self
                .message(&text, from, start, marked, time)
                .max(start.at() + 1);
        }
        self.tables(text.get(from..).unwrap_or_default());
    }

    /// Takes what stands at `start`; gives where to look on.
    fn message(
        &mut self,
        line: &[u8],
        from: usize,
        start: Start,
        marked: bool,
        time: Option<&str>,
    ) -> usize {
        let (start, at) = match start {
            Start::Part(at) => vtd::head_before(line, from, at),
            other => (other, other.at()),
        };
        let next = next_head(line, at + 1).unwrap_or(line.len());
        let prefix = line.get(from..at).unwrap_or_default();
        let text = line.get(at..next.min(at + TEXT)).unwrap_or_default();
        let text = if next < line.len() {
            without_prefix(text)
        } else {
            text
        };
        let time = time
            .map(str::to_owned)
            .or_else(|| stamp::find(unquote(prefix)));
        let stamp = stamp::kernel(prefix).map(<[u8]>::to_vec);
        if let Start::Reason(_) = start {
            return at + self.second_half(text, marked, time, stamp);
        }
        let scan = dialect::scan(text, start);
        let enough = match start {
            Start::Part(_) | Start::Name(_) => scan.parts >= 2 || (marked && scan.says_something()),
            Start::Event(_) => scan.open || (scan.parts >= 2 && scan.says_something()),
            _ => marked || scan.parts >= 2 || (scan.parts == 1 && scan.open),
        };
        if scan.template || !enough {
            return at + 1;
        }
        self.pair_if_begun();
        let end = at + scan.end;
        let event = matches!(start, Start::Event(_));
        let sure = (marked && !event) || scan.parts >= 2;
        let before = self.fault_lines;
        self.add(start, text, scan, time, stamp);
        let lines = self.fault_lines - before;
        if let Some(message) = self.waiting.back_mut().filter(|_| !sure) {
            message.doubtful = Some(lines);
        }
        end
    }

    /// Takes `[fault reason 05] …`; gives its length.
    fn second_half(
        &mut self,
        text: &[u8],
        marked: bool,
        time: Option<String>,
        stamp: Option<Vec<u8>>,
    ) -> usize {
        let scan = vtd::scan(text, Start::Reason(0));
        let cut = scan.open && scan.wants_reason && marked;
        if scan.template || !cut && (scan.parts == 0 || scan.fields.code.is_none() && !marked) {
            return 1;
        }
        self.count_line();
        let half = Half {
            line: self.summary.lines,
            time,
            stamp,
            text: text.to_vec(),
        };
        let open = self.without_reason();
        let same: Vec<usize> = open
            .iter()
            .copied()
            .filter(|&at| half.stamp.is_some() && self.stamp_of(at) == half.stamp.as_deref())
            .collect();
        // A line without a stamp among stamped ones was printed at one go with the line before.
        let before = open.last().copied().filter(|&at| {
            half.stamp.is_none()
                && self.stamp_of(at).is_some()
                && self
                    .waiting
                    .get(at)
                    .is_some_and(|m| m.touched + 1 == half.line)
        });
        let chosen = match (same.as_slice(), open.as_slice()) {
            ([only], _) => Some(*only),
            (_, [only]) => Some(*only),
            _ => before,
        };
        match chosen {
            Some(at) if self.halves.is_empty() => self.attach(at, &half),
            _ if open.is_empty() => self.orphan(half),
            _ => {
                self.halves.push(half);
                if self.halves.len() >= open.len() {
                    self.pair_halves();
                }
            }
        }
        scan.end
    }

    fn stamp_of(&self, at: usize) -> Option<&[u8]> {
        self.waiting.get(at)?.stamp.as_deref()
    }

    /// The messages that wait for their second half.
    fn without_reason(&self) -> Vec<usize> {
        self.waiting
            .iter()
            .enumerate()
            .filter(|(_, message)| {
                message.scan.open
                    && message.scan.wants_reason
                    && message.scan.fields.arch == Arch::Vtd
                    && !message.closed
            })
            .map(|(at, _)| at)
            .collect()
    }

    fn attach(&mut self, at: usize, half: &Half) {
        let line = self.summary.lines;
        let cut = vtd::scan(&half.text, Start::Reason(0)).open;
        if let Some(message) = self.waiting.get_mut(at) {
            if message.ends_in_part_of_an_address() {
                message.text.push(b'?');
            }
            message.text.push(b' ');
            message.text.extend_from_slice(&half.text);
            message.scan = vtd::scan(&message.text, message.start.moved());
            message.scan.open &= cut || !message.scan.wants_reason;
            message.touched = line;
        }
    }

    /// A second half without a first: what can be read.
    fn orphan(&mut self, half: Half) {
        let mut scan = vtd::scan(&half.text, Start::Reason(0));
        scan.open &= scan.wants_reason;
        if scan
            .fields
            .code
            .is_some_and(|code| (0x20..0x30).contains(&code))
        {
            scan.fields.kind = Kind::InterruptRemapping;
        }
        let message = Message {
            line: half.line,
            time: half.time,
            stamp: half.stamp,
            start: Start::Reason(0),
            text: half.text,
            scan,
            touched: half.line,
            tables: Vec::new(),
            closed: false,
            doubtful: None,
        };
        let at = self
            .waiting
            .partition_point(|other| other.line <= message.line);
        self.waiting.insert(at, message);
    }

    /// A new message begins while second halves are in doubt: no more of them belong to the old ones.
    fn pair_if_begun(&mut self) {
        if !self.halves.is_empty() {
            self.pair_halves();
        }
    }

    /// Gives each second half its first: in order where there is one for each, else the nearest
    /// before it.
    fn pair_halves(&mut self) {
        let halves = std::mem::take(&mut self.halves);
        let mut open = self.without_reason();
        let in_order = open.len() == halves.len();
        for half in halves {
            let place = if in_order {
                (!open.is_empty()).then_some(0)
            } else {
                open.iter()
                    .rposition(|&at| self.waiting.get(at).is_some_and(|m| m.line < half.line))
            };
            match place {
                Some(place) => {
                    let at = open.remove(place);
                    self.attach(at, &half);
                }
                None => {
                    self.orphan(half);
                    open = self.without_reason();
                }
            }
        }
    }

    /// Adds what `line` begins with to the message it continues; gives where the rest begins.
    fn continuation(&mut self, line: &[u8], after_soft: bool) -> usize {
        let limit = next_head(line, 0).unwrap_or(line.len());
        let body = unquote(line.get(..limit).unwrap_or_default());
        if let Some(Start::Reason(at)) = dialect::find_start(body, 0)
            && body.get(..at).is_some_and(vtd::marked)
        {
            // A second half, printed as a line of its own.
            return 0;
        }
        let mut tries = vec![body];
        if let Some(Start::Name(at)) = dialect::find_start(body, 0) {
            tries.push(body.get(at..).unwrap_or_default());
        }
        for mark in [&b"] "[..], b"kernel: "] {
            if let Some(at) = memchr::memmem::find(body, mark) {
                tries.push(unquote(body.get(at + mark.len()..).unwrap_or_default()));
            }
        }
        for at in (0..self.waiting.len()).rev() {
            for fragment in &tries {
                if let Some(used) = self.continued(at, fragment, after_soft) {
                    self.count_line();
                    let rest = fragment.len() - used;
                    return limit - rest.min(limit);
                }
            }
        }
        0
    }

    /// Adds `fragment` to a message if it belongs there; gives how much of it was used.
    fn continued(&mut self, at: usize, fragment: &[u8], after_soft: bool) -> Option<usize> {
        let line = self.summary.lines;
        let message = self.waiting.get_mut(at)?;
        // Those of several lines have a way of their own.
        let lines = message.is_page_request() || message.is_arm();
        if lines || !message.scan.open || message.closed || fragment.is_empty() {
            return None;
        }
        if message.text.len() + fragment.len() > TEXT {
            return None;
        }
        let text = message.text.trim_ascii_end();
        // Where a mail program breaks a line there was a blank; a terminal breaks anywhere.
        for blank in [true, false] {
            if blank && after_soft {
                continue;
            }
            let base: &[u8] = if after_soft { &message.text } else { text };
            let mut joined = base.to_vec();
            if blank {
                joined.push(b' ');
            }
            let joint = joined.len();
            joined.extend_from_slice(fragment);
            let scan = dialect::scan(&joined, message.start.moved());
            if belongs(&message.scan, &scan, joint, text.len()) {
                let used = scan.end - joint;
                message.text = joined;
                message.scan = scan;
                message.touched = line;
                return Some(used);
            }
        }
        None
    }

    fn add(
        &mut self,
        start: Start,
        text: &[u8],
        scan: Scan,
        time: Option<String>,
        stamp: Option<Vec<u8>>,
    ) {
        self.count_line();
        self.waiting.push_back(Message {
            line: self.summary.lines,
            time,
            stamp,
            start,
            text: text.to_vec(),
            scan,
            touched: self.summary.lines,
            tables: Vec::new(),
            closed: false,
            doubtful: None,
        });
        if self.waiting.len() > WAITING {
            self.pair_halves();
            if let Some(oldest) = self.waiting.front_mut() {
                oldest.closed = true;
            }
            self.give();
        }
    }

    /// Adds printed tables to the fault they are of.
    fn tables(&mut self, text: &[u8]) {
        if self.event_tables(text) {
            return;
        }
        let Some(part) = dump::part(text) else {
            return;
        };
        let line = self.summary.lines;
        let message = self.waiting.iter_mut().rev().find(|message| {
            let fields = &message.scan.fields;
            !message.closed
                && (fields.arch, fields.kind) == (Arch::Vtd, Kind::Dma)
                && match part {
                    dump::Part::Head(address) => {
                        message.tables.is_empty()
                            && (address.is_none()
                                || fields.address.is_none()
                                || fields.address == address.map(Iova))
                    }
                    dump::Part::Entry => !message.tables.is_empty(),
                    dump::Part::Tail => !message.tables.is_empty() && dump::is_cut(&message.tables),
                }
        });
        if let Some(message) = message {
            message.add_table(text, line);
            self.count_line();
        }
    }

    /// Adds what is printed after an AMD-Vi event to it; whether `text` is that.
    fn event_tables(&mut self, text: &[u8]) -> bool {
        let line = self.summary.lines;
        let message = self
            .waiting
            .iter_mut()
            .rev()
            .find(|message| message.scan.fields.arch == Arch::Amdvi && !message.closed);
        let Some(message) =
            message.filter(|message| amdvi::is_table(text, message.scan.fields.code))
        else {
            return false;
        };
        message.add_table(text, line);
        self.count_line();
        true
    }

    /// Counts the current line as part of a message, once.
    fn count_line(&mut self) {
        if self.counted != self.summary.lines {
            self.counted = self.summary.lines;
            self.fault_lines += 1;
        }
    }

    /// Closes what nothing was added to for long enough.
    fn close_old(&mut self) {
        let line = self.summary.lines;
        let old = |message: &Message| {
            let quiet = line - message.touched;
            if message.scan.open {
                quiet > WINDOW
            } else if message.tables.is_empty() && !message.may_have_tables() {
                quiet >= 1
            } else {
                quiet > 4
            }
        };
        if self
            .waiting
            .iter()
            .any(|message| message.scan.open && old(message))
        {
            self.pair_halves();
        }
        for message in &mut self.waiting {
            message.closed |= old(message);
        }
        self.give();
    }

    /// Gives out the closed messages at the head of the queue.
    fn give(&mut self) {
        while self.waiting.front().is_some_and(|message| message.closed) {
            let Some(message) = self.waiting.pop_front() else {
                return;
            };
            let thin = message.scan.parts < 2 || message.scan.doubtful;
            if let Some(lines) = message.doubtful.filter(|_| thin) {
                self.fault_lines -= lines;
                continue;
            }
            let record = message.record(self.given);
            self.given += 1;
            self.summary.count(&record);
            self.done.push_back(record);
        }
    }
}

/// Where the next message begins that has its head.
fn next_head(line: &[u8], from: usize) -> Option<usize> {
    let mut from = from;
    while let Some(start) = dialect::find_start(line, from) {
        if start.is_head() {
            return Some(start.at());
        }
        from = start.at() + 1;
    }
    None
}

/// Words one of which is in every line that can matter by itself.
static NEEDLES: LazyLock<Needles> = LazyLock::new(|| {
    Needles::of(&[
        "ault",
        "DMA",
        "REMAP",
        "dmar",
        "equest",
        "AMD",
        "amd_iommu",
        "ess=0x",
        "smmu",
        "SMMU",
        "event",
        "CMDQ",
    ])
});

/// The same of Arm's SMMUs alone.
static ARM: LazyLock<Needles> =
    LazyLock::new(|| Needles::of(&["smmu", "SMMU", "event", "CMDQ", "context fault"]));

/// Some of many words, found in one pass.
#[derive(Debug)]
enum Needles {
    /// Many bytes at a time, where the processor can do it.
    Packed(packed::Searcher),
    /// Byte by byte. `None` does not happen: a few short words are always taken.
    Plain(Option<AhoCorasick>),
}

impl Needles {
    fn of(words: &[&str]) -> Self {
        packed::Searcher::new(words)
            .map_or_else(|| Self::Plain(AhoCorasick::new(words).ok()), Self::Packed)
    }

    /// Whether one of them is in `line`.
    fn any(&self, line: &[u8]) -> bool {
        match self {
            Self::Packed(words) => words.find(line).is_some(),
            Self::Plain(words) => words.as_ref().is_none_or(|words| words.is_match(line)),
        }
    }
}
