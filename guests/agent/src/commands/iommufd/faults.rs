//! What comes out of a fault queue, and what goes in.

use crate::reply::Failure;
use iommufd_bindings::{
    iommu_hwpt_page_response, iommu_hwpt_pgfault,
    iommu_hwpt_pgfault_flags_IOMMU_PGFAULT_FLAGS_LAST_PAGE as LAST_PAGE,
    iommu_hwpt_pgfault_flags_IOMMU_PGFAULT_FLAGS_PASID_VALID as PASID_VALID,
    iommu_hwpt_pgfault_perm_IOMMU_PGFAULT_PERM_EXEC as EXEC,
    iommu_hwpt_pgfault_perm_IOMMU_PGFAULT_PERM_PRIV as PRIV,
    iommu_hwpt_pgfault_perm_IOMMU_PGFAULT_PERM_READ as READ,
    iommu_hwpt_pgfault_perm_IOMMU_PGFAULT_PERM_WRITE as WRITE,
    iommufd_page_response_code_IOMMUFD_PAGE_RESP_INVALID as INVALID,
    iommufd_page_response_code_IOMMUFD_PAGE_RESP_SUCCESS as SUCCESS,
};
use iopf_host::{FaultFd, FaultFile as _};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::fmt;
use std::mem::offset_of;
use std::time::Duration;

/// Bytes of a fault's record, and of an answer's.
pub(super) const RECORD: usize = size_of::<iommu_hwpt_pgfault>();
const ANSWER: usize = size_of::<iommu_hwpt_page_response>();

/// One page request, as the kernel hands it on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    flags: u32,
    pub(super) device: u32,
    pasid: u32,
    group: u32,
    perm: u32,
    addr: u64,
    pub(super) cookie: u32,
}

/// How a group is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Code(pub(super) u32);

impl Code {
    pub(super) const SUCCESS: Self = Self(SUCCESS);
    pub(super) const INVALID: Self = Self(INVALID);
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

impl Fault {
    /// Reads a record.
    fn decode(record: &[u8; RECORD]) -> Self {
        let word = |at: usize| {
            let mut bytes = [0; 4];
            bytes.copy_from_slice(&record[at..at + 4]);
            u32::from_ne_bytes(bytes)
        };
        let at = offset_of!(iommu_hwpt_pgfault, addr);
        let mut addr = [0; 8];
        addr.copy_from_slice(&record[at..at + 8]);
        Self {
            flags: word(offset_of!(iommu_hwpt_pgfault, flags)),
            device: word(offset_of!(iommu_hwpt_pgfault, dev_id)),
            pasid: word(offset_of!(iommu_hwpt_pgfault, pasid)),
            group: word(offset_of!(iommu_hwpt_pgfault, grpid)),
            perm: word(offset_of!(iommu_hwpt_pgfault, perm)),
            addr: u64::from_ne_bytes(addr),
            cookie: word(offset_of!(iommu_hwpt_pgfault, cookie)),
        }
    }
}

/// `read 0x20000000 group=0 cookie=1 pasid=7 last`.
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = [
            (READ, "read"),
            (WRITE, "write"),
            (EXEC, "execute"),
            (PRIV, "privileged"),
        ];
        let perms = names.iter().filter(|(bit, _)| self.perm & bit != 0);
        let perms: Vec<_> = perms.map(|(_, name)| *name).collect();
        let (group, cookie) = (self.group, self.cookie);
        write!(
            f,
            "{} {:#x} group={group} cookie={cookie}",
            perms.join("+"),
            self.addr
        )?;
        if self.flags & PASID_VALID != 0 {
            write!(f, " pasid={}", self.pasid)?;
        }
        if self.flags & LAST_PAGE != 0 {
            f.write_str(" last")?;
        }
        let known = self.flags & !(PASID_VALID | LAST_PAGE);
        if known != 0 {
            write!(f, " flags={known:#x}")?;
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
        let (records, _) = buffer[..len].as_chunks();
        Ok(records.iter().map(Fault::decode).collect())
    }

    /// One write of these answers; how many the kernel took.
    pub(super) fn answer(&self, answers: &[(u32, Code)]) -> Result<usize, Errno> {
        let mut buffer = Vec::with_capacity(answers.len() * ANSWER);
        for (cookie, code) in answers {
            buffer.extend(cookie.to_ne_bytes());
            buffer.extend(code.0.to_ne_bytes());
        }
        Ok(self.0.write(&buffer)? / ANSWER)
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
        let fault = Fault::decode(&RECORD_BYTES);
        assert_eq!(fault.device, 2);
        assert_eq!(
            fault.to_string(),
            "write 0x20001000 group=9 cookie=3 pasid=7 last"
        );
    }
}
