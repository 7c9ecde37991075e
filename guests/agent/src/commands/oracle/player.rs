//! The steps, one by one.

use super::events::{Event, Events};
use super::memory::Memory;
use super::name;
use crate::args::{Args, number};
use crate::reply::{Context as _, Failure};
use crate::sys::iommufd::{self, Came, Cliff};
use rustix::event::epoll;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::File;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::time::Duration;

/// Where iommufd is.
const DEVICE: &str = "/dev/iommu";

/// The ID of an object that the script names and that is not there.
const NOBODY: u32 = 0x7fff_ffff;

/// Operations of the self-test: `IOMMU_TEST_OP_…` of the kernel's `iommufd_test.h`.
const MOCK_DOMAIN_FLAGS: u32 = 12;
const TRIGGER_IOPF: u32 = 15;
const PASID_ATTACH: u32 = 18;
const PASID_REPLACE: u32 = 19;
const PASID_DETACH: u32 = 20;

/// `MOCK_FLAGS_DEVICE_PASID`.
const WITH_PASIDS: u32 = 4;

/// Bits of `perm` that our patch gives a meaning.
const NOT_LAST: u32 = 1 << 31;
const DISCARD: u32 = 1 << 30;
const NEEDS_PASID: u32 = 1 << 29;
const RETURN: u32 = 1 << 28;

/// Bytes of a record that is read.
const RECORD: usize = 40;

/// A mock device.
#[derive(Debug)]
struct Device {
    /// What is attached and destroyed.
    standing: u32,
    /// What reports, and is named in records.
    id: u32,
    /// What the kernel calls it.
    kernel: String,
    /// PASIDs that are attached, the function's own left out.
    attached: BTreeSet<u32>,
}

/// A fault queue.
#[derive(Debug)]
struct Queue {
    id: u32,
    file: Option<OwnedFd>,
    /// Wakes up edge-triggered.
    edge: OwnedFd,
}

/// What is open and made.
#[derive(Debug)]
pub(super) struct Player {
    events: Events,
    cliff: Cliff,
    memory: Memory,
    iommu: Option<OwnedFd>,
    ioas: u32,
    devices: BTreeMap<u8, Device>,
    queues: BTreeMap<u8, Queue>,
    /// IDs of page tables.
    tables: BTreeMap<u8, u32>,
    /// IDs of virtual IOMMUs.
    viommus: BTreeMap<u8, u32>,
}

/// What a call came to and the records that were read; `None`: the name is taken.
type Played = Result<Option<(Came, Vec<u8>)>, Failure>;

/// A call without records.
fn only(came: Came) -> Played {
    Ok(Some((came, Vec::new())))
}

/// A call that gives a value which the player keeps.
fn told<T>(came: Result<T, Came>, keep: impl FnOnce(T)) -> Played {
    only(match came {
        Ok(value) => {
            keep(value);
            0
        }
        Err(error) => error,
    })
}

const BAD: Came = -(libc::EBADF as Came);

impl Player {
    pub(super) fn new() -> Result<Self, Failure> {
        Ok(Self {
            events: Events::open()?,
            cliff: Cliff::new()?,
            memory: Memory::new()?,
            iommu: None,
            ioas: NOBODY,
            devices: BTreeMap::new(),
            queues: BTreeMap::new(),
            tables: BTreeMap::new(),
            viommus: BTreeMap::new(),
        })
    }

    /// Plays a step; its line.
    pub(super) fn play(&mut self, mut args: Args<'_>) -> Result<String, Failure> {
        let step = args.word("STEP")?;
        // Where a device goes in this step, its name is still needed for its last answers.
        let mut names = self.names();
        let played = match step {
            "open" => self.open(),
            "wait" => {
                let time = Duration::from_millis(args.number("MILLISECONDS")?);
                std::thread::sleep(time);
                only(0)
            }
            "read" | "read-at" | "write" | "write-at" | "poll" | "edge" | "close" => {
                self.on_descriptor(step, &mut args)
            }
            _ => {
                let iommu = self.iommu.take();
                let played = match &iommu {
                    Some(open) => self.on_iommu(step, open.as_fd(), &mut args),
                    None => only(BAD),
                };
                if step == "shut" && played.is_ok() {
                    drop(iommu);
                } else {
                    self.iommu = iommu;
                }
                played
            }
        }?;
        names.extend(self.names());
        self.forget();
        let mut line = match &played {
            Some((came, _)) => came.to_string(),
            None => "taken".to_owned(),
        };
        let (came, records) = played.unwrap_or_default();
        for record in records.chunks_exact(RECORD) {
            self.record(&mut line, record);
        }
        for event in self.events.read()? {
            tell(&mut line, &event, &names, step, came);
        }
        Ok(line)
    }

    /// The script's names of the kernel's devices.
    fn names(&self) -> BTreeMap<String, u8> {
        let pair = |(name, device): (&u8, &Device)| (device.kernel.clone(), *name);
        self.devices.iter().map(pair).collect()
    }

    /// With the last descriptor everything is gone.
    fn forget(&mut self) {
        if self.iommu.is_none() && self.queues.values().all(|queue| queue.file.is_none()) {
            self.devices.clear();
            self.queues.clear();
            self.tables.clear();
            self.viommus.clear();
        }
    }

    fn open(&mut self) -> Played {
        if self.iommu.is_some() || !self.queues.is_empty() {
            return Ok(None);
        }
        let file = File::options().read(true).write(true).open(DEVICE);
        let file = OwnedFd::from(file.context(DEVICE)?);
        let made = iommufd::ioas(file.as_fd());
        self.iommu = Some(file);
        told(made, |id| self.ioas = id)
    }

    fn on_iommu(&mut self, step: &str, on: BorrowedFd<'_>, args: &mut Args<'_>) -> Played {
        match step {
            "device" => self.device(on, args),
            "fault" => {
                let name = name('f', args.word("QUEUE")?)?;
                if self.queues.contains_key(&name) {
                    return Ok(None);
                }
                match iommufd::fault(on) {
                    Ok((id, file)) => {
                        let edge = epoll::create(epoll::CreateFlags::CLOEXEC)?;
                        let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
                        epoll::add(&edge, &file, epoll::EventData::new_u64(0), flags)?;
                        let file = Some(file);
                        self.queues.insert(name, Queue { id, file, edge });
                        only(0)
                    }
                    Err(error) => only(error),
                }
            }
            "fault-wrong" => only(match args.word("HOW")? {
                "files" => iommufd::without_files(|| iommufd::fault_wrong(on, &[0, 0, 0]))?,
                "flags" => iommufd::fault_wrong(on, &[1, 0, 0]),
                "short" => iommufd::fault_wrong(on, &[0]),
                _ => iommufd::fault_wrong(on, &[0, 0, 0, 0, 1]),
            }),
            "hwpt" => {
                let name = name('h', args.word("TABLES")?)?;
                let device = self.device_id(args)?;
                let (base, nested) = self.table(args)?;
                let flags = args.small("FLAGS")?;
                let queue = match args.word("QUEUE")? {
                    "-" => None,
                    word => Some(self.queue_id(word)?),
                };
                if self.tables.contains_key(&name) {
                    return Ok(None);
                }
                let made = iommufd::hwpt(on, device, base, flags, queue, nested);
                told(made, |id| {
                    self.tables.insert(name, id);
                })
            }
            "viommu" => {
                let name = name('v', args.word("VIOMMU")?)?;
                let device = self.device_id(args)?;
                let (parent, _) = self.table(args)?;
                if self.viommus.contains_key(&name) {
                    return Ok(None);
                }
                told(iommufd::viommu(on, device, parent), |id| {
                    self.viommus.insert(name, id);
                })
            }
            "vdevice" => {
                let (viommu, _) = self.table(args)?;
                let device = self.device_id(args)?;
                only(iommufd::vdevice(on, viommu, device, args.small("NUMBER")?))
            }
            "attach" | "replace" | "detach" => self.attach(step, on, args),
            "page" | "last" | "page-nomem" | "last-nomem" => {
                let device = self.device_id(args)?;
                let (pasid, group) = (args.small("PASID")?, args.small("GROUP")?);
                let perm: u32 = args.small("PERM")?;
                let [low, high] = iommufd::halves(args.number("ADDRESS")?);
                let mut flags = RETURN;
                if step.starts_with("page") {
                    flags |= NOT_LAST;
                }
                if args.number("NEEDS")? == 1 {
                    flags |= NEEDS_PASID;
                }
                let words = [device, pasid, group, perm | flags, low, high];
                let report = || iommufd::test(on, TRIGGER_IOPF, 0, words);
                let came = if step.ends_with("-nomem") {
                    self.memory.without(report)?
                } else {
                    report()
                };
                told(came, |_| ())
            }
            "discard" => {
                let words = [self.device_id(args)?, 0, 0, DISCARD | RETURN, 0, 0];
                told(iommufd::test(on, TRIGGER_IOPF, 0, words), |_| ())
            }
            "destroy" => self.destroy(on, args.word("OBJECT")?),
            "shut" => {
                let names: Vec<u8> = self.devices.keys().copied().collect();
                for name in names {
                    self.detach_pasids(on, name);
                }
                only(0)
            }
            _ => Err(Failure::usage("no such step")),
        }
    }

    fn device(&mut self, on: BorrowedFd<'_>, args: &mut Args<'_>) -> Played {
        let name = name('d', args.word("DEVICE")?)?;
        let flags = if args.number("PASIDS")? == 1 {
            WITH_PASIDS
        } else {
            0
        };
        if self.devices.contains_key(&name) {
            return Ok(None);
        }
        let words = match iommufd::test(on, MOCK_DOMAIN_FLAGS, self.ioas, [0, 0, 0, flags]) {
            Ok(words) => words,
            Err(error) => return only(error),
        };
        let [standing, _, id, ..] = words;
        // Its tables take no page requests: what is reported is refused, and tells its name.
        let _ = iommufd::test(on, TRIGGER_IOPF, 0, [id, 0, 0, 0, 0, 0]);
        let kernel = self
            .events
            .read()?
            .into_iter()
            .find_map(|event| match event {
                Event::Report { device, .. } => Some(device),
                _ => None,
            });
        let device = Device {
            standing,
            id,
            kernel: kernel.ok_or_else(|| Failure::new("the kernel tells of no report"))?,
            attached: BTreeSet::new(),
        };
        self.devices.insert(name, device);
        only(0)
    }

    fn attach(&mut self, step: &str, on: BorrowedFd<'_>, args: &mut Args<'_>) -> Played {
        let name = name('d', args.word("DEVICE")?)?;
        let pasid: u32 = args.small("PASID")?;
        let standing = self
            .devices
            .get(&name)
            .map_or(NOBODY, |device| device.standing);
        let (operation, table) = match step {
            "attach" => (PASID_ATTACH, self.table(args)?.0),
            "replace" => (PASID_REPLACE, self.table(args)?.0),
            _ => (PASID_DETACH, 0),
        };
        let came = iommufd::test(on, operation, standing, [pasid, table]);
        let device = self.devices.get_mut(&name);
        told(came, |_| {
            let Some(device) = device.filter(|_| pasid != 0) else {
                return;
            };
            if step == "detach" {
                device.attached.remove(&pasid);
            } else {
                device.attached.insert(pasid);
            }
        })
    }

    fn detach_pasids(&mut self, on: BorrowedFd<'_>, name: u8) {
        let Some(device) = self.devices.get_mut(&name) else {
            return;
        };
        for pasid in std::mem::take(&mut device.attached) {
            let _ = iommufd::test(on, PASID_DETACH, device.standing, [pasid]);
        }
    }

    fn destroy(&mut self, on: BorrowedFd<'_>, object: &str) -> Played {
        let came = match object.as_bytes().first() {
            Some(b'd') => {
                let name = name('d', object)?;
                self.detach_pasids(on, name);
                let id = self
                    .devices
                    .get(&name)
                    .map_or(NOBODY, |device| device.standing);
                let came = iommufd::destroy(on, id);
                if came == 0 {
                    self.devices.remove(&name);
                }
                came
            }
            Some(b'f') => {
                let came = iommufd::destroy(on, self.queue_id(object)?);
                if came == 0 {
                    self.queues.remove(&name('f', object)?);
                }
                came
            }
            letter => {
                let (letter, ids) = match letter {
                    Some(b'v') => ('v', &mut self.viommus),
                    _ => ('h', &mut self.tables),
                };
                let name = name(letter, object)?;
                let came = iommufd::destroy(on, ids.get(&name).copied().unwrap_or(NOBODY));
                if came == 0 {
                    ids.remove(&name);
                }
                came
            }
        };
        only(came)
    }

    fn device_id(&self, args: &mut Args<'_>) -> Result<u32, Failure> {
        let name = name('d', args.word("DEVICE")?)?;
        Ok(self.devices.get(&name).map_or(NOBODY, |device| device.id))
    }

    fn queue_id(&self, word: &str) -> Result<u32, Failure> {
        let name = name('f', word)?;
        Ok(self.queues.get(&name).map_or(NOBODY, |queue| queue.id))
    }

    /// The ID of tables, and whether those built on them are nested.
    fn table(&self, args: &mut Args<'_>) -> Result<(u32, bool), Failure> {
        match args.word("TABLES")? {
            "ioas" => Ok((self.ioas, false)),
            word if word.starts_with('v') => {
                let id = self.viommus.get(&name('v', word)?).copied();
                Ok((id.unwrap_or(NOBODY), true))
            }
            word => {
                let id = self.tables.get(&name('h', word)?).copied();
                Ok((id.unwrap_or(NOBODY), true))
            }
        }
    }

    fn on_descriptor(&mut self, step: &str, args: &mut Args<'_>) -> Played {
        let name = name('f', args.word("QUEUE")?)?;
        let queue = self.queues.get_mut(&name);
        let Some(queue) = queue.filter(|queue| queue.file.is_some()) else {
            return only(BAD);
        };
        let Some(file) = &queue.file else {
            return only(BAD);
        };
        match step {
            "read" => {
                let (bytes, good) = (args.small("BYTES")?, args.small("GOOD")?);
                Ok(Some(self.cliff.read(file, bytes, good)))
            }
            "read-at" => {
                let mut buffer = vec![0; args.small("BYTES")?];
                let read = rustix::io::pread(file, buffer.as_mut_slice(), 8);
                only(read.map_or_else(errno, count))
            }
            "write" => {
                let (bytes, good) = (args.small("BYTES")?, args.small("GOOD")?);
                let mut buffer = Vec::new();
                while let Some(word) = args.next() {
                    let wrong = || Failure::usage(format!("{word} is no COOKIE:CODE"));
                    let (cookie, code) = word.split_once(':').ok_or_else(wrong)?;
                    for part in [cookie, code] {
                        let value = number("ANSWER", part)?;
                        let value = u32::try_from(value).map_err(|_| wrong())?;
                        buffer.extend(value.to_ne_bytes());
                    }
                }
                buffer.resize(bytes, 0);
                buffer.truncate(good);
                only(self.cliff.write(file, bytes, &buffer))
            }
            "write-at" => {
                let buffer = vec![0; args.small("BYTES")?];
                let written = rustix::io::pwrite(file, &buffer, 8);
                only(written.map_or_else(errno, count))
            }
            "poll" => {
                let all = PollFlags::all();
                let mut polled = [PollFd::new(file, all)];
                poll(&mut polled, Some(&Timespec::default()))?;
                only(polled[0].revents().bits().into())
            }
            "edge" => {
                let mut woken = [epoll::Event {
                    flags: epoll::EventFlags::empty(),
                    data: epoll::EventData::new_u64(0),
                }];
                let now = Timespec::default();
                let count = epoll::wait(&queue.edge, &mut woken[..], Some(&now))?;
                only(i64::try_from(count).unwrap_or(0))
            }
            _ => {
                queue.file = None;
                only(0)
            }
        }
    }

    /// ` r:` and a record: device, flags, PASID, group, perm, reserved, address, length, cookie.
    fn record(&self, line: &mut String, record: &[u8]) {
        let word = |at: usize| u32::from_ne_bytes(std::array::from_fn(|i| record[at + i]));
        let addr = u64::from_ne_bytes(std::array::from_fn(|i| record[24 + i]));
        let mut devices = self.devices.iter();
        let device = devices.find(|(_, device)| device.id == word(4));
        let device = device.map_or("?".to_owned(), |(name, _)| name.to_string());
        // Writing to a string does not fail.
        let _ = write!(
            line,
            " r:d{device},{:#x},{},{},{},{},{addr:#x},{},{}",
            word(0),
            word(8),
            word(12),
            word(16),
            word(20),
            word(32),
            word(36)
        );
    }
}

fn is_page(step: &str) -> bool {
    step.starts_with("page") || step.starts_with("last")
}

fn errno(error: rustix::io::Errno) -> Came {
    -Came::from(error.raw_os_error())
}

fn count(bytes: usize) -> Came {
    Came::try_from(bytes).unwrap_or(Came::MAX)
}

/// ` a:` and an answer; of a report, nothing where it came to what the call did.
fn tell(line: &mut String, event: &Event, names: &BTreeMap<String, u8>, step: &str, ended: Came) {
    let name = |device: &str| names.get(device).map_or("?".to_owned(), u8::to_string);
    // Writing to a string does not fail.
    let _ = match event {
        Event::Answer {
            device,
            pasid,
            group,
            code,
            flags,
            addr,
        } => write!(
            line,
            " a:d{},{pasid},{group},{code},{flags:#x},{addr:#x}",
            name(device)
        ),
        Event::Report { came, .. } if is_page(step) && *came == ended => Ok(()),
        Event::Discard if step == "discard" => Ok(()),
        other => write!(line, " unexpected:{other:?}"),
    };
}

impl Drop for Player {
    fn drop(&mut self) {
        // The mock device leaves PASIDs behind where they are not detached first.
        if let Some(iommu) = self.iommu.take() {
            let names: Vec<u8> = self.devices.keys().copied().collect();
            for name in names {
                self.detach_pasids(iommu.as_fd(), name);
            }
        }
    }
}
