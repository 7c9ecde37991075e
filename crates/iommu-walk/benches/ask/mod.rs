//! The question that every bench asks: what does a walk cost, with updates that are empty before it?

/// Asks it. The outcome is looked at where it lies, as a caller does; a value returned is copied again.
macro_rules! ask {
    ($group:expr, $what:expr, |$updates:ident| $walk:expr) => {
        $group.bench_function($what, |b| {
            b.iter(|| {
                let mut $updates = Updates::new();
                black_box(&$walk);
            });
        });
    };
}

pub(crate) use ask;
