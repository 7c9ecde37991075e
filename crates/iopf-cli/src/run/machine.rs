//! Guest memory, a unit, devices behind it and the guest that drives it.

use super::arch::{Scripted, Unit};
use endpoint::{Device, Memory, PhysicalMemory, Ports};
use iopf::Rid;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use testkit::{Interrupts, Ram};
use viommu::mem::GuestRam;
use viommu_api::Endpoint;

/// The result of anything that can go wrong with the scenery of a run, as opposed to what the run
/// is about.
pub(crate) type TestResult<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Everything but the workload.
pub(crate) struct Machine<X: Scripted> {
    pub(crate) ram: Arc<Ram>,
    pub(crate) unit: Arc<Unit<X>>,
    pub(crate) guest: X::Guest,
    devices: Mutex<Vec<Arc<Device>>>,
}

impl<X: Scripted> Machine<X> {
    /// Makes a unit in front of `bytes` of memory and boots the guest.
    pub(crate) fn boot(config: X::Config, setup: X::Setup, bytes: u64) -> TestResult<Arc<Self>> {
        let ram = Arc::new(Ram::new(bytes)?);
        let irqs = Arc::new(Interrupts::new());
        let parts = viommu::Setup {
            config,
            ram: GuestRam::new(ram.memory()),
        };
        let unit = Arc::new(Unit::<X>::new(parts, X::sink(irqs.clone()))?);
        let guest = X::guest(unit.clone(), ram.clone(), irqs, setup)?;
        Ok(Arc::new(Self {
            ram,
            unit,
            guest,
            devices: Mutex::new(Vec::new()),
        }))
    }

    /// Guest memory as devices reach it.
    pub(crate) fn memory(&self) -> Arc<dyn PhysicalMemory> {
        Arc::new(Memory(self.ram.memory()))
    }

    /// Puts a device behind the unit; it stays as long as the machine.
    pub(crate) fn device(&self, rid: Rid, config: endpoint::Config) -> Arc<Device> {
        let ports = Ports::of(self.unit.clone());
        let device = Arc::new(Device::new(rid, config, ports, self.memory()));
        let endpoint: Arc<dyn Endpoint> = device.clone();
        let endpoint: Weak<dyn Endpoint> = Arc::downgrade(&endpoint);
        self.unit.attach(rid, endpoint);
        let mut devices = self.devices.lock().unwrap_or_else(PoisonError::into_inner);
        devices.push(device.clone());
        device
    }
}
