//! Serving the queue: the one file of this device that names `virtio-queue`.

use super::Entropy;
use super::common::QueueSetup;
use std::ops::Deref;
use std::sync::atomic::Ordering;
use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemory};

/// Chains served in one go.
const CHAINS: usize = 16;

/// Random bytes that one chain gets at most; a device may give fewer than were asked for.
const LONGEST: usize = 64 << 10;

/// The rings or the buffers cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Broken;

/// What came of serving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Served {
    /// Buffers went back to the driver.
    pub(super) used: bool,
    /// There may be more.
    pub(super) more: bool,
}

/// The queue that a driver has set up; `None` for addresses that break the alignment rules.
pub(super) fn open(setup: &QueueSetup) -> Option<Queue> {
    let [table, driver, device] = setup.rings.map(GuestAddress);
    let mut queue = Queue::new(super::common::QUEUE_MAX).ok()?;
    queue.try_set_size(setup.size).ok()?;
    queue.try_set_desc_table_address(table).ok()?;
    queue.try_set_avail_ring_address(driver).ok()?;
    queue.try_set_used_ring_address(device).ok()?;
    queue.set_ready(true);
    Some(queue)
}

/// Fills buffers that the driver has offered, as long as it is not `stopped`: asked before each access
/// of up to 4 KiB. A chain that is stopped in the middle stays offered.
pub(super) fn serve<M>(
    queue: &mut Queue,
    memory: &M,
    entropy: &mut Entropy,
    stopped: &dyn Fn() -> bool,
) -> Result<Served, Broken>
where
    M: Clone + Deref,
    M::Target: GuestMemory + Sized,
{
    if !queue.is_valid::<M::Target>(memory) {
        return Err(Broken);
    }
    let mut used = false;
    for _ in 0..CHAINS {
        if stopped() {
            break;
        }
        let next = match queue.iter(memory.clone()) {
            Ok(mut chains) => chains.next(),
            Err(_) => return Err(Broken),
        };
        let Some(chain) = next else {
            // Nothing offered, or an entry that could not be read.
            let offered = queue.avail_idx::<M::Target>(memory, Ordering::Acquire);
            return match offered {
                Ok(index) if index.0 == queue.next_avail() => Ok(Served { used, more: false }),
                _ => Err(Broken),
            };
        };
        let head = chain.head_index();
        let mut written = 0usize;
        for descriptor in chain.writable() {
            let length = usize::try_from(descriptor.len()).unwrap_or(usize::MAX);
            let wanted = length.min(LONGEST - written);
            written += fill(&**memory, descriptor.addr(), wanted, entropy, stopped)?;
        }
        if stopped() {
            queue.set_next_avail(queue.next_avail().wrapping_sub(1));
            break;
        }
        let written = u32::try_from(written).unwrap_or(u32::MAX);
        queue
            .add_used::<M::Target>(memory, head, written)
            .map_err(|_| Broken)?;
        used = true;
    }
    Ok(Served { used, more: true })
}

/// Fills up to `wanted` bytes of a buffer and says how many.
fn fill<M: GuestMemory>(
    memory: &M,
    at: GuestAddress,
    wanted: usize,
    entropy: &mut Entropy,
    stopped: &dyn Fn() -> bool,
) -> Result<usize, Broken> {
    let mut done = 0usize;
    let mut page = [0; 4096];
    while done < wanted {
        let piece = page.len().min(wanted - done);
        let piece = page.get_mut(..piece).unwrap_or_default();
        entropy(piece);
        if stopped() {
            break;
        }
        let to = at.0.checked_add(done as u64).ok_or(Broken)?;
        memory
            .write_slice(piece, GuestAddress(to))
            .map_err(|_| Broken)?;
        done += piece.len();
    }
    Ok(done)
}
