//! A pump on a thread, over a fault file in memory, with devices.

use iopf::engine::{Attachment, DeviceConfig, DeviceId, DomainId, Engine, Policy};
use iopf::{Access, GroupIndex, Iova, PageRequest, Pasid, Response};
use iopf_host::fake::FakeFile;
use iopf_host::pump::{Notice, QueueId, Serving, Stopped};
use iopf_host::{FaultQueue, Pump, PumpHandle};
use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::mpsc::{Receiver, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Longest wait for anything: a machine may be slow, but a test must end.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until `what` gives something.
pub(crate) fn until<T>(name: &str, mut what: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = what() {
            return value;
        }
        assert!(start.elapsed() < PATIENCE, "never: {name}");
        thread::sleep(Duration::from_micros(200));
    }
}

/// A pump that does not run yet.
pub(crate) struct Setting {
    pump: Pump<FakeFile>,
    queue: QueueId,
    file: FakeFile,
    notices: Receiver<Notice>,
}

impl Setting {
    /// `timeout`: the deadline of a group.
    pub(crate) fn new(timeout: Duration) -> Self {
        let policy = Policy::default().with_timeout(Some(timeout));
        let (sender, notices) = channel();
        let sink = move |notice| drop(sender.send(notice));
        let mut pump = Pump::new(Engine::new(policy), sink).unwrap();
        let file = FakeFile::new();
        let queue = pump.add_queue(FaultQueue::new(file.clone())).unwrap();
        Self {
            pump,
            queue,
            file,
            notices,
        }
    }

    pub(crate) fn handle(&self) -> PumpHandle<FakeFile> {
        self.pump.handle()
    }

    /// A device with its function, and `pasid`, attached.
    pub(crate) fn device(&mut self, id: u32, pasid: Option<Pasid>, serving: impl Into<Serving>) {
        let device = DeviceId(id);
        let config = DeviceConfig::default();
        self.pump.add_device(device, config, serving).unwrap();
        assert!(self.pump.route(self.queue, id, device));
        let spaces = [None, pasid];
        for space in &spaces[..1 + usize::from(pasid.is_some())] {
            let kernel = || {
                self.file.attach(id, *space);
                Ok::<_, Infallible>(())
            };
            let attachment = Attachment::new(DomainId(id));
            self.pump
                .attach(device, *space, attachment, kernel)
                .unwrap();
        }
    }

    pub(crate) fn run(self) -> World {
        let Self {
            mut pump,
            file,
            notices,
            ..
        } = self;
        let handle = pump.handle();
        let thread = thread::spawn(move || pump.run().unwrap());
        World {
            handle,
            file,
            notices,
            groups: 1 << 32,
            answers: HashMap::new(),
            thread: Some(thread),
        }
    }
}

/// A pump that runs until it is dropped.
pub(crate) struct World {
    pub(crate) handle: PumpHandle<FakeFile>,
    pub(crate) file: FakeFile,
    pub(crate) notices: Receiver<Notice>,
    groups: u64,
    answers: HashMap<u64, Response>,
    thread: Option<JoinHandle<Stopped>>,
}

impl World {
    /// A device asks for these pages in one group; its number.
    pub(crate) fn ask(&mut self, id: u32, pasid: Option<Pasid>, pages: &[(u64, Access)]) -> u64 {
        self.groups += 1;
        ask(&self.file, self.groups, id, pasid, pages);
        self.groups
    }

    /// The answer to a group, if it is there.
    pub(crate) fn answer(&mut self, group: u64) -> Option<Response> {
        for ended in self.file.ended() {
            let twice = self.answers.insert(ended.group, ended.response);
            assert_eq!(twice, None, "group {} was answered twice", ended.group);
        }
        self.answers.get(&group).copied()
    }

    pub(crate) fn wait(&mut self, group: u64) -> Response {
        until("an answer", || self.answer(group))
    }

    /// Stops the pump; what it gave up.
    pub(crate) fn stop(&mut self) -> Stopped {
        self.handle.stop().unwrap();
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            // It may be gone already, with a message of its own.
            let _ = self.handle.stop();
            let _ = thread.join();
        }
    }
}

/// A device asks for pages: its group ends in the file's list under `group`.
pub(crate) fn ask(
    file: &FakeFile,
    group: u64,
    id: u32,
    pasid: Option<Pasid>,
    pages: &[(u64, Access)],
) {
    for (i, &(addr, access)) in pages.iter().enumerate() {
        let page = PageRequest {
            pasid,
            group: GroupIndex(u32::try_from(group & 0x1ff).unwrap()),
            addr: Iova(addr),
            access,
            last: i + 1 == pages.len(),
            response_needs_pasid: pasid.is_some(),
            private_data: [group, 0],
        };
        file.page(id, page);
    }
}
