//! What the host's log may say of a guest's faults: lines within a budget, and exact counts.

use super::event::{Event, Events, Hex};
use iopf::engine::{Attachment, DeviceConfig, DeviceId, DomainId, Engine, GuestId, Policy, Tick};
use iopf::resolve::{LogAndDeny, serve};
use iopf::{Dma, Fault, LogWhat, Reason, Rid, Unrecoverable};
use std::time::Duration;

/// The one guest.
const GUEST: GuestId = GuestId(0);
/// Its devices have their requester IDs; whoever claims another one is this.
const STRANGER: DeviceId = DeviceId(1 << 16);
/// Longer than any interval of the log's budgets.
const AT_LAST: Duration = Duration::from_secs(60);

/// The log's budgets: those of the engine, to which each fault is reported.
#[derive(Debug)]
pub(super) struct Log {
    engine: Engine,
    logged: u64,
    suppressed: u64,
}

impl Log {
    pub(super) fn new(functions: &[Rid]) -> Result<Self, String> {
        let mut engine = Engine::new(Policy::default());
        let ids = functions.iter().map(|rid| device(*rid)).chain([STRANGER]);
        for id in ids {
            let config = DeviceConfig {
                guest: Some(GUEST),
                user_pasid_table: true,
                ..DeviceConfig::default()
            };
            let attachment = Attachment {
                nested: true,
                ..Attachment::new(DomainId(0))
            };
            engine.add_device(id, config).map_err(|e| e.to_string())?;
            engine
                .attach(id, None, attachment)
                .map_err(|e| e.to_string())?;
        }
        Ok(Self {
            engine,
            logged: 0,
            suppressed: 0,
        })
    }

    /// Takes a fault, and says what there is to say.
    pub(super) fn fault(&mut self, now: Duration, dma: &Dma, code: u32, events: &Events) {
        let fault = Fault::Unrecoverable(Unrecoverable {
            reason: Reason(code),
            pasid: dma.pasid,
            access: dma.access,
            addr: Some(dma.addr),
            fetch_addr: None,
        });
        let now = tick(now);
        let mut reported = self.engine.report(now, device(dma.requester), &fault);
        if reported.is_err() {
            reported = self.engine.report(now, STRANGER, &fault);
        }
        debug_assert!(reported.is_ok(), "each is judged before the next comes");
        serve(&mut self.engine, now, &mut LogAndDeny, 1);
        self.lines(events);
    }

    /// Ends the budgets that are over.
    pub(super) fn handle_timeout(&mut self, now: Duration, events: &Events) {
        self.engine.handle_timeout(tick(now));
        self.lines(events);
    }

    /// Ends every budget, so that each fault is in a line or in a count.
    pub(super) fn close(&mut self, now: Duration, events: &Events) {
        self.handle_timeout(now.saturating_add(AT_LAST), events);
    }

    /// Faults with a line of their own, and those that are in a count only.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.logged, self.suppressed)
    }

    fn lines(&mut self, events: &Events) {
        while let Some(line) = self.engine.poll_log() {
            let device = match line.device {
                STRANGER => "a stranger".to_owned(),
                DeviceId(rid) => Rid::from_pci((rid & 0xffff) as u16).to_string(),
            };
            match line.what {
                LogWhat::Fault(fault) => {
                    self.logged += 1;
                    events.say(Event::Fault {
                        device,
                        access: fault.access.to_string(),
                        address: Hex(fault.addr.map_or(0, |addr| addr.0)),
                        code: fault.reason.0,
                    });
                }
                LogWhat::Suppressed(count) => {
                    self.suppressed += count;
                    events.say(Event::Suppressed { device, count });
                }
            }
        }
    }
}

fn device(rid: Rid) -> DeviceId {
    DeviceId(rid.0)
}

fn tick(now: Duration) -> Tick {
    Tick(u64::try_from(now.as_nanos()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use iopf::{Access, DmaKind, Iova};

    #[test]
    fn a_storm_is_ten_lines_an_interval_and_an_exact_count() {
        let (events, lines) = Events::new();
        let mut log = Log::new(&[Rid(0x20)]).unwrap();
        let dma = |requester| Dma {
            requester,
            pasid: None,
            kind: DmaKind::Untranslated,
            addr: Iova(0x1000),
            access: Access::READ,
        };
        for i in 0..100_000 {
            log.fault(Duration::from_nanos(i), &dma(Rid(0x20)), 6, &events);
        }
        log.fault(Duration::from_millis(1), &dma(Rid(0x4321)), 1, &events);
        log.close(Duration::from_millis(2), &events);
        let text: Vec<String> = lines.try_iter().map(|event| event.to_string()).collect();
        assert_eq!(text.len(), 12, "{text:?}");
        assert_eq!(text[0], "00:04.0: r at 0x1000 blocked, reason 0x06");
        assert!(text.contains(&"00:04.0: 99990 faults not shown".to_owned()));
        assert!(
            text.contains(&"a stranger: 1 faults not shown".to_owned()),
            "the guest's budget is spent"
        );
        assert_eq!(log.counts(), (10, 99_991));
        assert_eq!(events.lost(), 0);
    }
}
