//! A thread that steps one function.

use endpoint::{Step, Waker};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};

/// Something to be stepped.
pub(super) trait Steps: Send + Sync {
    /// Does one bounded amount of work.
    fn step(&self, now: Duration) -> Step;
}

/// Wakes a worker, which may not be there yet.
#[derive(Debug, Default)]
pub(super) struct Bell(OnceLock<Thread>);

impl Bell {
    /// As functions want it.
    pub(super) fn waker(self: &Arc<Self>) -> Waker {
        let bell = self.clone();
        Arc::new(move || {
            if let Some(thread) = bell.0.get() {
                // A wake-up that comes before the worker sleeps keeps it awake.
                thread.unpark();
            }
        })
    }
}

/// The thread of one function. Dropping it ends the thread.
#[derive(Debug)]
pub(super) struct Worker {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    pub(super) fn start(name: &str, function: Arc<dyn Steps>, bell: &Bell) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || run(&*function, &stopped))?;
        // Set once: a bell belongs to one worker.
        let _ = bell.0.set(thread.thread().clone());
        // What rang before the bell was connected.
        thread.thread().unpark();
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // A panic there was reported by its own thread.
            let _ = thread.join();
        }
    }
}

fn run(function: &dyn Steps, stop: &AtomicBool) {
    let start = Instant::now();
    while !stop.load(Ordering::SeqCst) {
        let now = start.elapsed();
        match function.step(now) {
            Step::Worked => {}
            Step::Idle(None) => thread::park(),
            Step::Idle(Some(until)) => thread::park_timeout(until.saturating_sub(now)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;
    use std::sync::mpsc::{Receiver, Sender, channel};

    /// Says when it was stepped, and is idle for as long as it is told.
    struct Idle(Mutex<Receiver<Option<Duration>>>, Sender<()>);

    impl Steps for Idle {
        fn step(&self, _: Duration) -> Step {
            self.1.send(()).unwrap();
            Step::Idle(self.0.lock().unwrap().try_recv().ok().flatten())
        }
    }

    #[test]
    fn a_bell_wakes_an_idle_worker_and_dropping_ends_it() {
        let (_later, orders) = channel();
        let (stepped, steps) = channel();
        let bell = Arc::new(Bell::default());
        let wake = bell.waker();
        wake();
        let worker =
            Worker::start("test", Arc::new(Idle(Mutex::new(orders), stepped)), &bell).unwrap();
        let long = Duration::from_secs(20);
        // Once at the start, and perhaps once more for the ring that connects the bell.
        steps.recv_timeout(long).unwrap();
        while steps.recv_timeout(Duration::from_millis(200)).is_ok() {}
        wake();
        steps.recv_timeout(long).unwrap();
        drop(worker);
        assert!(
            steps.recv_timeout(long).is_err(),
            "its sender went with the thread"
        );
    }
}
