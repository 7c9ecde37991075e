use super::*;
use crate::session::{Session, Sessions};
use iopf::Gpa;
use viommu_api::Blocked;
use vm_memory::{Bytes, GuestMemory, GuestMemoryMmap, IommuMemory};

/// Pages of 4 KiB from 0x10000 on, each with a frame and rights; nothing elsewhere.
struct Flat {
    frames: Vec<(u64, Access)>,
    sessions: Sessions,
}

impl Translate for Flat {
    fn with_translation(
        &self,
        dma: &Dma,
        len: u64,
        each: &mut dyn FnMut(Gpa, u64),
    ) -> Result<(), Blocked> {
        let mut done = 0;
        while done < len {
            let at = Iova(dma.addr.0 + done);
            let page = at.0.checked_sub(0x10000).map(|offset| offset >> 12);
            let frame = page.and_then(|page| self.frames.get(usize::try_from(page).ok()?));
            match frame {
                Some((frame, rights)) if rights.contains(dma.access) => {
                    let part = (0x1000 - (at.0 & 0xfff)).min(len - done);
                    each(Gpa(frame | at.0 & 0xfff), part);
                    done += part;
                }
                _ => return Err(Blocked::aborted(at)),
            }
        }
        Ok(())
    }
}

impl Model for Flat {
    type Session<'a> = Session<'a>;
    fn session(&self) -> Session<'_> {
        self.sessions.enter()
    }
}

fn behind(frames: &[(u64, Access)]) -> Behind<Flat> {
    let model = Flat {
        frames: frames.to_vec(),
        sessions: Sessions::new(),
    };
    Behind::new(Arc::new(model), Rid(0x0100), None)
}

fn memory(frames: &[(u64, Access)]) -> IommuMemory<GuestMemoryMmap, Behind<Flat>> {
    let ram = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x10000)]).unwrap();
    IommuMemory::new(ram, behind(frames), true, ())
}

fn pieces(of: &Behind<Flat>, at: u64, len: usize) -> Vec<(u64, usize)> {
    of.translate(GuestAddress(at), len, Permissions::Read)
        .unwrap()
        .map(|piece| (piece.base.0, piece.length))
        .collect()
}

#[test]
fn pages_that_continue_each_other_come_as_one_piece() {
    let rw = Access::RW;
    let of = behind(&[
        (0x3000, rw),
        (0x4000, rw),
        (0x9000, rw),
        (0x9000, rw),
        (0, rw),
    ]);
    assert_eq!(pieces(&of, 0x10ff0, 0x20), [(0x3ff0, 0x20)]);
    assert_eq!(
        pieces(&of, 0x10800, 0x4000),
        [
            (0x3800, 0x1800),
            (0x9000, 0x1000),
            (0x9000, 0x1000),
            (0, 0x800)
        ]
    );
}

#[test]
fn bytes_written_through_two_pages_land_in_both_frames() {
    let mem = memory(&[(0x7000, Access::RW), (0x2000, Access::RW)]);
    mem.write_slice(&[1, 2, 3, 4], GuestAddress(0x10ffe))
        .unwrap();
    let mut there = [0; 2];
    mem.get_backend()
        .read_slice(&mut there, GuestAddress(0x7ffe))
        .unwrap();
    assert_eq!(there, [1, 2]);
    mem.get_backend()
        .read_slice(&mut there, GuestAddress(0x2000))
        .unwrap();
    assert_eq!(there, [3, 4]);
    let mut back = [0; 4];
    mem.read_slice(&mut back, GuestAddress(0x10ffe)).unwrap();
    assert_eq!(back, [1, 2, 3, 4]);
}

#[test]
fn rights_are_those_of_the_access() {
    let mem = memory(&[(0x7000, Access::READ)]);
    let at = GuestAddress(0x10000);
    assert!(mem.read_slice(&mut [0; 4], at).is_ok());
    assert!(mem.write_slice(&[0; 4], at).is_err());
    assert!(mem.check_range(at, 8, Permissions::Read));
    assert!(!mem.check_range(at, 8, Permissions::ReadWrite));
    assert!(!mem.check_range(at, 0x1001, Permissions::Read));
}

#[test]
fn ranges_that_are_hostile_are_errors() {
    let of = behind(&[(0x7000, Access::RW)]);
    let too_long = usize::try_from(LONGEST).unwrap() + 1;
    for (at, len) in [
        (0x10000, too_long),
        (0x10000, usize::MAX),
        (u64::MAX, 1),
        (u64::MAX - 7, 16),
        (0, 1),
        (0x11000, 1),
    ] {
        let asked = of.translate(GuestAddress(at), len, Permissions::Read);
        assert!(asked.is_err(), "{at:#x}+{len:#x}");
    }
    assert!(!of.model.sessions.inside());
}

#[test]
fn an_empty_access_touches_nothing_and_succeeds() {
    let of = behind(&[]);
    for at in [0, 1, 0x10000, u64::MAX] {
        assert_eq!(pieces(&of, at, 0), []);
    }
}

#[test]
fn more_stretches_than_the_bound_are_refused() {
    let frames = |count: u32| -> Vec<_> {
        let frame = |n| (u64::from(n % 2) << 20, Access::READ);
        (0..count).map(frame).collect()
    };
    let length = |count: u32| usize::try_from(count).unwrap() << 12;
    let of = behind(&frames(STRETCHES + 1));
    let at = GuestAddress(0x10000);
    assert!(
        of.translate(at, length(STRETCHES), Permissions::Read)
            .is_ok()
    );
    assert!(
        of.translate(at, length(STRETCHES + 1), Permissions::Read)
            .is_err()
    );
}

#[test]
fn a_session_lasts_as_long_as_the_guard() {
    let of = behind(&[(0x3000, Access::RW), (0x9000, Access::RW)]);
    let mut walk = of
        .translate(GuestAddress(0x10000), 0x2000, Permissions::Read)
        .unwrap();
    assert!(of.model.sessions.inside());
    assert!(walk.next().is_some());
    let other = of.translate(GuestAddress(0x10000), 8, Permissions::Write);
    drop(walk);
    assert!(of.model.sessions.inside());
    drop(other);
    assert!(!of.model.sessions.inside());
    assert_eq!(of.model.sessions.quiesce(), Ok(()));
}

#[test]
fn a_space_sees_memory_that_was_plugged_in_after_it_was_made() {
    let map = vm_memory::GuestMemoryAtomic::new(GuestMemoryMmap::<()>::new());
    let space = Space::new(map.clone(), behind(&[(0x3000, Access::RW)]));
    let write = |byte: u8| space.memory().write_obj(byte, GuestAddress(0x10008));
    assert!(write(7).is_err(), "no memory at 0x3000");
    let ram = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x10000)]).unwrap();
    map.lock().unwrap().replace(ram);
    write(7).unwrap();
    let now: u8 = map.memory().read_obj(GuestAddress(0x3008)).unwrap();
    assert_eq!(now, 7);
}
