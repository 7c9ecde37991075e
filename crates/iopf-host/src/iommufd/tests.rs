use super::*;
use crate::{
    FaultQueueObject, Hwpt, HwptFlags, Ioas, Refused, Request, Stage1, Viommu, ViommuKind,
};
use iopf::engine::DeviceId;
use std::fs::File;

/// A file that is no iommufd: it refuses every request as a kernel does that does not know it.
pub(crate) fn none() -> Iommufd {
    OwnedFd::from(File::open("/dev/null").unwrap()).into()
}

/// Objects of numbers that nobody has given.
impl Iommufd {
    pub(crate) fn pretend(&self, id: u32, holds: Vec<Hold>) -> Arc<Object> {
        Object::new(self, id, holds)
    }

    pub(crate) fn gone(&self) -> Vec<u32> {
        self.0.gone.lock().unwrap().clone()
    }
}

#[test]
fn handles_go_to_other_threads() {
    fn all<T: Send + Sync>() {}
    all::<Iommufd>();
    all::<Ioas>();
    all::<Hwpt>();
    all::<FaultQueueObject>();
    all::<crate::FaultFd>();
    all::<Viommu>();
    all::<crate::Vdevice>();
    all::<crate::Veventq>();
    all::<crate::VfioDevice>();
    all::<crate::Mapping>();
    #[cfg(feature = "selftest")]
    all::<crate::selftest::MockDevice>();
}

#[test]
fn what_is_missing_is_said_exactly() {
    let with = "  1 psaux\n 62 iommu\n237 loop-control\n";
    let text = |errno, misc| OpenError::from_open(Path::new("/dev/iommu"), errno, misc).to_string();
    assert_eq!(
        text(Errno::NOENT, with),
        "/dev/iommu: no such node, though this kernel has iommufd (misc device 62): devtmpfs or a \
         container keeps it away"
    );
    let without = "/dev/iommu: this kernel has no iommufd: CONFIG_IOMMUFD is off, or the module \
                   iommufd is not loaded";
    for errno in [Errno::NOENT, Errno::NODEV, Errno::NXIO] {
        // A name that only starts with it is another device.
        assert_eq!(text(errno, " 62 iommufd-not\n"), without);
    }
    assert_eq!(
        text(Errno::NXIO, with),
        "/dev/iommu: not the node of iommufd (misc device 62), and of nothing else"
    );
    assert_eq!(
        text(Errno::ACCESS, with),
        "/dev/iommu: Permission denied (os error 13): who opens it must be able to read and write \
         it"
    );
    assert_eq!(text(Errno::BUSY, with), "/dev/iommu: busy");
    assert_eq!(
        text(Errno::MFILE, with),
        "/dev/iommu: Too many open files (os error 24): raise RLIMIT_NOFILE"
    );
    assert_eq!(
        text(Errno::NFILE, with),
        "/dev/iommu: Too many open files in system (os error 23): raise fs.file-max"
    );
    assert_eq!(
        text(Errno::IO, with),
        "/dev/iommu: Input/output error (os error 5)"
    );
}

#[test]
fn a_node_that_is_not_there_is_no_iommufd() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("iommu");
    let error = Iommufd::open_at(&path).unwrap_err();
    // By what this machine's kernel has.
    assert!(
        matches!(
            error,
            OpenError::NoIommufd { .. } | OpenError::NoNode { .. }
        ),
        "{error:?}"
    );
}

#[test]
fn a_file_that_is_no_iommufd_says_so_at_the_first_request() {
    let error = Ioas::new(&none()).unwrap_err();
    assert_eq!(
        (error.request, error.errno),
        (Request::IoasAlloc, Errno::NOTTY)
    );
    let error = FaultQueueObject::new(&none()).unwrap_err();
    assert_eq!(error.request, Request::FaultQueueAlloc);
    let error = none().hw_info(DeviceId(1)).unwrap_err();
    assert_eq!(error.request, Request::GetHwInfo);
}

#[test]
fn an_object_goes_before_what_it_stands_on_whatever_is_dropped_first() {
    for order in [
        [0, 1, 2],
        [0, 2, 1],
        [1, 0, 2],
        [1, 2, 0],
        [2, 0, 1],
        [2, 1, 0],
    ] {
        let iommufd = none();
        let space = iommufd.pretend(1, Vec::new());
        let parent = iommufd.pretend(2, vec![space.hold()]);
        let nested = iommufd.pretend(3, vec![parent.hold()]);
        let mut handles = [Some(space), Some(parent), Some(nested)];
        for index in order {
            handles[index] = None;
        }
        assert_eq!(iommufd.gone(), [3, 2, 1], "{order:?}");
        // The file refuses what it does not know, and that is counted.
        assert_eq!(iommufd.left_behind(), 3);
    }
}

/// In an object's place: says, when it goes, whether the other end of its pipe was closed by then.
struct Witness(OwnedFd, std::sync::mpsc::Sender<Result<usize, Errno>>);

impl Drop for Witness {
    fn drop(&mut self) {
        self.1.send(rustix::io::write(&self.0, &[0])).unwrap();
    }
}

#[test]
fn a_fault_descriptor_is_closed_before_its_object_goes() {
    let (near, far) = rustix::pipe::pipe().unwrap();
    let (said, heard) = std::sync::mpsc::channel();
    let object = Arc::new(Witness(far, said));
    drop(crate::FaultFd::of_object(near, object.into()));
    assert_eq!(heard.recv(), Ok(Err(Errno::PIPE)));
}

#[test]
fn a_kernel_without_virtual_iommus_is_named() {
    let iommufd = none();
    let refused = |came: Refused| came.to_string();
    let parent = Hwpt::pretend(&iommufd, 1);
    let error = Viommu::new(&parent, DeviceId(2), ViommuKind::SELFTEST).unwrap_err();
    assert!(refused(error).ends_with("they came with Linux 6.13"));
    let viommu = Viommu::pretend(&iommufd, 3);
    let kind = crate::veventq::VeventqKind::SELFTEST;
    let error = crate::Veventq::new(&viommu, kind, 4).unwrap_err();
    assert!(refused(error).ends_with("this kernel has no vEVENTQ: it came with Linux 6.15"));
    let stage1 = Stage1::Selftest { iotlb: 7 };
    let error = Hwpt::nested(&viommu, DeviceId(2), HwptFlags::empty(), &stage1, None).unwrap_err();
    assert_eq!(error.request, Request::HwptAlloc);
}
