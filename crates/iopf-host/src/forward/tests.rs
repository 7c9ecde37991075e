use super::wire::{Header, MAX_REQUEST, READ, WRITE};
use super::{ConnectError, ForwardResolver, ForwardServer, ForwardedFile, MAX_PAGES, WithEngine};
use crate::fake::FakeFile;
use crate::{Errno, FaultFile};
use iopf::engine::{Attachment, DeviceConfig, DeviceId, DomainId, Engine, Policy, Tick};
use iopf::resolve::serve;
use iopf::{Access, Fault, GroupIndex, Iova, PageRequest, Response};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, recv, send,
};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};
use zerocopy::IntoBytes;

const PATIENCE: Duration = Duration::from_secs(60);
const DEVICE: DeviceId = DeviceId(1);

/// An engine behind a lock, in a time that is told.
#[derive(Clone)]
struct Locked(Arc<Mutex<Engine>>);

impl WithEngine for Locked {
    fn with_engine<T: Send + 'static>(
        &self,
        act: impl FnOnce(Tick, &mut Engine) -> T + Send + 'static,
    ) -> Option<T> {
        Some(act(Tick(0), &mut self.0.lock().unwrap()))
    }
}

struct World {
    engine: Locked,
    resolver: ForwardResolver,
    server: ForwardServer,
    path: PathBuf,
    _dir: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let mut engine = Engine::new(Policy::default());
        let config = DeviceConfig {
            credits: 1 << 16,
            ..DeviceConfig::default()
        };
        engine.add_device(DEVICE, config).unwrap();
        let attachment = Attachment::new(DomainId(1));
        engine.attach(DEVICE, None, attachment).unwrap();
        let engine = Locked(Arc::new(Mutex::new(engine)));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("faults");
        let (server, resolver) = ForwardServer::serve(&path, engine.clone()).unwrap();
        Self {
            engine,
            resolver,
            server,
            path,
            _dir: dir,
        }
    }

    fn fault(&mut self, pages: u32) {
        let mut engine = self.engine.0.lock().unwrap();
        for page in 1..=pages {
            let page = PageRequest {
                pasid: None,
                group: GroupIndex(7),
                addr: Iova(u64::from(page) << 12),
                access: Access::RW,
                last: page == pages,
                response_needs_pasid: false,
                private_data: [0; 2],
            };
            let fault = Fault::PageRequest(page);
            let _kept = engine.report(Tick(0), DEVICE, &fault).unwrap();
        }
        serve(&mut engine, Tick(0), &mut self.resolver, 8);
    }

    fn answers(&self) -> Vec<Response> {
        let mut engine = self.engine.0.lock().unwrap();
        std::iter::from_fn(|| engine.poll_answer().map(|answer| answer.response)).collect()
    }

    fn file(&self) -> ForwardedFile {
        ForwardedFile::connect(&self.path, PATIENCE).unwrap()
    }

    /// A client of another kind: connected, and greeted.
    fn raw(&self) -> OwnedFd {
        let socket = socket(&self.path);
        let mut greeting = [0; 64];
        assert!(readable_within(&socket, PATIENCE));
        let (_, len) = recv(&socket, &mut greeting, RecvFlags::empty()).unwrap();
        assert_eq!(&greeting[..len], b"IOPF\x01\0\0\0");
        socket
    }

    fn until(&self, name: &str, what: impl Fn(&Self) -> bool) {
        let start = Instant::now();
        while !what(self) {
            assert!(start.elapsed() < PATIENCE, "never: {name}");
            thread::sleep(Duration::from_micros(200));
        }
    }
}

fn socket(path: &std::path::Path) -> OwnedFd {
    let socket = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
    .unwrap();
    rustix::net::connect(&socket, &SocketAddrUnix::new(path).unwrap()).unwrap();
    socket
}

fn readable_within(file: impl AsFd, wait: Duration) -> bool {
    let wait = Timespec::try_from(wait).unwrap();
    let mut files = [PollFd::from_borrowed_fd(file.as_fd(), PollFlags::IN)];
    poll(&mut files, Some(&wait)).unwrap() > 0
}

fn readable(file: impl AsFd) -> bool {
    readable_within(file, Duration::ZERO)
}

/// A message with this header.
fn message(kind: u32, value: i32, rest: &[u8]) -> Vec<u8> {
    let header = Header {
        kind: kind.into(),
        value: value.into(),
    };
    [header.as_bytes(), rest].concat()
}

fn answer(cookie: u32, code: u32) -> [u8; 8] {
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&cookie.to_ne_bytes());
    bytes[4..].copy_from_slice(&code.to_ne_bytes());
    bytes
}

/// What a file does, in a script that never lets a cookie be used again.
fn script(file: &impl FaultFile, mut fault: impl FnMut(u32)) -> Vec<String> {
    let mut log = Vec::new();
    let mut say = |what: &str, said: String| {
        log.push(format!("{what}: {said}, readable {}", readable(file)));
    };
    let mut buffer = vec![0; 10 * 40];
    say("read nothing", format!("{:?}", file.read(&mut buffer)));
    say(
        "read a wrong size",
        format!("{:?}", file.read(&mut [0; 41])),
    );
    say("read into nothing", format!("{:?}", file.read(&mut [])));
    fault(3);
    fault(2);
    say(
        "read into too little",
        format!("{:?}", file.read(&mut [0; 80])),
    );
    say("read into nothing", format!("{:?}", file.read(&mut [])));
    let read = file.read(&mut buffer[..4 * 40]);
    say("read one", format!("{read:?} {:?}", &buffer[..120]));
    let read = file.read(&mut buffer);
    say("read the other", format!("{read:?} {:?}", &buffer[..80]));
    say("read nothing", format!("{:?}", file.read(&mut buffer)));
    say("write a wrong size", format!("{:?}", file.write(&[0; 9])));
    say("write nothing", format!("{:?}", file.write(&[])));
    say("write no code", format!("{:?}", file.write(&answer(1, 2))));
    say(
        "write no cookie",
        format!("{:?}", file.write(&answer(9, 0))),
    );
    let three = [answer(2, 0), answer(9, 0), answer(1, 0)].concat();
    say("write in part", format!("{:?}", file.write(&three)));
    say("write the rest", format!("{:?}", file.write(&three[8..])));
    say("write one more", format!("{:?}", file.write(&three[16..])));
    say("write it again", format!("{:?}", file.write(&three[16..])));
    fault(1);
    let read = file.read(&mut buffer);
    say("read the last", format!("{read:?} {:?}", &buffer[24..36]));
    log
}

#[test]
fn it_does_as_the_kernels_file_byte_for_byte_and_error_for_error() {
    let kernel = FakeFile::new();
    kernel.attach(DEVICE.0, None);
    let expected = script(&kernel, |pages| {
        kernel.fault(DEVICE.0, None, pages);
    });
    let mut world = World::new();
    let file = world.file();
    let seen = script(&file, |pages| world.fault(pages));
    assert_eq!(seen.len(), expected.len());
    for (seen, expected) in seen.iter().zip(&expected) {
        assert_eq!(seen, expected);
    }
    assert_eq!(world.answers(), [Response::Success, Response::Success]);
}

#[test]
fn it_is_readable_exactly_while_there_is_something_to_read() {
    let mut world = World::new();
    world.fault(1);
    // From before the client came.
    let file = world.file();
    assert!(readable_within(&file, PATIENCE));
    let mut buffer = [0; 40];
    for _ in 0..100 {
        world.fault(1);
        assert_eq!(file.read(&mut buffer), Ok(40));
        assert!(readable(&file), "one more waits");
        assert_eq!(file.read(&mut buffer), Ok(40));
        assert!(!readable(&file));
        assert_eq!(file.read(&mut buffer), Ok(0));
        world.fault(1);
        assert!(readable(&file));
    }
}

#[test]
fn a_group_too_large_for_a_message_is_refused_and_the_largest_comes_through() {
    let mut world = World::new();
    let file = world.file();
    let most = u32::try_from(MAX_PAGES).unwrap();
    world.fault(most + 1);
    assert_eq!(world.answers(), [Response::Invalid]);
    assert_eq!(world.server.counts().too_large, 1);
    world.fault(most);
    let mut buffer = vec![0; (MAX_PAGES + 10) * 40];
    assert_eq!(file.read(&mut buffer), Ok(MAX_PAGES * 40));
    assert_eq!(file.write(&answer(1, 0)), Ok(8));
    assert_eq!(world.answers(), [Response::Success]);
    // More answers than a message takes are written in part.
    assert_eq!(file.write(&vec![0; 8 * 4097]), Err(Errno::INVAL));
}

#[test]
fn a_client_that_breaks_the_protocol_is_dropped_and_the_next_is_served() {
    let mut world = World::new();
    let messages = [
        vec![1],
        vec![0; 7],
        message(0, 0, &[]),
        message(3, 8, &[0; 8]),
        message(READ, -40, &[]),
        message(WRITE, 64, &[0; 56]),
        message(READ, 40, &[0]),
        vec![0; MAX_REQUEST + 1],
    ];
    for (n, message) in (1..).zip(messages) {
        let client = world.raw();
        send(&client, &message, SendFlags::empty()).unwrap();
        let mut rest = [0; 64];
        assert_eq!(recv(&client, &mut rest, RecvFlags::empty()).unwrap().1, 0);
        world.until("a client that was dropped", |w| {
            w.server.counts().dropped == n
        });
    }
    // A buffer of 2 GiB is only a number.
    let client = world.raw();
    let huge = message(READ, i32::MAX - i32::MAX % 40, &[]);
    send(&client, &huge, SendFlags::empty()).unwrap();
    let mut reply = [0; 64];
    assert_eq!(recv(&client, &mut reply, RecvFlags::empty()).unwrap().1, 8);
    drop(client);
    let file = world.file();
    world.fault(1);
    assert_eq!(file.read(&mut [0; 40]), Ok(40));
}

#[test]
fn a_client_that_takes_no_replies_is_dropped_and_holds_nobody_up() {
    let mut world = World::new();
    let client = world.raw();
    world.fault(1);
    let request = Header::bytes(READ, 40);
    let start = Instant::now();
    // The server reads on until the replies do not fit.
    while send(&client, request.as_bytes(), SendFlags::NOSIGNAL).is_ok() {
        assert!(start.elapsed() < PATIENCE, "never dropped");
    }
    world.until("a client that was dropped", |w| {
        w.server.counts().dropped == 1
    });
    // What it had read is answered.
    assert_eq!(world.answers(), [Response::Invalid]);
    let file = world.file();
    world.fault(1);
    assert_eq!(file.read(&mut [0; 40]), Ok(40));
}

#[test]
fn a_client_that_plays_with_the_descriptor_spoils_only_its_own_view() {
    let mut world = World::new();
    let file = world.file();
    // It may be told to wait, and be filled.
    rustix::fs::fcntl_setfl(&file, rustix::fs::OFlags::empty()).unwrap();
    while send(&file, &[0; 512], SendFlags::DONTWAIT).is_ok() {}
    world.fault(1);
    let mut byte = [0; 1];
    recv(&file, &mut byte, RecvFlags::DONTWAIT).unwrap();
    for _ in 0..10 {
        assert_eq!(file.read(&mut [0; 40]), Ok(40));
        assert_eq!(file.read(&mut [0; 40]), Ok(0));
        world.fault(1);
    }
}

#[test]
fn one_client_is_served_at_a_time() {
    let world = World::new();
    let first = world.file();
    let second = ForwardedFile::connect(&world.path, Duration::from_millis(20));
    assert!(matches!(second, Err(ConnectError::Busy)), "{second:?}");
    assert_eq!(first.read(&mut [0; 40]), Ok(0));
    drop(first);
    assert_eq!(world.file().read(&mut [0; 40]), Ok(0));
}

#[test]
fn a_server_that_is_gone_is_seen_and_stays_gone() {
    let mut world = World::new();
    world.fault(1);
    world.fault(1);
    let file = world.file();
    assert_eq!(file.read(&mut [0; 40]), Ok(40));
    let World {
        server,
        engine,
        path,
        ..
    } = world;
    drop(server);
    assert!(readable_within(&file, PATIENCE));
    let start = Instant::now();
    // Requests that were sent before may still be served.
    while file.read(&mut [0; 40]) != Err(Errno::NODEV) {
        assert!(start.elapsed() < PATIENCE);
    }
    assert_eq!(file.write(&answer(1, 0)), Err(Errno::NODEV));
    assert!(readable(&file));
    assert!(!path.exists());
    // What it had read is answered; what it had not is the deadline's.
    let start = Instant::now();
    loop {
        if let Some(answer) = engine.0.lock().unwrap().poll_answer() {
            assert_eq!(answer.response, Response::Invalid);
            break;
        }
        assert!(start.elapsed() < PATIENCE, "never answered");
    }
}

#[test]
fn replies_that_make_no_sense_end_the_connection() {
    let dir = tempfile::tempdir().unwrap();
    let replies = [
        vec![1],
        message(WRITE, 0, &[]),
        message(READ, 40, &[]),
        message(READ, 80, &[0; 80]),
        message(READ, 39, &[0; 39]),
        message(READ, i32::MIN, &[]),
        message(READ, -4096, &[]),
    ];
    for (n, reply) in replies.into_iter().enumerate() {
        let path = dir.path().join(n.to_string());
        let listener = super::listen(&path).unwrap();
        let liar = thread::spawn(move || {
            assert!(readable_within(&listener, PATIENCE));
            let client = rustix::net::accept(&listener).unwrap();
            let ready = super::Ready::new().unwrap();
            let theirs = ready.theirs().try_clone_to_owned().unwrap();
            super::serve::greet(&client, &theirs).unwrap();
            drop(theirs);
            recv(&client, &mut [0; 64], RecvFlags::empty()).unwrap();
            send(&client, &reply, SendFlags::empty()).unwrap();
            // Until it hangs up.
            recv(&client, &mut [0; 64], RecvFlags::empty()).unwrap().1
        });
        let file = ForwardedFile::connect(&path, PATIENCE).unwrap();
        assert_eq!(file.read(&mut [0; 40]), Err(Errno::PROTO), "reply {n}");
        assert_eq!(file.write(&[]), Err(Errno::PROTO));
        assert!(readable(&file));
        assert_eq!(liar.join().unwrap(), 0);
    }
    // Whoever greets in another way is not spoken to.
    let path = dir.path().join("stranger");
    let listener = super::listen(&path).unwrap();
    let stranger = thread::spawn(move || {
        assert!(readable_within(&listener, PATIENCE));
        let client = rustix::net::accept(&listener).unwrap();
        send(&client, b"SSH-2.0-\r\n", SendFlags::empty()).unwrap();
    });
    let came = ForwardedFile::connect(&path, PATIENCE);
    assert!(matches!(came, Err(ConnectError::Stranger)), "{came:?}");
    stranger.join().unwrap();
    let nobody = ForwardedFile::connect(&dir.path().join("nobody"), PATIENCE);
    assert!(matches!(nobody, Err(ConnectError::Socket(Errno::NOENT))));
}

#[test]
fn patience_may_have_no_end() {
    let world = World::new();
    let file = ForwardedFile::connect(&world.path, Duration::MAX).unwrap();
    assert_eq!(file.read(&mut [0; 40]), Ok(0));
}

#[test]
fn without_a_server_groups_are_refused_at_once() {
    let mut world = World::new();
    let file = world.file();
    world.fault(1);
    assert_eq!(world.answers(), []);
    // The resolver stays.
    let server = std::mem::replace(&mut world.server, {
        let elsewhere = world.path.with_extension("2");
        ForwardServer::serve(&elsewhere, world.engine.clone())
            .unwrap()
            .0
    });
    drop(server);
    world.fault(1);
    assert_eq!(world.answers(), [Response::Invalid]);
    drop(file);
}
