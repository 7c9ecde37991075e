//! Page requests seen from both sides at once: `iopf serve` has the IOMMU and the device, `iopf run
//! --backend iommufd` in the guest answers what Linux hands it.
//!
//! [`both`] plays some, [`Both`] joins what the two have told, [`both_text`] shows it.

mod join;

pub use join::{Both, Fault, Seen, Side, text as both_text};

use super::server::Server;
use super::{DemoError, Stage, report};
use crate::guest::{Guest, GuestError, agent};
use crate::kernel::own;
use crate::qemu::root;
use serde_json::Value;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

/// How many faults are played: each makes the two clocks' bounds tighter.
const FAULTS: u64 = 64;

/// Where memory starts for the device.
const BASE: u64 = 0x1_0000_0000;

/// How long the program in the guest may take to attach.
const SOON: Duration = Duration::from_secs(60);

/// Plays it with the program `iopf` at this path as the server; the guest's is built here. What goes on
/// before is written to `out` as it happens; nothing is left behind, whatever happens.
///
/// # Errors
/// As [`DemoError`] says; the text is for a person.
pub fn both(iopf: &Path, out: &mut dyn Write) -> Result<Both, DemoError> {
    let mut stage = Stage {
        start: Instant::now(),
        out,
    };
    let kernel = own()?;
    stage.say(&format!("QEMU: {}", root::ensure()?.version()))?;
    stage.say(&format!("kernel: our own {}", kernel.version()))?;
    let program = agent::build("iopf-cli", "iopf", "guest").map_err(GuestError::Initramfs)?;
    let program = std::fs::read(program)?;
    stage.say("iopf is built for the guest, static")?;
    let mut server = Server::start(iopf, "dma@04.0")?;
    stage.say("iopf serve listens: a VT-d unit at 00:05.0, a DMA engine at 00:04.0 behind it")?;
    let guest = server.attach(
        Guest::builder(kernel)
            .append("intel_iommu=on,sm_on iommufd.allow_unsafe_interrupts=1")
            .file("/bin/iopf", program),
    )?;
    guest.probe()?;
    server.wait("bar", Duration::from_secs(20))?;
    let guest = guest.boot()?;
    let release = guest.hello().release.clone();
    stage.say(&format!("Linux {release} is up"))?;
    guest.must("bind 00:04.0 vfio-pci")?;
    let run = "start /bin/iopf run --backend iommufd --json --trace --device 0000:00:04.0 \
               --resolver memory --memory 1M";
    let pid = guest.must(run)?.remove(0);
    serving(&guest, &pid)?;
    stage.say("iopf run serves the engine: nothing is mapped for it")?;
    server.catch_up();
    let from = server.events.len();
    for page in 0..FAULTS {
        let at = BASE + 4096 * page;
        let lines = guest.must(&format!("dma 00:04.0 0 write {at:#x} 8 data=69"))?;
        if !lines.iter().any(|line| line.contains("state=done")) {
            return Err(DemoError::Story {
                why: format!("the device did not write at {at:#x}"),
                seen: lines.join("\n"),
            });
        }
    }
    stage.say(&format!(
        "the engine has written to {FAULTS} pages, one after the other"
    ))?;
    guest.must(&format!("signal {pid} 15"))?;
    let lines = guest.must(&format!("wait {pid}"))?;
    // What the device has done it has told before; the server's lines may still be on their way.
    let mut left = FAULTS;
    let mut at = from;
    while left > 0 {
        server.wait_step(report::FOUND, at, Duration::from_secs(10))?;
        let found = server.events[at..]
            .iter()
            .position(|event| event["step"] == report::FOUND);
        at += found.unwrap_or_default() + 1;
        left -= 1;
    }
    let event = |line: &String| serde_json::from_str(line).unwrap_or(Value::Null);
    let told: Vec<Value> = lines.iter().map(event).collect();
    let joined = Both::of(&release, &server.events[from..], &told);
    let both = joined.map_err(|why| DemoError::Story {
        why,
        seen: format!("{}\n{}", server.said(), lines.join("\n")),
    })?;
    drop(guest);
    let counts = server.stop()?;
    let of = |name: &str| counts[name].as_u64();
    if (of("page_requests"), of("responses"), of("faults")) != (Some(FAULTS), Some(FAULTS), Some(0))
    {
        return Err(DemoError::Story {
            why: format!("{FAULTS} page requests and answers and no fault, says the story"),
            seen: counts.to_string(),
        });
    }
    Ok(both)
}

/// Waits until the program has attached the device.
fn serving(guest: &Guest, pid: &str) -> Result<(), DemoError> {
    let deadline = Instant::now() + SOON;
    loop {
        let lines = guest.must(&format!("output {pid}"))?;
        if lines
            .iter()
            .any(|line| line.contains("\"event\":\"serving\""))
        {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(DemoError::Story {
                why: "iopf run does not serve".to_owned(),
                seen: lines.join("\n"),
            });
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
