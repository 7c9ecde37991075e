//! PCI functions in front of a VMM: the server side of the vfio-user protocol.
//!
//! Spec: QEMU, "docs/interop/vfio-user.rst", version 0.0. [`codec`] is bytes and meaning, [`Session`]
//! what one connection may ask and when; neither does I/O. [`Server`] listens on one socket for one
//! function, [`Port`] carries the function's interrupts and memory writes to whoever is connected,
//! and [`GuestMap`] is the memory that all functions of one guest share.
//!
//! Not modelled: migration, dirty page tracking, mapped regions and I/O descriptors of regions (the
//! client sends each access as a message), twin sockets, `REGION_WRITE_MULTI`.

pub mod codec;
mod connection;
mod guest;
mod inbox;
mod lines;
mod port;
mod requests;
mod server;
mod session;
mod socket;

#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;

pub use connection::{Disconnect, Function, serve};
pub use guest::{GuestMap, MapError, MapLimits, Space};
pub use inbox::{Inbox, Incoming};
pub use port::{Port, PortCounters};
pub use server::{BindError, Event, Observer, Server};
pub use session::{Action, Session, Shape, Violation};
