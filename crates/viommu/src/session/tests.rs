use super::*;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc;

#[test]
fn a_wait_ends_only_after_the_session_it_found() {
    let (sessions, left) = (Sessions::new(), AtomicBool::new(false));
    let (entered, inside) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(|| {
            sessions.run(|_| {
                entered.send(()).unwrap();
                thread::sleep(Duration::from_millis(20));
                left.store(true, Relaxed);
            });
        });
        inside.recv().unwrap();
        sessions.quiesce().unwrap();
        assert!(left.load(Relaxed));
    });
}

#[test]
fn a_wait_from_inside_a_session_is_an_error_at_any_depth() {
    let sessions = Sessions::new();
    sessions.run(|_| {
        assert_eq!(sessions.quiesce(), Err(InsideSession));
        sessions.run(|_| assert_eq!(sessions.quiesce(), Err(InsideSession)));
        // The end of the inner session does not end the outer one.
        assert!(sessions.inside());
        assert_eq!(sessions.quiesce(), Err(InsideSession));
    });
    assert_eq!(sessions.quiesce(), Ok(()));
}

#[test]
fn sessions_of_another_iommu_are_not_waited_for() {
    let (one, other) = (Sessions::new(), Sessions::new());
    one.run(|_| assert_eq!(other.quiesce(), Ok(())));
}

#[test]
fn a_panic_inside_ends_the_session() {
    let sessions = Sessions::new();
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        sessions.run(|_| std::panic::resume_unwind(Box::new(())));
    }));
    assert!(caught.is_err());
    assert!(!sessions.inside());
    assert_eq!(sessions.quiesce(), Ok(()));
}

#[test]
fn a_grace_asked_for_inside_is_over_after_the_end() {
    let sessions = Sessions::new();
    let mut grace = sessions.run(|_| {
        let mut grace = sessions.open_now();
        assert!(!grace.is_over());
        grace
    });
    assert!(grace.is_over());
}

#[test]
fn sessions_opened_later_do_not_prolong_a_wait() {
    let (sessions, stop) = (Sessions::new(), AtomicBool::new(false));
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(Relaxed) {
                    sessions.run(|_| hint::spin_loop());
                }
            });
        }
        for _ in 0..1000 {
            sessions.quiesce().unwrap();
        }
        stop.store(true, Relaxed);
    });
}

#[test]
fn more_threads_than_the_first_block_are_waited_for_too() {
    let sessions = Sessions::new();
    let count = FIRST * 4;
    let (entered, inside) = mpsc::channel();
    let left = AtomicU64::new(0);
    thread::scope(|scope| {
        for _ in 0..count {
            let entered = entered.clone();
            scope.spawn({
                let (sessions, left) = (&sessions, &left);
                move || {
                    sessions.run(|_| {
                        entered.send(()).unwrap();
                        thread::sleep(Duration::from_millis(30));
                        left.fetch_add(1, Relaxed);
                    });
                }
            });
        }
        for _ in 0..count {
            inside.recv().unwrap();
        }
        sessions.quiesce().unwrap();
        assert_eq!(left.load(Relaxed), count as u64);
    });
    assert!(sessions.slots().count() > FIRST);
}

#[test]
fn sessions_of_a_thread_end_in_any_order() {
    let sessions = Sessions::new();
    let outer = sessions.enter();
    let inner = sessions.enter();
    drop(outer);
    assert!(!sessions.open_now().is_over());
    drop(inner);
    assert!(sessions.open_now().is_over());
}
