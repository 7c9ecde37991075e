//! What does a 4-byte register read cost a client of ours, from request to reply over the socket?
//!
//! | bench | question | target |
//! |---|---|---|
//! | `bare` | two threads throw messages of the same sizes (32 bytes there, 36 back) over a socket pair and do nothing else | – |
//! | `ours` | this crate's server, over a socket pair | ≤ 1.2 × `bare` |
//! | `ours, unix socket` | the same through a listening socket | ≤ 1.2 × `bare` |
//! | `vfio_user` | the server of the `vfio_user` crate, with a back end that does nothing | ≥ `ours` |
//!
//! The same client asks all of them. Most of the time goes into waking a thread, and that costs a
//! multiple where the thread sleeps on another, idle processor; so that it is not the scheduler's
//! choice of a processor that is measured, all threads stay on one. The ratios at the end come from
//! rounds taken in turns, and the median of the rounds counts.

use criterion::{Criterion, criterion_group};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};
use vfio_user_server::codec::{Limits, Region, Request, encode_request};
use vfio_user_server::{Function, GuestMap, MapLimits, Port, Server, serve};
use viommu_api::{Interrupts, PciFunction};

const REQUEST: usize = 32;
const REPLY: usize = 36;

/// Round trips in one round of the ratios, and rounds of each contender.
const TRIPS: u32 = 2000;
const ROUNDS: usize = 61;

struct Register;

impl PciFunction for Register {
    fn bar_size(&self, bar: u8) -> u64 {
        if bar == 0 { 4096 } else { 0 }
    }
    fn interrupts(&self) -> Interrupts {
        Interrupts::default()
    }
    fn read_config(&self, _: u16, _: &mut [u8]) {}
    fn write_config(&self, _: u16, _: &[u8]) {}
    fn read_bar(&self, _: u8, _: u64, data: &mut [u8]) {
        data.fill(0x5a);
    }
    fn write_bar(&self, _: u8, _: u64, _: &[u8]) {}
    fn reset(&self) {}
}

struct Theirs;

impl vfio_user::ServerBackend for Theirs {
    fn region_read(&mut self, _: u32, _: u64, data: &mut [u8]) -> Result<(), std::io::Error> {
        data.fill(0x5a);
        Ok(())
    }
    fn region_write(&mut self, _: u32, _: u64, _: &[u8]) -> Result<(), std::io::Error> {
        Ok(())
    }
    fn dma_map(
        &mut self,
        _: vfio_user::DmaMapFlags,
        _: u64,
        _: u64,
        _: u64,
        _: Option<std::fs::File>,
    ) -> Result<(), std::io::Error> {
        Ok(())
    }
    fn dma_unmap(
        &mut self,
        _: vfio_user::DmaUnmapFlags,
        _: u64,
        _: u64,
    ) -> Result<(), std::io::Error> {
        Ok(())
    }
    fn reset(&mut self) -> Result<(), std::io::Error> {
        Ok(())
    }
    fn set_irqs(
        &mut self,
        _: u32,
        _: u32,
        _: u32,
        _: u32,
        _: Vec<std::fs::File>,
    ) -> Result<(), std::io::Error> {
        Ok(())
    }
}

struct Client {
    name: &'static str,
    stream: UnixStream,
    request: Vec<u8>,
}

impl Client {
    fn new(name: &'static str, stream: UnixStream) -> Self {
        let mut request = Vec::new();
        let read = Request::RegionRead {
            region: Region::Bar(0),
            offset: 0x34,
            count: 4,
        };
        encode_request(1, false, &read, &mut request);
        assert_eq!(request.len(), REQUEST);
        Self {
            name,
            stream,
            request,
        }
    }

    fn agree(mut self) -> Self {
        let mut version = Vec::new();
        let data = b"{\"capabilities\":{\"max_msg_fds\":8}}\0";
        let (major, minor) = (0, 0);
        let request = Request::Version { major, minor, data };
        encode_request(0, false, &request, &mut version);
        self.stream.write_all(&version).expect("a peer");
        let mut header = [0; 16];
        self.stream.read_exact(&mut header).expect("a reply");
        let [_, _, _, _, a, b, c, d, ..] = header;
        let rest = u32::from_ne_bytes([a, b, c, d]) as usize - header.len();
        self.stream
            .read_exact(&mut vec![0; rest])
            .expect("all of the reply");
        self
    }

    fn read(&mut self) {
        self.stream.write_all(&self.request).expect("a peer");
        let mut reply = [0; REPLY];
        self.stream.read_exact(&mut reply).expect("a reply");
        assert_eq!(reply[32..], [0x5a; 4]);
    }

    fn trips(&mut self, trips: u64) -> Duration {
        let start = Instant::now();
        for _ in 0..trips {
            self.read();
        }
        start.elapsed()
    }
}

fn function() -> Function {
    Function {
        device: Arc::new(Register),
        port: Arc::new(Port::new()),
        guest: Arc::new(GuestMap::new(MapLimits::default())),
        observer: Arc::new(()),
        limits: Limits::default(),
    }
}

fn bare() -> Client {
    let (ours, mut theirs) = UnixStream::pair().expect("a socket pair");
    thread::spawn(move || {
        let (mut request, mut reply) = ([0; REQUEST], [0; REPLY]);
        reply[32..].fill(0x5a);
        while theirs.read_exact(&mut request).is_ok() {
            theirs.write_all(&reply).expect("a peer");
        }
    });
    Client::new("bare", ours)
}

fn ours() -> Client {
    let (ours, theirs) = UnixStream::pair().expect("a socket pair");
    thread::spawn(move || serve(theirs, &function()));
    Client::new("ours", ours).agree()
}

fn ours_listening(dir: &std::path::Path) -> (Client, Server) {
    let server = Server::bind(&dir.join("ours"), function()).expect("a socket");
    let stream = UnixStream::connect(server.path()).expect("a server");
    (Client::new("ours, unix socket", stream).agree(), server)
}

fn theirs(dir: &std::path::Path) -> Client {
    let path = dir.join("theirs");
    let listener = UnixListener::bind(&path).expect("a socket");
    thread::spawn(move || {
        let region = vfio_user::ServerRegion {
            region_info: Default::default(),
            sparse_areas: Vec::new(),
            mmap_fd: None,
        };
        let server = vfio_user::Server::from_owned_fd(listener.into(), true, vec![], vec![region]);
        server.run(&mut Theirs).expect("a client");
    });
    let stream = UnixStream::connect(&path).expect("a server");
    Client::new("vfio_user", stream).agree()
}

fn round_trips(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a directory");
    let (listening, _server) = ours_listening(dir.path());
    let mut clients = [bare(), ours(), listening, theirs(dir.path())];
    let mut group = criterion.benchmark_group("register read");
    for client in &mut clients {
        let name = client.name;
        group.bench_function(name, |b| b.iter_custom(|trips| client.trips(trips)));
    }
    group.finish();
    ratios(&mut clients);
}

/// Rounds in turns, so that what else the machine does hits all alike.
fn ratios(clients: &mut [Client]) {
    let mut times = vec![Vec::with_capacity(ROUNDS); clients.len()];
    for _ in 0..ROUNDS {
        for (client, times) in clients.iter_mut().zip(&mut times) {
            times.push(client.trips(TRIPS.into()) / TRIPS);
        }
    }
    let medians: Vec<_> = times
        .iter_mut()
        .map(|times| {
            times.sort_unstable();
            times[ROUNDS / 2].as_secs_f64() * 1e6
        })
        .collect();
    println!("median of {ROUNDS} rounds of {TRIPS} reads, taken in turns:");
    for (client, median) in clients.iter().zip(&medians) {
        let ratio = median / medians[0];
        println!("  {:<18} {median:6.2} µs  {ratio:5.3} × bare", client.name);
    }
}

criterion_group!(benches, round_trips);

/// Keeps this thread, and those it starts, on the first processor it may use.
fn stay_on_one_processor() {
    let allowed = sched_getaffinity(None).expect("a set of processors");
    let first = (0..CpuSet::MAX_CPU).find(|cpu| allowed.is_set(*cpu));
    let mut one = CpuSet::new();
    one.set(first.expect("a processor"));
    sched_setaffinity(None, &one).expect("a processor that it may use");
}

fn main() {
    stay_on_one_processor();
    benches();
    Criterion::default().configure_from_args().final_summary();
}
