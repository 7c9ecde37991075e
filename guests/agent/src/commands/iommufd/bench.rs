//! A DMA engine on nested tables of our own, and a transcript of what happens to it.

use super::faults::{Code, Fault, Queue, RECORD};
use super::tables::{Memory, Rights, Stage1, Tables};
use crate::args::Args;
use crate::commands::dma::{CHANNEL, Channel, Job};
use crate::reply::{Context as _, Done, Failure, Reply};
use iopf::engine::DeviceId;
use iopf::{Iova, Pasid};
use iopf_host::{
    Device as _, FaultQueueObject, Hwpt, HwptFlags, Ioas, Iommufd, Mapping, Stage1 as Data,
    VfioDevice, VtdRange,
};
use rustix::io::Errno;
use std::fmt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

/// The PASID of the scenarios that use one.
pub(super) const PASID: Pasid = Pasid::truncate(7);

/// How long something may take that is sure to happen, and how long nothing is waited for.
const SOON: Duration = Duration::from_secs(8);
const NOTHING: Duration = Duration::from_millis(100);

/// Records that one read makes room for.
const ROOM: usize = 32;

/// Tables and the kernel's object that stands for them.
#[derive(Debug)]
pub(super) struct Space {
    pub(super) tables: Tables,
    pub(super) hwpt: Hwpt,
}

/// Everything that a scenario needs. What happens is said one line each.
pub(super) struct Bench<'a, 'b> {
    out: &'a mut Reply<'b>,
    // Fields drop in the order written: registers, the device, the tables it was on, and then what
    // these stand on.
    engine: Option<Engine>,
    queue: Queue,
    faults: FaultQueueObject,
    /// What ours are nested on, where we write tables.
    parent: Option<Hwpt>,
    pub(super) ioas: Ioas,
    memory: Rc<Memory>,
    sysfs: PathBuf,
    number: DeviceId,
}

/// The device with two of its channels.
struct Engine {
    channels: [Channel; 2],
    device: VfioDevice,
}

/// The registers of the channel there.
fn registers(device: &VfioDevice, offset: u64) -> Result<Mapping, Failure> {
    let len = usize::try_from(CHANNEL).unwrap_or_default();
    Ok(device.map_bar(0, offset, len)?)
}

fn number(error: Errno) -> String {
    // The names that errno(3) has for what is expected here; of anything else, the number.
    match error {
        Errno::INVAL => "EINVAL".to_owned(),
        Errno::SPIPE => "ESPIPE".to_owned(),
        other => format!("error-{}", other.raw_os_error()),
    }
}

impl<'a, 'b> Bench<'a, 'b> {
    /// Binds the engine in the folder `sysfs` to a new iommufd.
    pub(super) fn new(sysfs: &Path, out: &'a mut Reply<'b>) -> Result<Self, Failure> {
        let iommufd = Iommufd::open()?;
        let device = VfioDevice::open_function(sysfs, &iommufd)?;
        // vfio-pci clears it when the device is opened.
        device.set_bus_master(true)?;
        let channel = |offset| Channel::over(registers(&device, offset)?);
        let channels = [channel(0)?, channel(CHANNEL)?];
        let number = device.id();
        let ioas = Ioas::new(&iommufd)?;
        let memory = Memory::new()?;
        ioas.map(memory.base(), &memory.mapping, iopf_host::Rights::all())?;
        // What the kernel takes as a stage 1 of ours is known of VT-d alone.
        let nests = iommufd.hw_info(number)?.vtd().is_some();
        let flags = HwptFlags::NEST_PARENT | HwptFlags::PASID;
        let parent = nests.then(|| Hwpt::paging(&ioas, number, flags, None));
        let parent = parent.transpose()?;
        let (faults, file) = FaultQueueObject::new(&iommufd)?;
        Ok(Self {
            out,
            engine: Some(Engine { channels, device }),
            queue: Queue(file),
            faults,
            parent,
            ioas,
            memory,
            sysfs: sysfs.to_owned(),
            number,
        })
    }

    /// Tables that map nothing; page requests go to the queue.
    pub(super) fn space(&self) -> Result<Space, Failure> {
        self.space_of(Some(&self.faults))
    }

    /// Tables that map nothing; page requests go to nobody.
    pub(super) fn space_without_queue(&self) -> Result<Space, Failure> {
        self.space_of(None)
    }

    fn space_of(&self, queue: Option<&FaultQueueObject>) -> Result<Space, Failure> {
        // Whoever uses PASIDs says so for all tables of the device.
        let flags = HwptFlags::PASID;
        let Some(parent) = &self.parent else {
            let ioas = Ioas::new(self.ioas.iommufd())?;
            let hwpt = Hwpt::paging(&ioas, self.number, flags, queue)?;
            let tables = Tables::Kernel(ioas, self.memory.clone());
            return Ok(Space { tables, hwpt });
        };
        let stage1 = Stage1::new(&self.memory)?;
        let data = Data::Vtd {
            flags: 0,
            table: stage1.root(),
            width: 48,
        };
        let hwpt = Hwpt::nested(parent, self.number, flags, &data, queue)?;
        let tables = Tables::Ours(stage1);
        Ok(Space { tables, hwpt })
    }

    fn engine(&self) -> Result<&Engine, Failure> {
        let engine = self.engine.as_ref();
        engine.ok_or_else(|| Failure::new("the device is closed"))
    }

    /// Puts the device, or one PASID of it, on these tables.
    pub(super) fn attach(&mut self, pasid: Option<Pasid>, space: &Space) -> Done {
        self.engine()?.device.attach(pasid, &space.hwpt)?;
        self.say("attached")
    }

    /// Takes the device, or one PASID of it, off its tables.
    pub(super) fn detach(&mut self, pasid: Option<Pasid>) -> Done {
        self.engine()?.device.detach(pasid)?;
        self.say("detached")
    }

    /// The first channel's registers once more.
    pub(super) fn registers(&self) -> Result<Mapping, Failure> {
        registers(&self.engine()?.device, 0)
    }

    /// Resets the function.
    pub(super) fn reset(&mut self) -> Done {
        self.engine()?.device.reset()?;
        self.say("reset")
    }

    /// Closes the device.
    pub(super) fn close(&mut self) -> Done {
        self.engine = None;
        self.say("closed")
    }

    /// Says what the kernel has of the device and of its IOMMU.
    pub(super) fn describe(&mut self) -> Done {
        let engine = self.engine()?;
        let bar = engine.device.region(0)?;
        let info = self.ioas.iommufd().hw_info(self.number)?;
        let (cap, ecap) = info
            .vtd()
            .ok_or_else(|| Failure::new("the IOMMU is no VT-d"))?;
        self.say(format_args!(
            "bar 0: {:#x} bytes, {:?}",
            bar.size, bar.flags
        ))?;
        self.say(format_args!(
            "vtd cap={cap:#x} ecap={ecap:#x}, {} bits of PASID",
            info.pasid_bits
        ))
    }

    /// Tries to open the device once more, and says what came of it.
    pub(super) fn reopen(&mut self) -> Done {
        match VfioDevice::open_function(&self.sysfs, self.ioas.iommufd()) {
            Ok(_) => self.say("opened again"),
            Err(error) => self.say(error),
        }
    }

    /// Says how many objects the kernel would not destroy.
    pub(super) fn left_behind(&mut self) -> Done {
        let left = self.ioas.iommufd().left_behind();
        self.say(format_args!("{left} objects left behind"))
    }

    /// Says a line.
    pub(super) fn say(&mut self, text: impl fmt::Display) -> Done {
        self.out.line(text);
        Ok(())
    }

    /// Fills a data page.
    pub(super) fn fill(&self, page: u64, byte: u8) -> Done {
        self.memory.fill(page, byte)
    }

    /// Says what a data page holds.
    pub(super) fn look(&mut self, page: u64) -> Done {
        match self.memory.full_of(page)? {
            Some(byte) => self.say(format_args!("page {page} full of {byte:#04x}")),
            None => self.say(format_args!("page {page} holds different bytes")),
        }
    }

    /// Starts a job, in the words of the command `dma`.
    pub(super) fn start(&mut self, channel: usize, job: &str) -> Done {
        let parsed = Job::parse(&mut Args::new(job))?;
        self.engine()?.channels[channel].start(&parsed)
    }

    /// Says how a job stands after a while in which nothing should happen.
    pub(super) fn still(&mut self, channel: usize) -> Done {
        std::thread::sleep(NOTHING);
        self.standing(channel)
    }

    /// Waits for the end of a job and says how it ended.
    pub(super) fn end(&mut self, channel: usize) -> Done {
        self.engine()?.channels[channel]
            .wait(SOON)
            .context(format_args!("the job of channel {channel}"))?;
        self.standing(channel)
    }

    fn standing(&mut self, channel: usize) -> Done {
        let job = self.engine()?.channels[channel].standing()?;
        let mut line = format!("job {channel} {}", job.state);
        match job.state {
            "error" => line += &format!(" {} at {:#x}", job.code, job.fault),
            "done" => line += &format!(" moved={} check={:#x}", job.moved, job.check),
            _ => {}
        }
        self.say(format_args!("{line} pages={}", job.pages))
    }

    /// Waits for this many faults and says them.
    pub(super) fn faults(&mut self, count: usize) -> Result<Vec<Fault>, Failure> {
        let mut faults = Vec::new();
        while faults.len() < count {
            if !self.queue.wait(SOON)? {
                let came = faults.len();
                return Err(Failure::new(format!("{came} of {count} faults came")));
            }
            for fault in self.queue.read(ROOM * RECORD)? {
                self.fault(&fault)?;
                faults.push(fault);
            }
        }
        Ok(faults)
    }

    fn fault(&mut self, fault: &Fault) -> Done {
        if fault.0.dev_id == self.number.0 {
            self.say(format_args!("fault {fault}"))
        } else {
            let other = fault.0.dev_id;
            self.say(format_args!("fault {fault} of device {other}"))
        }
    }

    /// Says what is there to read though nothing should be.
    pub(super) fn quiet(&mut self) -> Done {
        let ready = self.queue.wait(NOTHING)?;
        let read = self.queue.read(ROOM * RECORD)?;
        for fault in &read {
            self.fault(fault)?;
        }
        match (ready, read.len()) {
            (false, 0) => self.say("no fault"),
            (ready, _) => self.say(format_args!("ready={ready}")),
        }
    }

    /// Waits for a fault and leaves it in the queue.
    pub(super) fn unread(&mut self) -> Done {
        match self.queue.wait(SOON)? {
            true => self.say("a fault waits"),
            false => Err(Failure::new("no fault came")),
        }
    }

    /// Tries a read of `len` bytes and says what came of it.
    pub(super) fn try_read(&mut self, len: usize) -> Done {
        match self.queue.read(len) {
            Ok(faults) => {
                self.say(format_args!(
                    "read of {len} bytes: {} records",
                    faults.len()
                ))?;
                faults.iter().try_for_each(|fault| self.fault(fault))
            }
            Err(error) => self.say(format_args!("read of {len} bytes: {}", number(error))),
        }
    }

    /// Answers groups in one write and says how many the kernel took.
    pub(super) fn answer(&mut self, answers: &[(u32, Code)]) -> Done {
        let came = match self.queue.answer(answers) {
            Ok(taken) => format!("{taken} taken"),
            Err(error) => number(error),
        };
        let said = answers
            .iter()
            .map(|(cookie, code)| format!(" {cookie}={code}"));
        let said: String = said.collect();
        self.say(format_args!("answers{said}: {came}"))
    }

    /// Maps a page to a data page.
    pub(super) fn map(&mut self, space: &Space, at: u64, page: u64, rights: Rights) -> Done {
        space.tables.map(at, page, rights)?;
        self.say(format_args!("mapped {at:#x} to page {page}, {rights:?}"))
    }

    /// Unmaps a page.
    pub(super) fn unmap(&mut self, space: &Space, at: u64) -> Done {
        space.tables.unmap(at)?;
        self.say(format_args!("unmapped {at:#x}"))
    }

    /// Tells the kernel that entries have changed; says what came of it.
    pub(super) fn invalidate(&mut self, space: &Space, at: u64, pages: u64) -> Done {
        let range = VtdRange {
            addr: Iova(at),
            pages,
            leaf_only: false,
        };
        let came = match space.hwpt.invalidate_vtd(&[range]) {
            Ok(()) => "done".to_owned(),
            Err(error) => number(error.refused.errno),
        };
        self.say(format_args!(
            "invalidation of {at:#x}, {pages:#x} pages: {came}"
        ))
    }
}
