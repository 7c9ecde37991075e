//! Random scripts from a seed.

use super::World;
use super::step::{NEST_PARENT, Name, Object, PASID, Page, Step, Table, Wrong};
use fastrand::Rng;

/// A script from opening `/dev/iommu` to closing everything, and what its steps should come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Episode {
    /// The steps.
    pub steps: Vec<Step>,
    /// The line of each.
    pub lines: Vec<String>,
}

/// PASIDs that a script uses. 1024 is left alone: the mock driver fails it in turns.
const PASIDS: [u32; 4] = [0, 5, 6, 7];

/// Buffers of a read, in bytes: some for whole records, some not.
const SIZES: [u32; 10] = [0, 40, 40, 80, 120, 200, 400, 4000, 39, 41];

impl Episode {
    /// A random script of `steps` steps between what sets it up and what ends it. `world` plays it
    /// as it grows, so that most steps make sense.
    #[must_use]
    pub fn random(rng: &mut Rng, steps: usize, world: &mut World) -> Self {
        let mut writer = Writer {
            rng,
            world,
            addr: 0,
            episode: Self {
                steps: Vec::new(),
                lines: Vec::new(),
            },
        };
        writer.set_up();
        for _ in 0..steps {
            writer.random();
        }
        writer.end();
        writer.episode
    }

    /// The steps as the agent takes them, one a line.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        for step in &self.steps {
            text += &step.to_string();
            text.push('\n');
        }
        text
    }
}

struct Writer<'a> {
    rng: &'a mut Rng,
    world: &'a mut World,
    addr: u64,
    episode: Episode,
}

impl Writer<'_> {
    fn step(&mut self, step: Step) {
        let line = self.world.play(&step);
        self.episode.steps.push(step);
        self.episode.lines.push(line);
    }

    fn one_in(&mut self, count: u32) -> bool {
        self.rng.u32(0..count) == 0
    }

    /// One of the names that there are, mostly.
    fn pick(&mut self, names: &[Name], most: Name) -> Name {
        match self.rng.choice(names) {
            Some(name) if !self.one_in(25) => *name,
            _ => self.rng.u8(0..most),
        }
    }

    fn a_device(&mut self) -> Name {
        let names = self.world.devices();
        self.pick(&names, 4)
    }

    fn a_queue(&mut self) -> Name {
        // Mostly one that has something.
        let busy = self.world.busy_queues();
        let names = if busy.is_empty() || self.one_in(4) {
            self.world.open_queues()
        } else {
            busy
        };
        self.pick(&names, 4)
    }

    fn a_table(&mut self) -> Table {
        if self.one_in(8) {
            return Table::Ioas;
        }
        let names = self.world.made();
        Table::Made(self.pick(&names, 16))
    }

    /// What tables are made from.
    fn a_base(&mut self) -> Table {
        match self.rng.u8(..4) {
            0 | 1 => Table::Ioas,
            2 if !self.world.viommus().is_empty() => Table::Viommu(0),
            _ => Table::Made(0),
        }
    }

    fn a_pasid(&mut self) -> u32 {
        PASIDS[self.rng.usize(..PASIDS.len())]
    }

    fn set_up(&mut self) {
        self.step(Step::Open);
        for name in 0..self.rng.u8(1..=3) {
            let pasids = !self.one_in(5);
            self.step(Step::Device(name, pasids));
        }
        for name in 0..self.rng.u8(1..=3) {
            self.step(Step::Fault(name));
        }
        self.step(Step::Hwpt(0, 0, Table::Ioas, NEST_PARENT | PASID, None));
        if self.rng.bool() {
            self.step(Step::Viommu(0, 0, 0));
            let device = self.a_device();
            self.step(Step::Vdevice(0, device, 1));
        }
        for name in 1..self.rng.u8(4..8) {
            let base = self.a_base();
            let queue = (!self.one_in(4)).then(|| {
                let queues = self.world.open_queues();
                self.pick(&queues, 4)
            });
            let flags = if self.one_in(5) { 0 } else { PASID };
            self.step(Step::Hwpt(name, 0, base, flags, queue));
        }
        for device in self.world.devices() {
            for turn in 0..4 {
                let (any, table) = (self.a_pasid(), self.a_table());
                let pasid = if turn == 0 { 0 } else { any };
                self.put(device, pasid, table);
            }
        }
    }

    /// Attaches, or replaces where something is attached.
    fn put(&mut self, device: Name, pasid: u32, table: Table) {
        let attached = self.world.attached(device).contains(&pasid);
        let step = if attached != self.one_in(12) {
            Step::Replace(device, pasid, table)
        } else {
            Step::Attach(device, pasid, table)
        };
        self.step(step);
    }

    fn random(&mut self) {
        match self.rng.u32(0..200) {
            0..32 => self.page(false),
            32..66 => self.page(true),
            66..98 => self.read(),
            98..128 => self.write(),
            128..136 => {
                let queue = self.a_queue();
                self.step(Step::Poll(queue));
            }
            136..144 => {
                let queue = self.a_queue();
                self.step(Step::Edge(queue));
            }
            144..166 => {
                let (device, pasid, table) = (self.a_device(), self.a_pasid(), self.a_table());
                self.put(device, pasid, table);
            }
            166..174 => {
                let (device, pasid) = (self.a_device(), self.a_pasid());
                self.step(Step::Detach(device, pasid));
            }
            174..176 => {
                let device = self.a_device();
                self.step(Step::Discard(device));
            }
            176..181 => self.hwpt(),
            181 => self.viommu(),
            182..189 => self.destroy(),
            189..192 => {
                let name = self.rng.u8(..4);
                self.step(Step::Fault(name));
            }
            192..194 => {
                let (name, pasids) = (self.rng.u8(..4), !self.one_in(5));
                self.step(Step::Device(name, pasids));
            }
            194 => {
                let queue = self.a_queue();
                self.step(Step::Close(queue));
            }
            195..197 => {
                let all = [Wrong::Files, Wrong::Flags, Wrong::Short, Wrong::Long];
                let wrong = all[self.rng.usize(..all.len())];
                self.step(Step::FaultWrong(wrong));
            }
            197 => {
                let (queue, bytes) = (self.a_queue(), SIZES[self.rng.usize(..SIZES.len())]);
                self.step(Step::ReadAt(queue, bytes));
            }
            _ => {
                let (queue, bytes) = (self.a_queue(), 8 * self.rng.u32(..3));
                self.step(Step::WriteAt(queue, bytes));
            }
        }
    }

    fn page(&mut self, last: bool) {
        self.addr += 0x1000;
        let served = self.world.served();
        let (device, pasid) = match self.rng.choice(&served) {
            Some(space) if !self.one_in(4) => *space,
            _ => (self.a_device(), self.a_pasid()),
        };
        let page = Page {
            device,
            pasid,
            group: self.rng.u32(..3),
            perm: self.rng.u8(..16),
            addr: self.addr,
            needs_pasid: self.one_in(4),
            last,
            no_memory: self.one_in(30),
        };
        self.step(Step::Page(page));
    }

    fn read(&mut self) {
        let queue = self.a_queue();
        let bytes = SIZES[self.rng.usize(..SIZES.len())];
        let good = if self.one_in(5) {
            self.rng.u32(..=bytes)
        } else {
            bytes
        };
        self.step(Step::Read(queue, bytes, good));
    }

    fn write(&mut self) {
        let queue = self.a_queue();
        let cookies = self.world.cookies(queue);
        let mut answers = Vec::new();
        for _ in 0..self.rng.u32(..=3) {
            let cookie = match self.rng.choice(&cookies) {
                Some(cookie) if !self.one_in(6) => *cookie,
                _ => self.rng.u32(..8),
            };
            let code = match self.rng.u32(..12) {
                0 => self.rng.u32(2..5),
                1 => u32::MAX,
                other => other % 2,
            };
            answers.push((cookie, code));
        }
        let whole = 8 * u32::try_from(answers.len()).unwrap_or_default();
        let bytes = match self.rng.u32(..16) {
            0 => whole + self.rng.u32(1..8),
            1 => whole + 8,
            _ => whole,
        };
        let good = if self.one_in(8) {
            self.rng.u32(..=bytes)
        } else {
            bytes
        };
        self.step(Step::Write(queue, bytes, good, answers));
    }

    fn hwpt(&mut self) {
        let (name, device) = (self.rng.u8(..16), self.a_device());
        let base = if self.one_in(4) {
            self.a_table()
        } else {
            self.a_base()
        };
        let parent = if self.one_in(5) { NEST_PARENT } else { 0 };
        let pasid = if self.one_in(4) { 0 } else { PASID };
        let queue = (!self.one_in(4)).then(|| {
            let queues = self.world.open_queues();
            self.pick(&queues, 4)
        });
        self.step(Step::Hwpt(name, device, base, parent | pasid, queue));
    }

    fn viommu(&mut self) {
        let (name, device) = (self.rng.u8(..2), self.a_device());
        let step = match self.rng.u8(..4) {
            0 => {
                let names = self.world.made();
                let parent = if self.one_in(3) {
                    self.pick(&names, 16)
                } else {
                    0
                };
                Step::Viommu(name, device, parent)
            }
            1 => Step::Destroy(Object::Viommu(name)),
            _ => Step::Vdevice(name, device, self.rng.u32(1..4)),
        };
        self.step(step);
    }

    fn destroy(&mut self) {
        let object = match self.rng.u32(..8) {
            0 => Object::Device(self.a_device()),
            1..4 => Object::Fault(self.rng.u8(..4)),
            _ => match self.a_table() {
                Table::Made(name) => Object::Table(name),
                Table::Ioas | Table::Viommu(_) => Object::Table(self.rng.u8(..16)),
            },
        };
        self.step(Step::Destroy(object));
    }

    /// Closes `/dev/iommu`, and then the queues, with some life between.
    fn end(&mut self) {
        self.step(Step::Shut);
        while !self.world.open_queues().is_empty() {
            match self.rng.u32(..4) {
                0 => self.read(),
                1 => self.write(),
                2 => {
                    let queue = self.a_queue();
                    self.step(Step::Close(queue));
                }
                _ => self.page(true),
            }
        }
    }
}
