//! Arm SMMUv3, served.

use super::{Front, Names, Reason, Serve, Unit};
use crate::serve::args::{Kind, Plan};
use crate::serve::told::{Telling, Wish};
use endpoint::pci::Impossible;
use endpoint::{IommuFunction, Signals};
use iommu_walk::TableMem;
use iommu_walk::smmuv3::{Cause, Failure};
use iopf::Rid;
use iopf_scene::capture::{Capture, smmuv3_fault};
use std::sync::Arc;
use vfio_user_server::Port;
use viommu::smmuv3::{Config, Diagnostic, Smmuv3, StallModel};
use viommu_api::{MsiSink, Registers, WiredSink};

/// Interrupts of a unit that has no wires here: QEMU takes none from a function but its pin.
#[derive(Debug)]
struct Messages(Arc<Port>);

impl MsiSink for Messages {
    fn msi(&self, addr: u64, data: u32) {
        self.0.msi(addr, data);
    }
}

impl WiredSink for Messages {
    fn pulse(&self, _: u16) {}
}

/// Functions that stall go without ATS: a translation request is answered at once.
fn stalls(plan: &Plan) -> bool {
    plan.force_stall || !plan.stalls.is_empty()
}

impl Serve for Smmuv3 {
    const NAMES: Names = Names {
        arch: "smmuv3",
        program: "qemu-system-aarch64",
        machine: "virt,gic-version=3",
        // Linux uses an SMMU without being asked.
        kernel: None,
        queue: "command queue",
    };
    const FUNCTIONS: u8 = 1;
    const ANSWERS_BY_PASID: bool = true;
    const SIGNALS: Signals = Signals::Pin;
    const ENDPOINTS: &'static [(Kind, Rid)] = &[(Kind::Dma, Rid(0x20)), (Kind::Rng, Rid(0x30))];
    const TREE: bool = true;
    type Condition = (Cause, u8);

    fn config(plan: &Plan) -> Config {
        let mut config = Config {
            wires: false,
            ..Config::default()
        };
        if let Some(bits) = plan.event_queue {
            config.event_bits = bits;
        }
        if plan.force_stall {
            config.stall_model = StallModel::FORCED;
        }
        if plan.legacy {
            config.substream_bits = 0;
            config.ats = None;
        }
        config
    }

    fn sink(port: Arc<Port>) -> Arc<dyn WiredSink> {
        Arc::new(Messages(port))
    }

    fn front(_: &Config, _: &Arc<IommuFunction>) -> Result<Front, Impossible> {
        Ok(Front::Registers)
    }

    fn tell(unit: &Unit<Self>, config: &Config, plan: &Plan, functions: Vec<Rid>) -> Telling {
        Telling::Tree(Wish {
            size: unit.size(),
            unit: plan.unit,
            functions,
            stalls: plan.stalls.clone(),
            ats: config.ats.is_some() && !stalls(plan),
        })
    }

    fn condition(failure: &Failure) -> Self::Condition {
        (failure.cause, failure.level)
    }

    fn reason(failure: &Failure) -> Reason {
        Reason {
            code: failure.cause.reason().0,
            name: failure.cause.code(),
        }
    }

    fn capture<M: TableMem>(
        walk: &iommu_walk::smmuv3::Unit,
        memory: M,
        fault: &Diagnostic,
        note: &str,
    ) -> Option<Capture> {
        smmuv3_fault(walk, memory, fault, note)
    }
}
