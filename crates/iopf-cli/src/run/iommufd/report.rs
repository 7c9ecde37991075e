//! What a run came to. Plain data: text and JSON are views of it.

use serde::Serialize;
use std::fmt;

pub(super) use super::super::text::duration;

/// Everything that came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Report {
    /// Version of this layout.
    pub(super) schema: u32,
    pub(super) resolver: &'static str,
    pub(super) elapsed_ns: u64,
    pub(super) devices: Vec<Row>,
    /// Pages that are mapped for the devices, where a resolver maps them.
    pub(super) mapped: Option<u64>,
    /// Pages of devices that nobody attached here; answered INVALID.
    pub(super) strangers: u64,
    /// Pages lost before they were reported.
    pub(super) lost: u64,
    /// Decisions that came after the deadline or a detach, and changed nothing.
    pub(super) too_late: u64,
    /// Groups that were read and have no answer from here; the kernel answers them at the detach.
    pub(super) unanswered: u64,
    /// Clients that connected, those dropped for breaking the protocol, and groups they left behind.
    pub(super) clients: Option<[u64; 3]>,
    /// Lines that were not printed, because the reader was too slow.
    pub(super) lines_lost: u64,
}

/// One device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Row {
    pub(super) device: String,
    /// Page requests read.
    pub(super) pages: u64,
    /// Groups they came in.
    pub(super) groups: u64,
    /// Answered SUCCESS.
    pub(super) success: u64,
    /// Answered INVALID.
    pub(super) invalid: u64,
    /// Answers by the resolver.
    pub(super) by_resolver: u64,
    /// Answers by the deadline.
    pub(super) by_deadline: u64,
    /// Answers because the run ended: what was held at the stop.
    pub(super) by_departure: u64,
    /// Answers at the report: beyond the device's credits, or of an address space that is not attached.
    pub(super) at_once: u64,
    /// Pages dropped with their group, or refused.
    pub(super) discarded: u64,
    pub(super) refused: u64,
    /// From the read of a group to the write of its answer.
    pub(super) p50_ns: u64,
    pub(super) p99_ns: u64,
    pub(super) max_ns: u64,
}

impl Report {
    /// Whether a group was answered otherwise than with SUCCESS, or something was lost.
    pub(super) fn has_faults(&self) -> bool {
        self.lost + self.strangers + self.unanswered > 0
            || self.devices.iter().any(|row| row.invalid > 0)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "resolver {}, {}",
            self.resolver,
            duration(self.elapsed_ns)
        )?;
        writeln!(
            f,
            "  {:<13} {:>8} {:>8} {:>8} {:>8} {:>9} {:>9} {:>8} {:>10} {:>10} {:>10}",
            "device",
            "pages",
            "groups",
            "SUCCESS",
            "INVALID",
            "resolver",
            "deadline",
            "at stop",
            "p50",
            "p99",
            "max"
        )?;
        for row in &self.devices {
            writeln!(
                f,
                "  {:<13} {:>8} {:>8} {:>8} {:>8} {:>9} {:>9} {:>8} {:>10} {:>10} {:>10}",
                row.device,
                row.pages,
                row.groups,
                row.success,
                row.invalid,
                row.by_resolver,
                row.by_deadline,
                row.by_departure,
                duration(row.p50_ns),
                duration(row.p99_ns),
                duration(row.max_ns),
            )?;
        }
        if let Some(pages) = self.mapped {
            writeln!(f, "  {pages} pages mapped")?;
        }
        if let Some([clients, dropped, abandoned]) = self.clients {
            writeln!(
                f,
                "  {clients} clients, {dropped} dropped, {abandoned} groups left behind by them"
            )?;
        }
        let rows = |count: fn(&Row) -> u64| self.devices.iter().map(count).sum::<u64>();
        for (count, what) in [
            (
                rows(|row| row.at_once),
                "groups answered at once: no credit, or not attached",
            ),
            (rows(|row| row.refused), "pages refused"),
            (
                rows(|row| row.discarded),
                "pages dropped before their group was whole",
            ),
            (
                self.strangers,
                "pages of devices that are not attached here",
            ),
            (self.lost, "pages lost"),
            (self.too_late, "decisions too late"),
            (self.unanswered, "groups left to the kernel's own answer"),
            (self.lines_lost, "lines not printed"),
        ] {
            if count > 0 {
                writeln!(f, "  {count} {what}")?;
            }
        }
        let unpaired = self
            .devices
            .iter()
            .all(|row| row.groups == row.success + row.invalid);
        match unpaired && self.unanswered == 0 {
            true => f.write_str("every group was answered once"),
            false => f.write_str("not every group was answered from here"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        Report {
            schema: 1,
            resolver: "memory",
            elapsed_ns: 2_500_000_000,
            devices: vec![Row {
                device: "0000:00:04.0".to_owned(),
                pages: 12,
                groups: 5,
                success: 4,
                invalid: 1,
                by_resolver: 5,
                p50_ns: 45_000,
                p99_ns: 90_000,
                max_ns: 91_000,
                ..Row::default()
            }],
            mapped: Some(11),
            ..Report::default()
        }
    }

    #[test]
    fn the_text_has_a_row_for_a_device_and_only_the_losses_there_are() {
        assert_eq!(
            report().to_string(),
            "resolver memory, 2.50 s\n  \
             device           pages   groups  SUCCESS  INVALID  resolver  deadline  at stop        p50        p99        max\n  \
             0000:00:04.0        12        5        4        1         5         0        0    45.0 us    90.0 us    91.0 us\n  \
             11 pages mapped\n\
             every group was answered once"
        );
    }

    #[test]
    fn an_invalid_answer_or_a_loss_is_a_fault() {
        assert!(report().has_faults());
        let mut calm = report();
        calm.devices[0].invalid = 0;
        assert!(!calm.has_faults());
        calm.lost = 1;
        assert!(calm.has_faults());
        assert!(calm.to_string().contains("\n  1 pages lost\n"));
    }
}
