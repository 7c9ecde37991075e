//! What comes out of a fault queue, and what goes in.

use crate::reply::Failure;
use iopf::Access;
use iopf_host::{FaultFd, FaultFile as _, RawAnswer, RawFault};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::fmt;
use std::time::Duration;
use zerocopy::{FromBytes as _, IntoBytes as _};

/// Bytes of a fault's record, and of an answer's.
pub(super) const RECORD: usize = size_of::<RawFault>();
const ANSWER: usize = size_of::<RawAnswer>();

/// One page request, as the kernel hands it on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fault(pub(super) RawFault);

/// How a group is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Code(pub(super) u32);

impl Code {
    pub(super) const SUCCESS: Self = Self(RawAnswer::SUCCESS);
    pub(super) const INVALID: Self = Self(RawAnswer::INVALID);
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::SUCCESS => f.write_str("success"),
            Self::INVALID => f.write_str("invalid"),
            Self(other) => write!(f, "code-{other}"),
        }
    }
}

/// `read 0x20000000 group=0 cookie=1 pasid=7 last`.
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = [
            (Access::READ, "read"),
            (Access::WRITE, "write"),
            (Access::EXEC, "execute"),
            (Access::PRIV, "privileged"),
        ];
        let asked = self.0.request([0; 2]).access;
        let perms = names.iter().filter(|(bit, _)| asked.contains(*bit));
        let perms: Vec<_> = perms.map(|(_, name)| *name).collect();
        let RawFault {
            flags,
            addr,
            grpid,
            cookie,
            pasid,
            ..
        } = self.0;
        let perms = perms.join("+");
        write!(f, "{perms} {addr:#x} group={grpid} cookie={cookie}")?;
        if flags & RawFault::PASID_VALID != 0 {
            write!(f, " pasid={pasid}")?;
        }
        if self.0.is_last() {
            f.write_str(" last")?;
        }
        let others = flags & !(RawFault::PASID_VALID | RawFault::LAST_PAGE);
        if others != 0 {
            write!(f, " flags={others:#x}")?;
        }
        Ok(())
    }
}

/// A fault queue's descriptor, read and written as it comes.
#[derive(Debug)]
pub(super) struct Queue(pub(super) FaultFd);

impl Queue {
    /// Waits until there is something to read; false when nothing came.
    pub(super) fn wait(&self, patience: Duration) -> Result<bool, Failure> {
        let patience = Timespec::try_from(patience).map_err(|_| Errno::INVAL)?;
        let mut ready = [PollFd::new(&self.0, PollFlags::IN)];
        poll(&mut ready, Some(&patience))?;
        Ok(ready[0].revents().contains(PollFlags::IN))
    }

    /// One read of `len` bytes. It never waits.
    pub(super) fn read(&self, len: usize) -> Result<Vec<Fault>, Errno> {
        let mut buffer = vec![0; len];
        let len = self.0.read(&mut buffer)?;
        let records = buffer[..len].chunks_exact(RECORD);
        let faults = records.map(|record| RawFault::read_from_bytes(record).map(Fault));
        faults.collect::<Result<_, _>>().map_err(|_| Errno::IO)
    }

    /// One write of these answers; how many the kernel took.
    pub(super) fn answer(&self, answers: &[(u32, Code)]) -> Result<usize, Errno> {
        let answer = |&(cookie, Code(code)): &(u32, Code)| RawAnswer { cookie, code };
        let answers: Vec<_> = answers.iter().map(answer).collect();
        Ok(self.0.write(answers.as_bytes())? / ANSWER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `struct iommu_hwpt_pgfault` typed from the header: flags PASID_VALID and LAST_PAGE, device 2,
    /// PASID 7, group 9, perm write, reserved, address, length, cookie 3.
    const RECORD_BYTES: [u8; 40] = [
        3, 0, 0, 0, 2, 0, 0, 0, 7, 0, 0, 0, 9, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, //
        0x00, 0x10, 0x00, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0,
    ];

    #[test]
    fn a_record_is_read_from_literal_bytes() {
        let fault = Fault(RawFault::read_from_bytes(&RECORD_BYTES).unwrap());
        assert_eq!(fault.0.dev_id, 2);
        assert_eq!(
            fault.to_string(),
            "write 0x20001000 group=9 cookie=3 pasid=7 last"
        );
    }
}
