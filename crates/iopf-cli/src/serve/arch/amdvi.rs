//! AMD-Vi, served.

use super::{Front, Names, Reason, Serve, Unit};
use crate::serve::args::Plan;
use crate::serve::ivrs::{self, Iommu};
use crate::serve::told::{Acpi, Telling};
use endpoint::pci::Impossible;
use endpoint::{AmdviCapability, AmdviFunction, IommuFunction};
use iommu_walk::TableMem;
use iommu_walk::amdvi::{Cause, Failure};
use iopf::Rid;
use iopf_scene::capture::{Capture, amdvi_fault};
use std::sync::Arc;
use vfio_user_server::Port;
use viommu::amdvi::{Amdvi, Config, Diagnostic};
use viommu_api::{IrqSink, Registers};

/// Offsets of the IOMMU Extended Feature Register and of the second one. 48882, "MMIO Registers".
const FEATURES: [u64; 2] = [0x30, 0x1a0];

/// What the unit says of its sizes: no table that it reads reserves bits of an address.
const PHYSICAL_BITS: u8 = 52;
const VIRTUAL_BITS: u8 = 64;

impl Serve for Amdvi {
    const NAMES: Names = Names {
        arch: "amdvi",
        program: "qemu-system-x86_64",
        machine: "q35",
        // Linux uses an AMD IOMMU without being asked.
        kernel: None,
        queue: "command buffer",
    };
    const FUNCTIONS: u8 = 2;
    // `amd_iommu_complete_ppr` gives none for a device without translations of its own (`identity`).
    const ANSWERS_BY_PASID: bool = false;
    type Condition = (Cause, u8);

    fn config(plan: &Plan) -> Config {
        let config = Config::default();
        if plan.legacy {
            Config {
                guest: None,
                page_requests: None,
                ..config
            }
        } else {
            config
        }
    }

    fn sink(port: Arc<Port>) -> Arc<dyn IrqSink> {
        port
    }

    fn front(config: &Config, registers: &Arc<IommuFunction>) -> Result<Front, Impossible> {
        let capability = AmdviCapability {
            iotlb: config.device_tlb,
            physical_bits: PHYSICAL_BITS,
            virtual_bits: VIRTUAL_BITS,
        };
        let function = AmdviFunction::new(registers.clone(), &capability)?;
        Ok(Front::Function(Arc::new(function)))
    }

    fn tell(unit: &Unit<Self>, config: &Config, plan: &Plan, functions: Vec<Rid>) -> Telling {
        let features = FEATURES.map(|at| {
            let mut bytes = [0; 8];
            unit.read(at, &mut bytes);
            u64::from_le_bytes(bytes)
        });
        let iommu = Iommu {
            place: plan.unit,
            capability: AmdviFunction::CAPABILITY,
            iotlb: config.device_tlb,
            features,
            physical_bits: PHYSICAL_BITS,
            virtual_bits: VIRTUAL_BITS,
            functions,
        };
        Telling::Acpi(Acpi {
            signature: ivrs::SIGNATURE,
            revision: ivrs::REVISION,
            file: "ivrs.table",
            body: Box::new(move |base| iommu.table(base)),
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
        walk: &iommu_walk::amdvi::Unit,
        memory: M,
        fault: &Diagnostic,
        note: &str,
    ) -> Option<Capture> {
        amdvi_fault(walk, memory, fault, note)
    }
}
