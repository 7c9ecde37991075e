//! Faults served to another process: this program, run once more.

use super::world::{PATIENCE, Setting, World, until};
use iopf::engine::{Attachment, DeviceConfig, DeviceId, DomainId, Engine, Group, Pages, Policy};
use iopf::engine::{Stray, Verdict};
use iopf::resolve::{Decision, Resolver};
use iopf::{Access, Pasid, Response};
use iopf_host::forward::{ForwardServer, ForwardedFile};
use iopf_host::{FaultFile, FaultQueue, Pump};
use std::convert::Infallible;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(600);
const PASID: Option<Pasid> = Pasid::new(5);
/// The socket, in the other process.
const SOCKET: &str = "IOPF_TEST_FORWARD_SOCKET";

/// The other process, which is killed when the test is over.
struct Other(Child);

impl Other {
    /// Runs the test of this name there, and waits until it has connected.
    fn start(test: &str, socket: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture"])
            .env(SOCKET, socket)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let other = Self(child);
        let mut lines = output.lines().map_while(Result::ok);
        assert!(lines.any(|line| line.contains("connected")), "it has ended");
        other
    }

    /// kill -9.
    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        // It may have been killed before.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// In the other process. It does not outlive the test.
fn connect(socket: &std::ffi::OsStr) -> ForwardedFile {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL)).unwrap();
    let file = ForwardedFile::connect(Path::new(socket), PATIENCE).unwrap();
    println!("connected");
    file
}

/// SUCCESS for reads, INVALID where anything is written.
struct ReadOnly;

impl Resolver for ReadOnly {
    fn group(&mut self, _: &Group, mut pages: Pages<'_>) -> Decision {
        let writes = pages.any(|page| page.access.contains(Access::WRITE));
        Decision::Answer(match writes {
            true => Response::Invalid,
            false => Response::Success,
        })
    }

    fn stray(&mut self, _: &Stray) -> Verdict {
        Verdict::Ignored
    }
}

/// What a program does with the kernel's descriptor: a queue over the file, in a pump.
fn consume(file: ForwardedFile) {
    let mut pump = Pump::new(Engine::new(Policy::default()), drop).unwrap();
    let queue = pump.add_queue(FaultQueue::new(file)).unwrap();
    let device = DeviceId(1);
    let config = DeviceConfig::default();
    pump.add_device(device, config, ReadOnly).unwrap();
    assert!(pump.route(queue, 1, device));
    for space in [None, PASID] {
        let attachment = Attachment::new(DomainId(1));
        pump.attach(device, space, attachment, || Ok::<_, Infallible>(()))
            .unwrap();
    }
    // Until it is killed.
    pump.run().unwrap();
}

struct Serving {
    server: ForwardServer,
    world: World,
    socket: std::path::PathBuf,
    _dir: tempfile::TempDir,
}

fn serve(timeout: Duration) -> Serving {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("faults");
    let mut setting = Setting::new(timeout);
    let (server, resolver) = ForwardServer::serve(&socket, setting.handle()).unwrap();
    setting.device(1, PASID, resolver);
    Serving {
        server,
        world: setting.run(),
        socket,
        _dir: dir,
    }
}

#[test]
fn a_second_process_answers_faults_with_the_code_that_reads_the_kernels_descriptor() {
    if let Some(socket) = std::env::var_os(SOCKET) {
        return consume(connect(&socket));
    }
    let mut serving = serve(LONG);
    let world = &mut serving.world;
    // Some wait before anybody reads.
    let mut asked = Vec::new();
    let mut random = fastrand::Rng::with_seed(11);
    let mut ask = |world: &mut World| {
        let pages: Vec<_> = (0..random.u64(1..=40))
            .map(|page| {
                let write = random.u32(..50) == 0;
                let access = if write { Access::RW } else { Access::READ };
                (page << 12, access)
            })
            .collect();
        let writes = pages.iter().any(|(_, access)| *access == Access::RW);
        let space = if random.bool() { PASID } else { None };
        let expected = if writes {
            Response::Invalid
        } else {
            Response::Success
        };
        (world.ask(1, space, &pages), expected)
    };
    asked.extend((0..8).map(|_| ask(world)));
    let name =
        "forward::a_second_process_answers_faults_with_the_code_that_reads_the_kernels_descriptor";
    let _other = Other::start(name, &serving.socket);
    for _ in 0..40 {
        asked.extend((0..5).map(|_| ask(world)));
        for (group, expected) in asked.drain(..) {
            assert_eq!(world.wait(group), expected);
        }
    }
    assert_eq!(serving.server.held(), (0, 0));
    let counts = serving.server.counts();
    assert_eq!(
        (counts.clients, counts.dropped, counts.abandoned),
        (1, 0, 0)
    );
}

#[test]
fn what_a_killed_process_had_read_is_invalid_and_the_next_one_goes_on() {
    if let Some(socket) = std::env::var_os(SOCKET) {
        // Reads once, and never answers.
        let file = connect(&socket);
        let mut queue = FaultQueue::new(file);
        until("a group", || match queue.read(8).unwrap() {
            iopf_host::queue::Read::Pages(8) => Some(()),
            _ => None,
        });
        loop {
            std::thread::park();
        }
    }
    let mut serving = serve(LONG);
    let world = &mut serving.world;
    let group = [(0x1000, Access::READ); 4];
    // Two groups fit into its buffer; the others stay in the queue.
    let asked: Vec<_> = (0..5).map(|_| world.ask(1, None, &group)).collect();
    until("five groups", || {
        (serving.server.held() == (5, 0)).then_some(())
    });
    let name = "forward::what_a_killed_process_had_read_is_invalid_and_the_next_one_goes_on";
    let mut other = Other::start(name, &serving.socket);
    until("two groups read", || {
        (serving.server.held() == (3, 2)).then_some(())
    });
    assert_eq!(world.answer(asked[0]), None);
    other.kill();
    for group in &asked[..2] {
        assert_eq!(world.wait(*group), Response::Invalid);
    }
    assert_eq!(serving.server.counts().abandoned, 2);
    assert_eq!(serving.server.held(), (3, 0));
    assert_eq!(world.answer(asked[2]), None);

    let name =
        "forward::a_second_process_answers_faults_with_the_code_that_reads_the_kernels_descriptor";
    let mut other = Other::start(name, &serving.socket);
    for group in &asked[2..] {
        assert_eq!(world.wait(*group), Response::Success);
    }
    other.kill();
    // With nobody there, the queue waits for the next.
    let late = world.ask(1, None, &group);
    until("one group", || {
        (serving.server.held() == (1, 0)).then_some(())
    });
    let _other = Other::start(name, &serving.socket);
    assert_eq!(world.wait(late), Response::Success);
    assert_eq!(serving.server.counts().clients, 3);
}

#[test]
fn nobody_there_means_the_deadline_answers() {
    let mut serving = serve(Duration::from_millis(30));
    let group = serving.world.ask(1, None, &[(0x1000, Access::READ)]);
    assert_eq!(serving.world.wait(group), Response::Invalid);
    // Whoever comes then finds nothing, and an answer by guess names nothing.
    let file = ForwardedFile::connect(&serving.socket, PATIENCE).unwrap();
    let mut buffer = [0; 400];
    assert_eq!(file.read(&mut buffer), Ok(0));
    let guess = [1u32.to_ne_bytes(), 0u32.to_ne_bytes()].concat();
    assert_eq!(file.write(&guess), Err(iopf_host::Errno::INVAL));
}
