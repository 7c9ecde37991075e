use super::*;
use crate::Request;
use crate::iommufd::tests::none;
use std::os::unix::fs::symlink;

#[test]
fn a_function_that_vfio_does_not_have_is_told_with_its_driver() {
    let folder = tempfile::tempdir().unwrap();
    let function = folder.path().join("0000:00:04.0");
    let open = || VfioDevice::open_function(&function, &none()).unwrap_err();
    let end = |error: VfioError| {
        let text = error.to_string();
        let (_, end) = text.split_once("0000:00:04.0: ").unwrap();
        end.to_owned()
    };
    assert_eq!(end(open()), "no such device");
    std::fs::create_dir(&function).unwrap();
    assert_eq!(end(open()), "driven by nothing, not by vfio");
    let driver = function.join("driver");
    symlink("../../bus/pci/drivers/e1000e", &driver).unwrap();
    assert_eq!(end(open()), "driven by e1000e, not by vfio");
    std::fs::remove_file(&driver).unwrap();
    symlink("../../bus/pci/drivers/vfio-pci", &driver).unwrap();
    let without = "vfio has no character device of it: CONFIG_VFIO_DEVICE_CDEV is off";
    assert_eq!(end(open()), without);
    std::fs::create_dir(function.join("vfio-dev")).unwrap();
    assert_eq!(end(open()), without);
    // Its device is looked for by its name, which this machine does not have.
    std::fs::create_dir(function.join("vfio-dev/vfio-of-no-machine")).unwrap();
    assert_eq!(
        open(),
        VfioError::Open {
            path: "/dev/vfio/devices/vfio-of-no-machine".into(),
            errno: Errno::NOENT
        }
    );
}

#[test]
fn a_file_that_is_no_device_is_not_bound() {
    let error = VfioDevice::open(Path::new("/dev/null"), &none()).unwrap_err();
    let VfioError::Refused(refused) = error else {
        panic!("{error}");
    };
    assert_eq!(
        (refused.request, refused.errno),
        (Request::BindIommufd, Errno::NOTTY)
    );
}

#[test]
fn an_access_stays_inside_its_region() {
    let region = Region {
        index: 0,
        flags: RegionFlags::READ,
        size: 0x1000,
        offset: 1 << 40,
    };
    assert_eq!(region.place(0xff0, 16).unwrap(), (1 << 40) + 0xff0);
    let error = region.place(0xff1, 16).unwrap_err();
    assert_eq!(
        error.to_string(),
        "region 0 has 0x1000 bytes, none at 0xff1 and 0x10 on"
    );
    assert!(region.place(u64::MAX, 2).is_err());
    assert_eq!(region.whole(Ok(2), 2), Ok(()));
    // vfio does all of an access or refuses it; less than all is its mistake.
    let half = region.whole(Ok(1), 2).unwrap_err();
    assert_eq!(
        half.to_string(),
        "region 0: Input/output error (os error 5)"
    );
}
