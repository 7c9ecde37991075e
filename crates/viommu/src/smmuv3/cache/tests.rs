use super::ConfigCache;
use iopf::{Pasid, Rid};

#[test]
fn what_was_read_before_an_invalidation_is_of_another_moment() {
    let forget: [fn(&mut ConfigCache); 4] = [
        ConfigCache::forget_all,
        |cache| cache.forget_streams(Rid(8), 3),
        |cache| cache.forget_context(Rid(8), Pasid::default()),
        |cache| cache.forget_contexts(Rid(8)),
    ];
    for forget in forget {
        let mut cache = ConfigCache::default();
        let moment = cache.moment();
        forget(&mut cache);
        assert_ne!(moment, cache.moment());
    }
}
