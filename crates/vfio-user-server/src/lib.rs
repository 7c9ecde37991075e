//! PCI functions in front of a VMM: the server side of the vfio-user protocol.
//!
//! Spec: QEMU, "docs/interop/vfio-user.rst", version 0.0. [`codec`] is bytes and meaning, [`Session`]
//! what one connection may ask and when; neither does I/O. [`Server`] listens on one socket for one
//! function, [`Port`] carries the function's interrupts and memory writes to whoever is connected,
//! and [`GuestMap`] is the memory that all functions of one guest share.
//!
//! ```no_run
//! use std::sync::Arc;
//! use vfio_user_server::{Function, GuestMap, MapLimits, Port, Server, codec::Limits};
//! # fn example(device: Arc<dyn viommu_api::PciFunction>) -> Result<(), Box<dyn std::error::Error>> {
//! let guest = Arc::new(GuestMap::new(MapLimits::default()));
//! let port = Arc::new(Port::new());
//! let function = Function {
//!     device,
//!     port: port.clone(),   // an `IrqSink` and an `MsiSink`, for the function and its IOMMU
//!     guest: guest.clone(), // `guest.space()` for the IOMMU, `PhysicalMemory` for functions
//!     observer: Arc::new(()),
//!     limits: Limits::default(),
//! };
//! let server = Server::bind("endpoint.sock".as_ref(), function)?;
//! // qemu-system-x86_64 -machine q35,memory-backend=m
//! //   -object memory-backend-memfd,id=m,size=512M,share=on
//! //   -device '{"driver":"vfio-user-pci","socket":{"type":"unix","path":"endpoint.sock"}}'
//! server.stop();
//! # Ok(())
//! # }
//! ```
//!
//! Not modelled: migration, dirty page tracking, mapped regions and I/O descriptors of regions (the
//! client sends each access as a message), twin sockets, `REGION_WRITE_MULTI`.
#![forbid(unsafe_code)]

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
