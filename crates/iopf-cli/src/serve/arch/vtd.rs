//! Intel VT-d, served.

use super::{Front, Names, Reason, Serve, Unit};
use crate::serve::args::Plan;
use crate::serve::dmar;
use crate::serve::told::{Acpi, Telling};
use endpoint::IommuFunction;
use endpoint::pci::Impossible;
use iommu_walk::TableMem;
use iommu_walk::vtd::{Cause, Failure};
use iopf::Rid;
use iopf_scene::capture::{Capture, vtd_fault};
use std::sync::Arc;
use vfio_user_server::Port;
use viommu::vtd::{Config, Diagnostic, Vtd};
use viommu_api::MsiSink;

impl Serve for Vtd {
    const NAMES: Names = Names {
        arch: "vtd",
        program: "qemu-system-x86_64",
        machine: "q35",
        kernel: Some("intel_iommu=on"),
        queue: "invalidation queue",
    };
    const FUNCTIONS: u8 = 1;
    const ANSWERS_BY_PASID: bool = true;

    fn config(plan: &Plan) -> Config {
        let config = Config::default();
        if plan.legacy {
            Config {
                scalable: None,
                ..config
            }
        } else {
            config
        }
    }

    fn sink(port: Arc<Port>) -> Arc<dyn MsiSink> {
        port
    }

    fn front(_: &Config, _: &Arc<IommuFunction>) -> Result<Front, Impossible> {
        Ok(Front::Registers)
    }

    fn tell(_: &Unit<Self>, config: &Config, _: &Plan, functions: Vec<Rid>) -> Telling {
        let host_width = config.host_width;
        Telling::Acpi(Acpi {
            signature: dmar::SIGNATURE,
            revision: 1,
            file: "dmar.table",
            body: Box::new(move |base| dmar::body(base, host_width, &functions)),
        })
    }

    type Condition = (Cause, u8);

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
        walk: &iommu_walk::vtd::Unit,
        memory: M,
        fault: &Diagnostic,
        note: &str,
    ) -> Option<Capture> {
        vtd_fault(walk, memory, fault, note)
    }
}
