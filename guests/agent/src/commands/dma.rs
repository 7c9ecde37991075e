//! The DMA engine of the `endpoint` crate: one command is one job.
//!
//! Source of the register map: `docs/endpoints.md`; one channel is one page of BAR 0.
//!
//! ```text
//! dma BDF CH read ADDR LEN              memory to the window; says the first bytes, CRC in check=
//! dma BDF CH write ADDR LEN data=HEX    the data to memory, again and again
//! dma BDF CH copy SRC DST LEN
//! dma BDF CH fill ADDR LEN pattern=N
//! dma BDF CH verify ADDR LEN pattern=N  counts wrong bytes in check=
//! dma BDF CH page-requests ADDR LEN     LEN / 4096 requests; `write` asks for write access
//! dma BDF CH stop
//! ```
//!
//! Options: `pasid=N`, `priv`, `exec`, `via=ats|untranslated|translated|host`, `rid=BDF`,
//! `repeat=N`, `stride=N`, `flags=N`, `irq`, `timeout=MS` (10000), `nowait`. `dma-status BDF CH`
//! says how a job stands that was not waited for.

use super::{Command, bar, pci};
use crate::args::{Args, bytes, hex, number};
use crate::reply::{Done, Failure, Reply};
use crate::sys::{Mapping, Width};
use std::time::{Duration, Instant};

pub(super) const COMMANDS: &[Command] = &[
    Command {
        name: "dma",
        usage: "dma BDF CHANNEL read|write|copy|fill|verify|page-requests|stop ADDRESS… [OPTIONS]",
        run: dma,
    },
    Command {
        name: "dma-status",
        usage: "dma-status BDF CHANNEL",
        run: |mut args, out| {
            let channel = Channel::open(&mut args)?;
            args.end()?;
            channel.report(out).map(|_| ())
        },
    },
];

/// Bytes of one channel, and how many there are.
pub(super) const CHANNEL: u64 = 0x1000;
const CHANNELS: u64 = 8;

/// `IOPF` in ASCII, little-endian.
const ID: u32 = 0x4650_4f49;

/// Offsets in a channel.
mod reg {
    pub(super) const ID: usize = 0x000;
    pub(super) const SRC: usize = 0x008;
    pub(super) const DST: usize = 0x010;
    pub(super) const LEN: usize = 0x018;
    pub(super) const PASID: usize = 0x01c;
    pub(super) const CONTROL: usize = 0x020;
    pub(super) const STATUS: usize = 0x024;
    pub(super) const FAULT: usize = 0x028;
    pub(super) const MOVED: usize = 0x030;
    pub(super) const PATTERN: usize = 0x038;
    pub(super) const REQUESTER: usize = 0x040;
    pub(super) const REPEAT: usize = 0x044;
    pub(super) const STRIDE: usize = 0x048;
    pub(super) const ERRORS: usize = 0x050;
    pub(super) const CHECK: usize = 0x054;
    pub(super) const NANOS: usize = 0x058;
    pub(super) const FLAGS: usize = 0x060;
    pub(super) const EVER: usize = 0x064;
    pub(super) const WINDOW: usize = 0x800;
}

/// Bytes of the data window.
const WINDOW: usize = 0x800;

/// Bits of CONTROL.
const PRIVILEGED: u32 = 1 << 4;
const EXECUTE: u32 = 1 << 5;
const PATH: u32 = 6;
const INTERRUPT: u32 = 1 << 8;
const WRITE_ACCESS: u32 = 1 << 9;
const GO: u32 = 1 << 31;

/// Bit 31 of PASID and of REQUESTER: the field counts.
const PRESENT: u32 = 1 << 31;

/// The states of STATUS, bits 1:0.
const STATES: [&str; 4] = ["idle", "busy", "done", "error"];
const BUSY: u32 = 1;

/// The error codes of STATUS, bits 15:8.
const CODES: [&str; 14] = [
    "none",
    "blocked",
    "no-translation",
    "response-invalid",
    "response-failure",
    "no-answer",
    "no-progress",
    "unsupported-request",
    "completer-abort",
    "bus-error",
    "aborted",
    "refused",
    "bus-master-off",
    "not-enabled",
];

/// A job as the registers take it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Job {
    source: u64,
    destination: u64,
    len: u32,
    pasid: u32,
    control: u32,
    pattern: u64,
    requester: u32,
    repeat: u32,
    stride: u64,
    flags: u32,
    data: Vec<u8>,
    /// Whether the window is worth looking at afterwards.
    shows: bool,
    wait: Option<Duration>,
}

impl Job {
    pub(super) fn parse(args: &mut Args<'_>) -> Result<Self, Failure> {
        let verb = args.word("what to do")?;
        let mut job = Self {
            wait: Some(Duration::from_secs(10)),
            ..Self::default()
        };
        let operation = match verb {
            "read" => 1,
            "write" => 2,
            "copy" => 3,
            "fill" => 4,
            "verify" => 5,
            "page-requests" => 6,
            "stop" => 7,
            other => return Err(Failure::usage(format!("no operation {other}"))),
        };
        job.shows = operation == 1;
        if matches!(operation, 1 | 3 | 5 | 6) {
            job.source = args.number("ADDRESS")?;
        }
        if matches!(operation, 2..=4) {
            job.destination = args.number("ADDRESS")?;
        }
        if operation != 7 {
            job.len = args.small("LENGTH")?;
        }
        job.control = operation | GO;
        while let Some(word) = args.next() {
            job.option(word)?;
        }
        Ok(job)
    }

    fn option(&mut self, word: &str) -> Done {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        let wide = || number(key, value);
        let narrow = || {
            let value = number(key, value)?;
            u32::try_from(value).map_err(|_| Failure::usage(format!("{key} is too large")))
        };
        match key {
            "priv" => self.control |= PRIVILEGED,
            "exec" => self.control |= EXECUTE,
            "irq" => self.control |= INTERRUPT,
            "write" => self.control |= WRITE_ACCESS,
            "nowait" => self.wait = None,
            "via" => self.control |= path(value)? << PATH,
            "pasid" => self.pasid = narrow()? | PRESENT,
            "rid" => self.requester = requester(value)? | PRESENT,
            "repeat" => self.repeat = narrow()?,
            "flags" => self.flags = narrow()?,
            "stride" => self.stride = wide()?,
            "pattern" => self.pattern = wide()?,
            "timeout" => self.wait = Some(Duration::from_millis(wide()?)),
            "data" => {
                self.data = bytes(key, value)?;
                if self.data.is_empty() || self.data.len() > WINDOW {
                    return Err(Failure::usage("data is 1 to 2048 bytes"));
                }
            }
            other => return Err(Failure::usage(format!("no option {other}"))),
        }
        Ok(())
    }
}

impl Job {
    /// What the window is to hold: the data, again and again, as far as the job goes.
    fn window(&self) -> Vec<u8> {
        let len = usize::try_from(self.len).unwrap_or(WINDOW).min(WINDOW);
        self.data.iter().copied().cycle().take(len).collect()
    }
}

/// Bits 7:6 of CONTROL.
fn path(name: &str) -> Result<u32, Failure> {
    let names = ["ats", "untranslated", "translated", "host"];
    let at = names.iter().position(|other| *other == name);
    let at = at.and_then(|at| u32::try_from(at).ok());
    at.ok_or_else(|| Failure::usage(format!("no path {name}; one of {}", names.join(" "))))
}

/// A requester ID from `BUS:DEVICE.FUNCTION`, digits in hexadecimal, or from a number.
fn requester(text: &str) -> Result<u32, Failure> {
    let parse = || {
        let (bus, rest) = text.split_once(':')?;
        let (device, function) = rest.split_once('.')?;
        let digit = |text: &str, limit| {
            let value = u32::from_str_radix(text, 16).ok()?;
            (value < limit).then_some(value)
        };
        Some(digit(bus, 256)? << 8 | digit(device, 32)? << 3 | digit(function, 8)?)
    };
    if let Some(rid) = parse() {
        return Ok(rid);
    }
    let rid = number("rid", text)?;
    u16::try_from(rid)
        .map(u32::from)
        .map_err(|_| Failure::usage(format!("no requester ID has more than 16 bits: {rid:#x}")))
}

/// One channel's registers.
pub(super) struct Channel(Mapping);

/// How a job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    /// One of `idle`, `busy`, `done`, `error`.
    pub(super) state: &'static str,
    /// Why it failed, or `none`.
    pub(super) code: &'static str,
    /// Bytes moved.
    pub(super) moved: u64,
    /// Where it failed first.
    pub(super) fault: u64,
    /// Wrong bytes of `verify`, or the checksum of what was read.
    pub(super) check: u32,
    /// Pages asked for.
    pub(super) pages: u32,
}

impl Channel {
    /// Maps the channel that the next two words name, and checks that it is one.
    fn open(args: &mut Args<'_>) -> Result<Self, Failure> {
        let device = pci::device(args.word("BDF")?)?;
        let index = args.number("CHANNEL")?;
        if index >= CHANNELS {
            return Err(Failure::usage(format!(
                "channels are 0 to {}",
                CHANNELS - 1
            )));
        }
        let len = usize::try_from(CHANNEL).unwrap_or_default();
        Self::over(bar::map(&device, 0, index * CHANNEL, len)?)
    }

    /// The channel whose page is mapped, checked to be one.
    pub(super) fn over(page: Mapping) -> Result<Self, Failure> {
        match page.read32(reg::ID)? {
            ID => Ok(Self(page)),
            id => Err(Failure::new(format!("not a DMA engine: its ID is {id:#x}"))),
        }
    }

    /// Gives the order for a job.
    pub(super) fn start(&self, job: &Job) -> Done {
        let (long, quad) = (Width::Four, Width::Eight);
        for (at, word) in job.window().chunks(4).enumerate() {
            let mut padded = [0; 4];
            padded[..word.len()].copy_from_slice(word);
            let value = u32::from_le_bytes(padded);
            self.0.write(reg::WINDOW + 4 * at, long, value.into())?;
        }
        self.0.write(reg::SRC, quad, job.source)?;
        self.0.write(reg::DST, quad, job.destination)?;
        self.0.write(reg::PATTERN, quad, job.pattern)?;
        self.0.write(reg::STRIDE, quad, job.stride)?;
        for (offset, value) in [
            (reg::LEN, job.len),
            (reg::PASID, job.pasid),
            (reg::REQUESTER, job.requester),
            (reg::REPEAT, job.repeat),
            (reg::FLAGS, job.flags),
            (reg::CONTROL, job.control),
        ] {
            self.0.write(offset, long, value.into())?;
        }
        Ok(())
    }

    /// Waits until the channel is not busy; the error is a time-out.
    pub(super) fn wait(&self, patience: Duration) -> Done {
        let deadline = Instant::now() + patience;
        while self.0.read32(reg::STATUS)? & 3 == BUSY {
            if Instant::now() > deadline {
                return Err(rustix::io::Errno::TIMEDOUT.into());
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        Ok(())
    }

    /// How the job stands.
    pub(super) fn standing(&self) -> Result<Standing, Failure> {
        let status = self.0.read32(reg::STATUS)?;
        let code = (status >> 8 & 0xff) as usize;
        Ok(Standing {
            state: STATES[(status & 3) as usize],
            code: CODES.get(code).copied().unwrap_or("unknown"),
            moved: self.0.read(reg::MOVED, Width::Eight)?,
            fault: self.0.read(reg::FAULT, Width::Eight)?,
            check: self.0.read32(reg::CHECK)?,
            pages: status >> 16,
        })
    }

    /// Says how the job stands.
    fn report(&self, out: &mut Reply<'_>) -> Result<Standing, Failure> {
        let standing = self.standing()?;
        let Standing {
            state,
            code,
            moved,
            fault,
            check,
            pages,
        } = standing;
        out.line(format_args!(
            "state={state} code={code} moved={moved} fault={fault:#x} check={check:#x} errors={} \
             pages={pages} jobs={} nanos={}",
            self.0.read32(reg::ERRORS)?,
            self.0.read32(reg::EVER)?,
            self.0.read(reg::NANOS, Width::Eight)?,
        ));
        Ok(standing)
    }

    /// The first bytes of the window.
    fn window(&self, len: usize) -> Result<Vec<u8>, Failure> {
        let mut data = Vec::new();
        for at in (0..len.min(WINDOW)).step_by(4) {
            data.extend(self.0.read32(reg::WINDOW + at)?.to_le_bytes());
        }
        data.truncate(len);
        Ok(data)
    }
}

/// A job that ends in an error of the device is an answer, not a failure: `state=error code=…`.
fn dma(mut args: Args<'_>, out: &mut Reply<'_>) -> Done {
    let channel = Channel::open(&mut args)?;
    let job = Job::parse(&mut args)?;
    channel.start(&job)?;
    let Some(patience) = job.wait else {
        return Ok(());
    };
    let waited = channel.wait(patience);
    let standing = channel.report(out)?;
    waited?;
    if job.shows && standing.state != "error" {
        let data = channel.window(job.len.try_into().unwrap_or(WINDOW))?;
        for row in data.chunks(64) {
            out.line(format_args!("data {}", hex(row)));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(text: &str) -> Result<Job, String> {
        Job::parse(&mut Args::new(text)).map_err(|failure| failure.text)
    }

    #[test]
    fn each_operation_takes_its_addresses_and_has_its_number() {
        // Operation numbers and bits as the register map has them.
        let read = job("read 0x1000 64").unwrap();
        assert_eq!(
            (read.source, read.len, read.control),
            (0x1000, 64, 0x8000_0001)
        );
        let write = job("write 0x2000 8 data=0102").unwrap();
        assert_eq!((write.destination, write.control), (0x2000, 0x8000_0002));
        assert_eq!(write.window(), [1, 2, 1, 2, 1, 2, 1, 2]);
        assert_eq!(job("write 0 3 data=0102").unwrap().window(), [1, 2, 1]);
        let copy = job("copy 1 2 3").unwrap();
        assert_eq!((copy.source, copy.destination, copy.len), (1, 2, 3));
        assert_eq!(copy.control, 0x8000_0003);
        let fill = job("fill 0x3000 4096 pattern=0xff").unwrap();
        assert_eq!((fill.destination, fill.pattern), (0x3000, 0xff));
        assert_eq!(job("verify 0x3000 16").unwrap().control, 0x8000_0005);
        assert_eq!(
            job("page-requests 0 4096 write").unwrap().control,
            0x8000_0206
        );
        assert_eq!(job("stop").unwrap().control, 0x8000_0007);
    }

    #[test]
    fn options_set_their_bits() {
        let all = "read 0 1 pasid=7 priv exec irq via=host rid=00:1f.7 repeat=3 stride=4096 flags=5 nowait";
        let job = job(all).unwrap();
        assert_eq!(job.control, 0x8000_01f1);
        assert_eq!(job.pasid, 0x8000_0007);
        assert_eq!(job.requester, 0x8000_00ff);
        assert_eq!((job.repeat, job.stride, job.flags), (3, 4096, 5));
        assert_eq!(job.wait, None);
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        assert_eq!(job("melt 1").unwrap_err(), "no operation melt");
        assert_eq!(job("read 0").unwrap_err(), "LENGTH is missing");
        assert_eq!(job("stop fast").unwrap_err(), "no option fast");
        assert!(
            job("read 0 1 via=air")
                .unwrap_err()
                .starts_with("no path air")
        );
        assert!(job("read 0 1 rid=100:00.0").is_err());
        assert!(job("write 0 1 data=").is_err());
    }
}
