//! The functions behind the unit.

use super::arch::{Serve, Unit};
use super::args::Kind;
use super::worker::Steps;
use crate::exit::Stop;
use endpoint::dma_engine::{DmaEngine, Setup};
use endpoint::dsa::Dsa;
use endpoint::virtio_rng::{Entropy, VirtioRng};
use endpoint::{Stats, Step};
use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use vfio_user_server::Space;
use viommu::vm_memory as behind;
use viommu_api::{Endpoint, Interrupts, PciFunction};

/// A function behind the unit.
pub(super) trait Behind: PciFunction + Steps {
    /// What its data path has done. A function without a device TLB counts bytes only.
    fn stats(&self) -> Stats;
}

impl Steps for DmaEngine {
    fn step(&self, now: Duration) -> Step {
        Self::step(self, now)
    }
}

impl Behind for DmaEngine {
    fn stats(&self) -> Stats {
        Self::stats(self)
    }
}

impl Steps for Dsa {
    fn step(&self, now: Duration) -> Step {
        Self::step(self, now)
    }
}

impl Behind for Dsa {
    fn stats(&self) -> Stats {
        Self::stats(self)
    }
}

/// An entropy device, with a count of what it gave.
struct Rng<X: Serve> {
    function: VirtioRng<behind::Space<Space, Unit<X>>>,
    given: Arc<AtomicU64>,
}

impl<X: Serve> PciFunction for Rng<X> {
    fn bar_size(&self, bar: u8) -> u64 {
        self.function.bar_size(bar)
    }
    fn interrupts(&self) -> Interrupts {
        self.function.interrupts()
    }
    fn read_config(&self, offset: u16, data: &mut [u8]) {
        self.function.read_config(offset, data);
    }
    fn write_config(&self, offset: u16, data: &[u8]) {
        self.function.write_config(offset, data);
    }
    fn read_bar(&self, bar: u8, offset: u64, data: &mut [u8]) {
        self.function.read_bar(bar, offset, data);
    }
    fn write_bar(&self, bar: u8, offset: u64, data: &[u8]) {
        self.function.write_bar(bar, offset, data);
    }
    fn reset(&self) {
        self.function.reset();
    }
}

impl<X: Serve> Steps for Rng<X> {
    fn step(&self, _: Duration) -> Step {
        self.function.step()
    }
}

impl<X: Serve> Behind for Rng<X> {
    fn stats(&self) -> Stats {
        Stats {
            bytes: self.given.load(Ordering::Relaxed),
            ..Stats::default()
        }
    }
}

/// Bytes from a file, over and over; zeros once it cannot be read any more.
fn entropy(path: &Path, given: Arc<AtomicU64>) -> io::Result<Entropy> {
    let mut file = File::open(path)?;
    Ok(Box::new(move |mut into: &mut [u8]| {
        given.fetch_add(into.len() as u64, Ordering::Relaxed);
        let mut rewound = false;
        while !into.is_empty() {
            match file.read(into) {
                Ok(0) if rewound => break,
                Ok(0) => rewound = file.rewind().is_ok(),
                Ok(count) => {
                    rewound = false;
                    into = into.split_at_mut(count).1;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        into.fill(0);
    }))
}

/// What a function is made of beside its setup.
pub(super) struct Around<'a, X: Serve> {
    pub(super) unit: &'a Arc<Unit<X>>,
    pub(super) space: Space,
    /// Where random bytes come from.
    pub(super) entropy: &'a Path,
}

/// A function, and its ear for the invalidation queue if it has a device TLB.
pub(super) type Made = (Arc<dyn Behind>, Option<Arc<dyn Endpoint>>);

/// Makes a function of `kind`.
pub(super) fn make<X: Serve>(
    kind: Kind,
    setup: Setup,
    around: &Around<'_, X>,
) -> Result<Made, Stop> {
    Ok(match kind {
        Kind::Dma => {
            let engine = Arc::new(DmaEngine::new(setup).map_err(Stop::host)?);
            (engine.clone(), Some(engine))
        }
        Kind::Dsa | Kind::DeafDsa => {
            let dsa = Arc::new(Dsa::new(setup).map_err(Stop::host)?);
            dsa.set_deaf(kind == Kind::DeafDsa);
            (dsa.clone(), Some(dsa))
        }
        Kind::Rng => {
            let given = Arc::new(AtomicU64::new(0));
            let entropy = entropy(around.entropy, given.clone()).map_err(|error| {
                Stop::host(format_args!("{}: {error}", around.entropy.display()))
            })?;
            let place = behind::Behind::new(around.unit.clone(), setup.rid, None);
            let memory = behind::Space::new(around.space.clone(), place);
            let signals = setup.config.signals;
            let function = VirtioRng::new(memory, entropy, setup.irq, setup.waker, signals)
                .map_err(Stop::host)?;
            (Arc::new(Rng { function, given }), None)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entropy_is_the_file_over_and_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bytes");
        std::fs::write(&path, [1, 2, 3]).unwrap();
        let given = Arc::new(AtomicU64::new(0));
        let mut source = entropy(&path, given.clone()).unwrap();
        let mut bytes = [0; 7];
        source(&mut bytes);
        assert_eq!(bytes, [1, 2, 3, 1, 2, 3, 1]);
        assert_eq!(given.load(Ordering::Relaxed), 7);
        std::fs::write(&path, []).unwrap();
        let mut source = entropy(&path, given).unwrap();
        source(&mut bytes);
        assert_eq!(bytes, [0; 7], "an empty file has nothing to give");
    }
}
