//! One connection, from its first byte to its last: the file that turns actions into deeds.

use crate::codec::{
    Command, Errno, Header, IrqIndex, Kind, Limits, Region, Reply, encode_region_read, encode_reply,
};
use crate::guest::{GuestMap, Membership, Range};
use crate::inbox::Inbox;
use crate::port::Port;
use crate::requests::Answer;
use crate::server::{Event, Observer, process_of};
use crate::session::{Action, Session, Shape, Violation};
use crate::socket::{Link, Received, ServingMark, Unsent};
use std::fmt::Display;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};
use viommu_api::{InterruptKind, IrqSink as _, PciFunction};

/// How long a client waits for the connections of another process to end.
const SUCCESSION: Duration = Duration::from_secs(2);

/// A function, and all that a connection to it needs.
#[derive(Clone)]
pub struct Function {
    /// The function.
    pub device: Arc<dyn PciFunction>,
    /// Where its interrupts go.
    pub port: Arc<Port>,
    /// The memory of its guest, the same for all functions of the guest.
    pub guest: Arc<GuestMap>,
    /// Who hears what happens.
    pub observer: Arc<dyn Observer>,
    /// What a client may ask for.
    pub limits: Limits,
}

impl std::fmt::Debug for Function {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Function")
            .field("port", &self.port)
            .field("guest", &self.guest)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Disconnect {
    /// The client left, between two messages.
    #[error("the client left")]
    Left,
    /// The client broke the protocol.
    #[error(transparent)]
    Violation(#[from] Violation),
    /// This side ended it.
    #[error("the server stopped")]
    Stopped,
    /// Another process has connections to functions of the same guest.
    #[error("another process has functions of this guest")]
    OtherProcess,
    /// The socket failed.
    #[error("the socket failed: errno {0}")]
    Socket(i32),
}

/// Serves one connected client on this thread, until the connection ends. Afterwards the function
/// is reset, its interrupts go nowhere, and what the client mapped is unmapped.
///
/// A function serves one client at a time; [`Server`](crate::Server) sees to that for a socket.
pub fn serve(stream: UnixStream, function: &Function) -> Disconnect {
    let process = process_of(&stream);
    let link = Arc::new(Link::new(stream, &function.limits));
    serve_link(&link, function, process)
}

pub(crate) fn serve_link(link: &Arc<Link>, function: &Function, process: u32) -> Disconnect {
    let _mark = ServingMark::new();
    let limits = function.limits;
    let joined = function
        .guest
        .join(Arc::clone(link) as _, process, limits.max_maps, SUCCESSION);
    let Some(membership) = joined else {
        refuse_busy(link, &limits);
        function.observer.event(&Event::Busy { process });
        return Disconnect::OtherProcess;
    };
    function.observer.event(&Event::Connected { process });
    let mut connection = Connection {
        link,
        function,
        membership,
        session: Session::new(Shape::of(&*function.device), limits),
        out: Vec::with_capacity(4096),
    };
    let why = connection.run();
    drop(connection);
    function.observer.event(&Event::Disconnected { why: &why });
    why
}

/// Answers the first message with EBUSY and lets go. Waits for all of that message no longer than
/// [`FIRST_MESSAGE`], however it comes.
pub(crate) fn refuse_busy(link: &Link, limits: &Limits) {
    let deadline = Instant::now() + FIRST_MESSAGE;
    let mut inbox = Inbox::new(*limits);
    let mut out = Vec::new();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        link.limit_reads(left);
        if link.receive(&mut inbox) != Received::Bytes {
            break;
        }
        match inbox.next() {
            Ok(None) => {}
            Ok(Some(message)) => {
                encode_reply(&message.header, &Reply::Error(Errno::EBUSY), &mut out);
                // The client is going to be let go in any case.
                let _ = link.reply(&out);
                break;
            }
            Err(_) => break,
        }
    }
    link.close();
}

/// How long a client that is turned away may take for its first message.
pub(crate) const FIRST_MESSAGE: Duration = Duration::from_millis(500);

struct Connection<'a> {
    link: &'a Arc<Link>,
    function: &'a Function,
    membership: Membership,
    session: Session,
    out: Vec<u8>,
}

/// Also when a function panics: the next client finds everything in order. The maps go last.
impl Drop for Connection<'_> {
    fn drop(&mut self) {
        self.link.close();
        self.function.port.disconnect();
        self.function.device.reset();
    }
}

impl Connection<'_> {
    fn run(&mut self) -> Disconnect {
        let mut inbox = Inbox::new(self.function.limits);
        loop {
            match self.drain(&mut inbox) {
                Ok(()) => {}
                Err(why) => return why,
            }
            match self.link.receive(&mut inbox) {
                Received::Bytes => {}
                _ if self.link.is_closed() => return Disconnect::Stopped,
                Received::End if inbox.rest() == 0 => return Disconnect::Left,
                Received::End => {
                    let have = inbox.rest();
                    return Violation::Truncated { have }.into();
                }
                Received::TooManyDescriptors => {
                    let limit = self.function.limits.max_fds;
                    return Violation::Descriptors { limit }.into();
                }
                Received::Failed(errno) => return Disconnect::Socket(errno.raw_os_error()),
            }
        }
    }

    /// Handles every message that is there.
    fn drain(&mut self, inbox: &mut Inbox<OwnedFd>) -> Result<(), Disconnect> {
        while let Some(message) = inbox.next().map_err(Violation::Header)? {
            self.handle(&message.header, message.payload, message.descriptors)?;
        }
        Ok(())
    }

    fn handle(
        &mut self,
        header: &Header,
        payload: &[u8],
        descriptors: Vec<OwnedFd>,
    ) -> Result<(), Disconnect> {
        let Self {
            link,
            function,
            membership,
            session,
            out,
        } = self;
        let action = session.handle(header, payload, descriptors.len());
        let mut end = None;
        let reply = match action {
            Action::Read {
                region,
                offset,
                count,
            } => {
                encode_region_read(header, region, offset, count, out, |data| {
                    read(&*function.device, region, offset, data);
                });
                return finish(link, header, out);
            }
            Action::Write {
                region,
                offset,
                data,
            } => {
                write(&*function.device, region, offset, data);
                // Data is within the limit, which is 32 bits wide.
                let count = u32::try_from(data.len()).unwrap_or(u32::MAX);
                Reply::RegionWritten {
                    region,
                    offset,
                    count,
                }
            }
            Action::Reply(reply) => reply,
            Action::Map {
                access,
                offset,
                address,
                size,
            } => {
                let range = Range {
                    access,
                    offset,
                    address,
                    size,
                };
                match membership.map(&range, descriptors.into_iter().next()) {
                    Ok(()) => Reply::Done,
                    Err(why) => refused(function, header.command, why.errno(), &why),
                }
            }
            Action::Unmap { address, size } => match membership.unmap(address, size) {
                Ok(()) => Reply::Unmapped(crate::codec::DmaUnmap {
                    argsz: 24.into(),
                    flags: 0.into(),
                    address: address.into(),
                    size: size.into(),
                }),
                Err(why) => refused(function, header.command, why.errno(), &why),
            },
            Action::UnmapAll => {
                membership.unmap_all();
                Reply::Unmapped(crate::codec::DmaUnmap {
                    argsz: 24.into(),
                    flags: 2.into(),
                    ..Default::default()
                })
            }
            Action::SetIrqs {
                index,
                start,
                count,
                action,
                data,
            } => {
                let set = function
                    .port
                    .set_irqs(index, (start, count), action, data, descriptors);
                match set {
                    Ok(()) => {
                        if index == IrqIndex::Intx && asserts_pin(&*function.device) {
                            function.port.raise(InterruptKind::Intx, 0);
                        }
                        Reply::Done
                    }
                    Err(why) => refused(function, header.command, Errno::EINVAL, &why),
                }
            }
            Action::Reset => {
                function.device.reset();
                Reply::Done
            }
            Action::Answer {
                id,
                command,
                result,
            } => {
                return match link.answer(id, command, result) {
                    Answer::Asked => Ok(()),
                    Answer::Posted => {
                        function.port.refused();
                        Ok(())
                    }
                    Answer::Unasked => Err(Violation::Unasked { id, command }.into()),
                };
            }
            Action::Refuse(why) => {
                if why.is_final() {
                    end = Some(Violation::Negotiation(why));
                }
                refused(function, header.command, why.errno(), &why)
            }
        };
        let agreed = matches!(reply, Reply::Version { .. });
        encode_reply(header, &reply, out);
        if agreed && let Some(transfer) = session.peer_transfer() {
            link.agree(transfer);
        }
        finish(link, header, out)?;
        if agreed {
            // From here on the client may hear from us unasked.
            function.port.connect(Arc::clone(link));
        }
        end.map_or(Ok(()), |why| Err(why.into()))
    }
}

fn refused<'a>(
    function: &Function,
    command: Command,
    errno: Errno,
    why: &dyn Display,
) -> Reply<'a> {
    function.observer.event(&Event::Refused {
        command,
        errno,
        why,
    });
    Reply::Error(errno)
}

/// Sends a reply, if one is wanted.
fn finish(link: &Link, header: &Header, out: &[u8]) -> Result<(), Disconnect> {
    if header.kind == (Kind::Command { no_reply: true }) {
        return Ok(());
    }
    link.reply(out).map_err(|unsent| match unsent {
        _ if link.is_closed() => Disconnect::Stopped,
        // A reply is waited for without end, so the client is gone.
        Unsent::Stalled | Unsent::Closed => Disconnect::Left,
    })
}

/// Whether a function asks for an interrupt through its pin: COMMAND has not switched it off (bit 10),
/// and STATUS says so (bit 3). PCI Express Base Specification, "Type 0/1 Common Configuration Space".
fn asserts_pin(device: &dyn PciFunction) -> bool {
    let mut registers = [0; 4];
    device.read_config(4, &mut registers);
    let registers = u32::from_le_bytes(registers);
    registers >> 10 & 1 == 0 && registers >> 19 & 1 == 1
}

/// Configuration space is 4096 bytes, so offsets within it fit.
fn read(device: &dyn PciFunction, region: Region, offset: u64, data: &mut [u8]) {
    match (region, u16::try_from(offset)) {
        (Region::Bar(bar), _) => device.read_bar(bar, offset, data),
        (Region::Config, Ok(offset)) => device.read_config(offset, data),
        _ => data.fill(0),
    }
}

fn write(device: &dyn PciFunction, region: Region, offset: u64, data: &[u8]) {
    match (region, u16::try_from(offset)) {
        (Region::Bar(bar), _) => device.write_bar(bar, offset, data),
        (Region::Config, Ok(offset)) => device.write_config(offset, data),
        _ => {}
    }
}
