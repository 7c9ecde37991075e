use super::{AddAreaError, Area, Space, page_size};
use iopf::engine::{Attachment, DeviceConfig, DeviceId, DomainId, Engine, Policy, Tick};
use iopf::resolve::{AddressSpace, Mappings, serve};
use iopf::{Access, Fault, GroupIndex, Iova, PageRequest, Pasid, Response};
use std::fs::File;
use std::sync::Arc;
use vm_memory::{Bytes, FileOffset, MmapRegion, VolatileMemory};

const DEVICE: DeviceId = DeviceId(1);
const PASID: Pasid = Pasid::truncate(5);
const NOW: Tick = Tick(0);
const READ_ONLY: i32 = 1; // PROT_READ
const PRIVATE: i32 = 2; // MAP_PRIVATE
const ANONYMOUS: i32 = 0x22; // MAP_PRIVATE | MAP_ANONYMOUS

fn anonymous(pages: usize) -> Arc<MmapRegion> {
    Arc::new(MmapRegion::new(pages * page_size()).unwrap())
}

/// Whether the page at `offset` is present, as the kernel says: bit 63 of its page map entry.
fn present(memory: &MmapRegion, offset: usize) -> bool {
    use std::os::unix::fs::FileExt;
    let page = (memory.as_ptr().addr() + offset) / page_size();
    let mut entry = [0; 8];
    let map = File::open("/proc/self/pagemap").unwrap();
    map.read_exact_at(&mut entry, page as u64 * 8).unwrap();
    u64::from_le_bytes(entry) >> 63 != 0
}

struct World {
    engine: Engine,
    resolver: AddressSpace<Space>,
}

impl World {
    fn new() -> Self {
        let mut engine = Engine::new(Policy::default());
        engine.add_device(DEVICE, DeviceConfig::default()).unwrap();
        engine
            .attach(DEVICE, Some(PASID), Attachment::new(DomainId(1)))
            .unwrap();
        Self {
            engine,
            resolver: AddressSpace(Space::new()),
        }
    }

    fn share(&mut self, memory: &Arc<MmapRegion>, rights: Access) -> u64 {
        let area = Area::shared(memory.clone(), rights);
        let iova = area.iova.0;
        self.resolver.0.add(PASID, area).unwrap();
        iova
    }

    /// The answer to a group of these pages.
    fn ask(&mut self, pages: &[(u64, Access)]) -> Response {
        for (i, &(addr, access)) in pages.iter().enumerate() {
            let page = PageRequest {
                pasid: Some(PASID),
                group: GroupIndex(1),
                addr: Iova(addr),
                access,
                last: i + 1 == pages.len(),
                response_needs_pasid: true,
                private_data: [0; 2],
            };
            let fault = Fault::PageRequest(page);
            let _kept = self.engine.report(NOW, DEVICE, &fault).unwrap();
        }
        serve(&mut self.engine, NOW, &mut self.resolver, 8);
        self.engine.poll_answer().unwrap().response
    }
}

#[test]
fn a_device_brings_in_a_page_of_this_process() {
    let (mut world, memory) = (World::new(), anonymous(4));
    let at = world.share(&memory, Access::RW);
    let page = page_size();
    assert!(!present(&memory, page));
    let asked = [(at + page as u64 + 0x18, Access::WRITE)];
    assert_eq!(world.ask(&asked), Response::Success);
    assert!(present(&memory, page));
    assert!(
        !present(&memory, 0) && !present(&memory, 2 * page),
        "only that one"
    );
    let mut bytes = [1; 8];
    let slice = memory.as_volatile_slice();
    slice.read_slice(&mut bytes, page).unwrap();
    assert_eq!(bytes, [0; 8]);
}

#[test]
fn the_first_error_is_the_answer_and_what_follows_is_left_alone() {
    let (mut world, memory) = (World::new(), anonymous(4));
    let at = world.share(&memory, Access::RW);
    let page = page_size() as u64;
    let asked = [
        (at, Access::READ),
        (at + page, Access::EXEC), // a right that is missing
        (at + 2 * page, Access::READ),
    ];
    assert_eq!(world.ask(&asked), Response::Invalid);
    assert!(present(&memory, 0));
    assert!(!present(&memory, 2 * page_size()));
}

#[test]
fn what_the_mapping_itself_refuses_is_invalid_and_no_signal() {
    let mut world = World::new();
    // The registry says more than the mapping gives.
    let memory = MmapRegion::build(None, page_size(), READ_ONLY, ANONYMOUS).unwrap();
    let at = world.share(&Arc::new(memory), Access::RW);
    assert_eq!(world.ask(&[(at, Access::WRITE)]), Response::Invalid);
    assert_eq!(world.ask(&[(at, Access::READ)]), Response::Success);
    // The file ends before the mapping does: a touch would be SIGBUS.
    let file = tempfile::tempfile().unwrap();
    file.set_len(2 * page_size() as u64).unwrap();
    let kept = file.try_clone().unwrap();
    let offset = Some(FileOffset::new(file, 0));
    let memory = MmapRegion::build(offset, 2 * page_size(), READ_ONLY, PRIVATE).unwrap();
    let at = world.share(&Arc::new(memory), Access::READ);
    kept.set_len(page_size() as u64).unwrap();
    let beyond = at + page_size() as u64;
    assert_eq!(world.ask(&[(beyond, Access::READ)]), Response::Invalid);
    assert_eq!(world.ask(&[(at, Access::READ)]), Response::Success);
}

#[test]
fn an_area_that_was_taken_away_serves_nobody() {
    let (mut world, memory) = (World::new(), anonymous(1));
    let at = world.share(&memory, Access::RW);
    assert!(world.resolver.0.remove(PASID, Iova(at)).is_some());
    assert!(world.resolver.0.remove(PASID, Iova(at)).is_none());
    assert_eq!(world.ask(&[(at, Access::READ)]), Response::Invalid);
}

#[test]
fn areas_do_not_overlap_and_lie_inside_the_address_space() {
    let mut space = Space::new();
    let page = page_size() as u64;
    let mut add = |iova: u64, pages: usize| {
        let area = Area {
            memory: anonymous(pages),
            iova: Iova(iova),
            rights: Access::READ,
        };
        space.add(PASID, area)
    };
    let base = 16 * page;
    assert_eq!(add(base, 4), Ok(()));
    for (iova, pages, expected) in [
        (base, 1, Err(AddAreaError::Overlap(Iova(base)))),
        (base + 3 * page, 2, Err(AddAreaError::Overlap(Iova(base)))),
        (base - page, 2, Err(AddAreaError::Overlap(Iova(base)))),
        (base - 2 * page, 16, Err(AddAreaError::Overlap(Iova(base)))),
        (base - page, 1, Ok(())),
        (base + 4 * page, 1, Ok(())),
        (base + 8, 1, Err(AddAreaError::Misplaced(Iova(base + 8)))),
        (
            !0 - page + 1,
            2,
            Err(AddAreaError::Misplaced(Iova(!0 - page + 1))),
        ),
        (!0 - page + 1, 1, Ok(())),
    ] {
        assert_eq!(add(iova, pages), expected, "{iova:#x}");
    }
    assert_eq!(
        space.rights(PASID, Iova(base + 4 * page - 1)),
        Some(Access::READ)
    );
    assert_eq!(space.rights(PASID, Iova(!0)), Some(Access::READ));
    assert_eq!(space.rights(PASID, Iova(base + 5 * page)), None);
    assert_eq!(space.rights(Pasid::truncate(6), Iova(base)), None);
}
