//! A mock device with a number on a virtual IOMMU, and a transcript of what happens to it.

use crate::reply::{Done, Failure, Reply};
use iopf_host::selftest::{MockDevice, Tables};
use iopf_host::veventq::{Record, VeventqKind};
use iopf_host::{
    Device as _, Errno, Hwpt, HwptFlags, Ioas, Iommufd, Refused, Stage1, Vdevice, Veventq, Viommu,
    ViommuKind,
};

/// The device's number on the virtual IOMMU.
pub(super) const NUMBER: u64 = 0x42;

/// What the mock's nested tables hold at first: IOMMU_TEST_IOTLB_DEFAULT.
pub(super) const STAGE1: Stage1 = Stage1::Selftest { iotlb: 0x0bad_beef };

/// Everything up to a device that can report events.
pub(super) struct Bench<'a, 'b> {
    pub(super) out: &'a mut Reply<'b>,
    pub(super) device: MockDevice,
    _vdevice: Vdevice,
    pub(super) viommu: Viommu,
    pub(super) parent: Hwpt,
    pub(super) ioas: Ioas,
    pub(super) iommufd: Iommufd,
}

/// How a refusal is said: the number's name where it is one that is expected here.
pub(super) fn number(errno: Errno) -> String {
    match errno {
        Errno::INVAL => "EINVAL".to_owned(),
        Errno::SPIPE => "ESPIPE".to_owned(),
        Errno::EXIST => "EEXIST".to_owned(),
        Errno::NOENT => "ENOENT".to_owned(),
        Errno::OPNOTSUPP => "EOPNOTSUPP".to_owned(),
        Errno::NOMEM => "ENOMEM".to_owned(),
        other => format!("error-{}", other.raw_os_error()),
    }
}

impl<'a, 'b> Bench<'a, 'b> {
    /// A device that is on tables of the kernel's choice and has a number.
    pub(super) fn new(out: &'a mut Reply<'b>) -> Result<Self, Failure> {
        let iommufd = Iommufd::open()?;
        let ioas = Ioas::new(&iommufd)?;
        let device = MockDevice::new(&ioas)?;
        let parent = Hwpt::paging(&ioas, device.id(), HwptFlags::NEST_PARENT, None)?;
        let viommu = Viommu::new(&parent, device.id(), ViommuKind::SELFTEST)?;
        let vdevice = Vdevice::new(&viommu, &device, NUMBER)?;
        Ok(Self {
            out,
            device,
            _vdevice: vdevice,
            viommu,
            parent,
            ioas,
            iommufd,
        })
    }

    /// Puts the device on nested tables of the virtual IOMMU, so that its events are that one's.
    pub(super) fn nest(&mut self) -> Result<Hwpt, Failure> {
        let flags = HwptFlags::empty();
        let nested = Hwpt::nested(&self.viommu, self.device.id(), flags, &STAGE1, None)?;
        self.device.replace(Tables::Hwpt(&nested))?;
        Ok(nested)
    }

    /// A queue that holds this many events.
    pub(super) fn queue(&self, depth: u32) -> Result<Veventq, Refused> {
        Veventq::new(&self.viommu, VeventqKind::SELFTEST, depth)
    }

    /// Has the device report so many events. That there is no room is no error of the request.
    pub(super) fn trigger(&self, count: u32) -> Done {
        (0..count).try_for_each(|_| Ok(self.device.trigger_event()?))
    }

    /// Says what came of a request that should be refused.
    pub(super) fn refused<T>(&mut self, what: &str, came: Result<T, Refused>) {
        let came = match came {
            Ok(_) => "done".to_owned(),
            Err(refused) => number(refused.errno),
        };
        self.out.line(format_args!("{what}: {came}"));
    }

    /// Says all records that there are.
    pub(super) fn drain(&mut self, queue: &mut Veventq) -> Done {
        while let Some(record) = queue.next_record().map_err(said)? {
            say(self.out, &record);
        }
        Ok(())
    }

    /// Says one record that must be there.
    pub(super) fn one(&mut self, queue: &mut Veventq) -> Done {
        match queue.next_record().map_err(said)? {
            Some(record) => say(self.out, &record),
            None => return Err(Failure::new("no record")),
        }
        Ok(())
    }

    /// Says what came and what did not.
    pub(super) fn counts(&mut self, queue: &Veventq) {
        let counts = queue.counts();
        self.out.line(format_args!(
            "{} events, {} lost, {} malformed",
            counts.events, counts.lost, counts.malformed
        ));
    }
}

pub(super) fn said(error: iopf_host::veventq::VeventqError) -> Failure {
    Failure::new(error.to_string())
}

/// `event 3 of 0x42, 2 lost before`, `3 lost, up to 7`.
fn say(out: &mut Reply<'_>, record: &Record<'_>) {
    match record {
        Record::Event {
            sequence,
            lost,
            flags,
            data,
        } => {
            let mut line = match data.first_chunk() {
                Some(id) if data.len() == 4 => {
                    format!("event {sequence} of {:#x}", u32::from_ne_bytes(*id))
                }
                _ => format!("event {sequence} of {} bytes", data.len()),
            };
            if *lost != 0 {
                line += &format!(", {lost} lost before");
            }
            if *flags != 0 {
                line += &format!(", flags {flags:#x}");
            }
            out.line(line);
        }
        Record::Lost {
            sequence,
            lost,
            flags,
        } => {
            out.line(format_args!(
                "{lost} lost, up to {sequence}, flags {flags:#x}"
            ));
        }
    }
}
