//! A client of ours, as small as it can be, and a function that remembers what was done to it.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use std::io::{self, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use vfio_user_server::codec::{
    Command, Errno, HEADER_SIZE, Header, Kind, Limits, MapAccess, RawHeader, Reply, Request,
    decode_reply, encode_request,
};
use vfio_user_server::{Event, Function, GuestMap, MapLimits, Observer, Port};
use viommu_api::{Interrupts, PciFunction};
use zerocopy::FromBytes;

/// How long anything in these tests may take.
pub(crate) const SOON: Duration = Duration::from_secs(10);

/// One message as it came.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) header: Header,
    pub(crate) payload: Vec<u8>,
}

impl Message {
    pub(crate) fn error(&self) -> Option<Errno> {
        match self.header.kind {
            Kind::Reply { error } => error,
            Kind::Command { .. } => panic!("not a reply: {:?}", self.header),
        }
    }

    pub(crate) fn reply(&self) -> Reply<'_> {
        match self.error() {
            Some(errno) => Reply::Error(errno),
            None => decode_reply(self.header.command, &self.payload).unwrap(),
        }
    }
}

pub(crate) struct Client {
    pub(crate) stream: UnixStream,
    id: u16,
    out: Vec<u8>,
}

pub(crate) const VERSION_DATA: &[u8] = b"{\"capabilities\":{\"max_msg_fds\":8,\"max_data_xfer_size\":1048576,\"pgsizes\":4096,\"max_dma_maps\":65535}}\0";

impl Client {
    pub(crate) fn over(stream: UnixStream) -> Self {
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.set_write_timeout(Some(SOON)).unwrap();
        let out = Vec::new();
        Self { stream, id: 7, out }
    }

    pub(crate) fn connect(path: &Path) -> Self {
        Self::over(UnixStream::connect(path).unwrap())
    }

    /// Connected, and the version agreed on.
    pub(crate) fn ready(path: &Path) -> Self {
        let mut client = Self::connect(path);
        client.agree();
        client
    }

    pub(crate) fn agree(&mut self) {
        let version = self.call(&Request::Version {
            major: 0,
            minor: 1,
            data: VERSION_DATA,
        });
        assert_eq!(version.error(), None);
    }

    pub(crate) fn send(
        &mut self,
        no_reply: bool,
        request: &Request<'_>,
        fds: &[BorrowedFd<'_>],
    ) -> u16 {
        self.id = self.id.wrapping_add(1);
        encode_request(self.id, no_reply, request, &mut self.out);
        let bytes = std::mem::take(&mut self.out);
        self.send_bytes(&bytes, fds).unwrap();
        self.out = bytes;
        self.id
    }

    pub(crate) fn send_bytes(&mut self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        if fds.is_empty() {
            return self.stream.write_all(bytes);
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(64))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(control.push(SendAncillaryMessage::ScmRights(fds)));
        let sent = sendmsg(
            &self.stream,
            &[IoSlice::new(bytes)],
            &mut control,
            SendFlags::NOSIGNAL,
        )?;
        assert_eq!(sent, bytes.len());
        Ok(())
    }

    pub(crate) fn receive(&mut self) -> io::Result<Message> {
        let mut bytes = [0; HEADER_SIZE];
        self.stream.read_exact(&mut bytes)?;
        let raw = RawHeader::read_from_bytes(&bytes).unwrap();
        let header = Header::decode(&raw, &Limits::default()).unwrap();
        let mut payload = vec![0; header.size as usize - HEADER_SIZE];
        self.stream.read_exact(&mut payload)?;
        Ok(Message { header, payload })
    }

    pub(crate) fn call(&mut self, request: &Request<'_>) -> Message {
        self.call_with(request, &[])
    }

    pub(crate) fn call_with(&mut self, request: &Request<'_>, fds: &[BorrowedFd<'_>]) -> Message {
        let id = self.send(false, request, fds);
        let reply = self.receive().unwrap();
        assert_eq!(reply.header.id, id);
        assert_eq!(reply.header.command, request.command());
        reply
    }

    /// The error of a command, which must have one.
    pub(crate) fn refused(&mut self, request: &Request<'_>, fds: &[BorrowedFd<'_>]) -> Errno {
        self.call_with(request, fds).error().unwrap()
    }

    pub(crate) fn map(
        &mut self,
        address: u64,
        size: u64,
        offset: u64,
        fd: &OwnedFd,
    ) -> Option<Errno> {
        let request = Request::DmaMap {
            access: MapAccess::all(),
            offset,
            address,
            size,
        };
        self.call_with(&request, &[fd.as_fd()]).error()
    }

    /// Whether the server let go of us.
    pub(crate) fn is_let_go(&mut self) -> bool {
        let mut bytes = [0; 64];
        loop {
            match self.stream.read(&mut bytes) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return true,
                Err(_) => return false,
            }
        }
    }
}

/// Memory as QEMU's `memory-backend-memfd` makes it.
pub(crate) fn sealed(size: u64) -> OwnedFd {
    let fd = unsealed(size);
    let seals = rustix::fs::SealFlags::SHRINK | rustix::fs::SealFlags::GROW;
    rustix::fs::fcntl_add_seals(&fd, seals | rustix::fs::SealFlags::SEAL).unwrap();
    fd
}

pub(crate) fn unsealed(size: u64) -> OwnedFd {
    let flags = rustix::fs::MemfdFlags::CLOEXEC | rustix::fs::MemfdFlags::ALLOW_SEALING;
    let fd = rustix::fs::memfd_create("memory", flags).unwrap();
    rustix::fs::ftruncate(&fd, size).unwrap();
    fd
}

pub(crate) fn eventfd() -> OwnedFd {
    let flags = rustix::event::EventfdFlags::NONBLOCK | rustix::event::EventfdFlags::CLOEXEC;
    rustix::event::eventfd(0, flags).unwrap()
}

/// How often an eventfd was raised since it was last asked; waits for the first time.
pub(crate) fn raised(fd: &OwnedFd) -> u64 {
    let deadline = Instant::now() + SOON;
    let mut bytes = [0; 8];
    loop {
        match rustix::io::read(fd, &mut bytes) {
            Ok(8) => return u64::from_ne_bytes(bytes),
            Ok(len) => panic!("{len} bytes from an eventfd"),
            Err(_) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(1)),
            Err(_) => return 0,
        }
    }
}

/// Waits until `what` holds.
pub(crate) fn until(what: impl Fn() -> bool) {
    let deadline = Instant::now() + SOON;
    while !what() {
        assert!(Instant::now() < deadline, "not so after {SOON:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A function with one BAR of 4 KiB, and memory behind everything.
pub(crate) struct Scratch {
    pub(crate) config: Mutex<Vec<u8>>,
    pub(crate) bar: Mutex<Vec<u8>>,
    pub(crate) resets: Mutex<u32>,
    /// How often the BAR register was written, and the value of the last time.
    pub(crate) sized: Mutex<(u32, u32)>,
}

impl Scratch {
    pub(crate) fn new() -> Arc<Self> {
        let mut config = vec![0; 4096];
        config[0..4].copy_from_slice(&0x0001_1b36_u32.to_le_bytes());
        // Class 0x080020, revision 0.
        config[8..12].copy_from_slice(&0x0800_2000_u32.to_le_bytes());
        Arc::new(Self {
            config: Mutex::new(config),
            bar: Mutex::new(vec![0; 4096]),
            resets: Mutex::new(0),
            sized: Mutex::new((0, 0)),
        })
    }
}

impl PciFunction for Scratch {
    fn bar_size(&self, bar: u8) -> u64 {
        if bar == 0 { 4096 } else { 0 }
    }
    fn interrupts(&self) -> Interrupts {
        Interrupts {
            intx: 1,
            msi: 0,
            msix: 4,
        }
    }
    fn read_config(&self, offset: u16, data: &mut [u8]) {
        let at = usize::from(offset);
        data.copy_from_slice(&self.config.lock().unwrap()[at..at + data.len()]);
    }
    fn write_config(&self, offset: u16, data: &[u8]) {
        let mut config = self.config.lock().unwrap();
        let at = usize::from(offset);
        config[at..at + data.len()].copy_from_slice(data);
        if (0x10..0x14).contains(&at) {
            let mut word = [0; 4];
            word.copy_from_slice(&config[0x10..0x14]);
            let value = u32::from_le_bytes(word) & !0xfff;
            config[0x10..0x14].copy_from_slice(&value.to_le_bytes());
            let mut sized = self.sized.lock().unwrap();
            *sized = (sized.0 + 1, value);
        }
        // No other BAR, no ROM.
        if (0x14..0x28).contains(&at) || (0x30..0x34).contains(&at) {
            config[at..at + data.len()].fill(0);
        }
    }
    fn read_bar(&self, bar: u8, offset: u64, data: &mut [u8]) {
        assert_eq!(bar, 0);
        let at = usize::try_from(offset).unwrap();
        data.copy_from_slice(&self.bar.lock().unwrap()[at..at + data.len()]);
    }
    fn write_bar(&self, bar: u8, offset: u64, data: &[u8]) {
        assert_eq!(bar, 0);
        let at = usize::try_from(offset).unwrap();
        self.bar.lock().unwrap()[at..at + data.len()].copy_from_slice(data);
    }
    fn reset(&self) {
        *self.resets.lock().unwrap() += 1;
    }
}

/// Keeps what happened, one line an event.
#[derive(Default)]
pub(crate) struct Log(pub(crate) Mutex<Vec<String>>);

impl Log {
    pub(crate) fn contains(&self, words: &str) -> bool {
        self.0
            .lock()
            .unwrap()
            .iter()
            .any(|line| line.contains(words))
    }
    pub(crate) fn count(&self, words: &str) -> usize {
        let lines = self.0.lock().unwrap();
        lines.iter().filter(|line| line.contains(words)).count()
    }
    pub(crate) fn text(&self) -> String {
        self.0.lock().unwrap().join("\n")
    }
}

impl Observer for Log {
    fn event(&self, event: &Event<'_>) {
        self.0.lock().unwrap().push(event.to_string());
    }
}

/// Everything around one function.
pub(crate) struct Rig {
    pub(crate) device: Arc<Scratch>,
    pub(crate) port: Arc<Port>,
    pub(crate) guest: Arc<GuestMap>,
    pub(crate) log: Arc<Log>,
}

impl Rig {
    pub(crate) fn new() -> Self {
        Self::of(Arc::new(GuestMap::new(MapLimits::default())))
    }

    /// Another function of the same guest.
    pub(crate) fn of(guest: Arc<GuestMap>) -> Self {
        Self {
            device: Scratch::new(),
            port: Arc::new(Port::new()),
            guest,
            log: Arc::default(),
        }
    }

    pub(crate) fn function(&self) -> Function {
        Function {
            device: self.device.clone(),
            port: self.port.clone(),
            guest: self.guest.clone(),
            observer: self.log.clone(),
            limits: Limits::default(),
        }
    }
}

/// A command that changes nothing, to see that a connection works.
pub(crate) fn works(client: &mut Client) {
    let reply = client.call(&Request::GetInfo);
    assert_eq!(reply.header.command, Command::GET_INFO);
    let info = Reply::Info {
        flags: 3,
        regions: 9,
        irqs: 5,
    };
    assert_eq!(reply.reply(), info);
}
