use super::DeviceCache;
use crate::amdvi::Amdvi;
use crate::arch::Tables;
use iommu_walk::amdvi::Space;
use iopf::Rid;

#[test]
fn what_was_read_before_everything_was_forgotten_does_not_get_in() {
    let mut cache = DeviceCache::default();
    let moment = cache.moment();
    Amdvi::forget_all(&mut cache);
    cache.insert(moment, Rid(0x20), Space::PASS_THROUGH);
    assert_eq!(cache.get(Rid(0x20)), None);
    let moment = cache.moment();
    cache.insert(moment, Rid(0x20), Space::PASS_THROUGH);
    assert_eq!(cache.get(Rid(0x20)), Some(&Space::PASS_THROUGH));
}
