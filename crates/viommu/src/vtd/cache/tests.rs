use super::ConfigCache;
use crate::arch::Tables;
use crate::vtd::Vtd;

#[test]
fn what_was_read_before_everything_was_forgotten_is_of_another_moment() {
    let mut cache = ConfigCache::default();
    let moment = cache.moment();
    Vtd::forget_all(&mut cache);
    assert_ne!(moment, cache.moment());
}
