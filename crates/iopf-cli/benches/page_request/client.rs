//! A client of the IOMMU function, as QEMU is one: reads wait for their reply, writes don't.

use crate::marks::{Mark, Marks};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use std::fs::File;
use std::io::{IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use testkit::vtd::numbers::IQT;
use vfio_user_server::codec::{
    HEADER_SIZE, Header, Kind, Limits, MapAccess, RawHeader, Region, Reply, Request, decode_reply,
    decode_request, encode_request,
};
use viommu_api::{MsiSink, Registers};
use zerocopy::FromBytes;

type Message = (Header, Vec<u8>);

/// A connected client. Its own thread hands messages of interrupts to a sink.
pub(crate) struct Client {
    stream: UnixStream,
    /// Held from a request to its reply.
    replies: Mutex<Receiver<Message>>,
    marks: Arc<Marks>,
    size: u64,
}

impl Client {
    /// Connects, agrees on the version and maps all of `memory` from address 0 on.
    pub(crate) fn new(
        path: &Path,
        memory: &File,
        irqs: Arc<dyn MsiSink>,
        marks: Arc<Marks>,
        size: u64,
    ) -> Self {
        let stream = UnixStream::connect(path).expect("a server");
        let (sender, replies) = channel();
        let reading = stream.try_clone().expect("a descriptor");
        let seen = marks.clone();
        thread::spawn(move || receive(reading, &sender, &*irqs, &seen));
        let client = Self {
            stream,
            replies: Mutex::new(replies),
            marks,
            size,
        };
        let data = b"{\"capabilities\":{\"max_msg_fds\":8}}\0";
        let (major, minor) = (0, 1);
        client.call(&Request::Version { major, minor, data });
        client.map(memory);
        client
    }

    fn map(&self, memory: &File) {
        let request = Request::DmaMap {
            access: MapAccess::all(),
            offset: 0,
            address: 0,
            size: memory.metadata().expect("a file").len(),
        };
        let mut bytes = Vec::new();
        encode_request(1, false, &request, &mut bytes);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let descriptors = [memory.as_fd()];
        assert!(control.push(SendAncillaryMessage::ScmRights(&descriptors)));
        let replies = self.replies.lock().expect("no reader has failed");
        let bytes = [IoSlice::new(&bytes)];
        sendmsg(&self.stream, &bytes, &mut control, SendFlags::NOSIGNAL).expect("a peer");
        done(&replies.recv().expect("a reply"));
    }

    fn send(&self, no_reply: bool, request: &Request<'_>) {
        let mut bytes = Vec::with_capacity(64);
        encode_request(1, no_reply, request, &mut bytes);
        (&self.stream).write_all(&bytes).expect("a peer");
    }

    fn call(&self, request: &Request<'_>) -> Message {
        let replies = self.replies.lock().expect("no reader has failed");
        self.send(false, request);
        let message = replies.recv().expect("a reply");
        done(&message);
        message
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // Ends the reading thread; the server may have been faster.
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

impl Registers for Client {
    fn size(&self) -> u64 {
        self.size
    }

    fn read(&self, offset: u64, data: &mut [u8]) {
        let (header, payload) = self.call(&Request::RegionRead {
            region: Region::Bar(0),
            offset,
            count: u32::try_from(data.len()).expect("a register"),
        });
        match decode_reply(header.command, &payload) {
            Ok(Reply::RegionRead { data: read, .. }) => data.copy_from_slice(read),
            other => panic!("{other:?}"),
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        if offset == IQT {
            self.marks.note(Mark::Sent);
        }
        let region = Region::Bar(0);
        let write = Request::RegionWrite {
            region,
            offset,
            data,
        };
        self.send(true, &write);
    }
}

fn done((header, _): &Message) {
    assert_eq!(header.kind, Kind::Reply { error: None });
}

/// Reads until the connection ends.
fn receive(mut from: UnixStream, to: &Sender<Message>, irqs: &dyn MsiSink, marks: &Marks) {
    let limits = Limits::default();
    let mut raw = [0; HEADER_SIZE];
    while from.read_exact(&mut raw).is_ok() {
        let raw = RawHeader::read_from_bytes(&raw).expect("sixteen bytes");
        let header = Header::decode(&raw, &limits).expect("a header");
        let mut payload = vec![0; header.size as usize - HEADER_SIZE];
        from.read_exact(&mut payload).expect("all of a message");
        if matches!(header.kind, Kind::Reply { .. }) {
            if to.send((header, payload)).is_err() {
                return;
            }
            continue;
        }
        match decode_request(header.command, &payload, &limits) {
            Ok(Request::DmaWrite { address, data }) => {
                marks.note(Mark::Arrived);
                let data = data.try_into().expect("the four bytes of a message");
                irqs.msi(address, u32::from_le_bytes(data));
            }
            other => panic!("{other:?}"),
        }
    }
}
