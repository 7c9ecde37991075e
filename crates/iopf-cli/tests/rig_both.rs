//! Both halves of a page request at once, in one guest: our VT-d unit and DMA engine ask, Linux carries
//! the question, `iopf run --backend iommufd` answers it.
//!
//! The kernel is our own build: none of Debian's has iommufd.

mod served;

use serde_json::Value;
use served::Served;
use std::time::{Duration, Instant};
use testkit::guest::{Builder, Guest, agent};
use testkit::kernel::own;

/// How long something may take that is sure to come.
const SOON: Duration = Duration::from_secs(60);

/// What the guest's kernel is told.
const KERNEL: &str = "intel_iommu=on,sm_on iommufd.allow_unsafe_interrupts=1";

/// Where memory starts for the device.
const BASE: u64 = 0x1_0000_0000;

/// The start of every command.
const RUN: &str = "start /bin/iopf run --backend iommufd --json --device 0000:00:04.0";

fn with_iopf(guest: Builder) -> Builder {
    let program = agent::build("iopf-cli", "iopf", "guest").unwrap();
    guest.file("/bin/iopf", std::fs::read(program).unwrap())
}

/// A server with one DMA engine, and a guest in which vfio has it.
fn both(endpoint: &str) -> (Served, Guest) {
    let mut served = Served::start(&["--endpoint", endpoint, "--trace"]);
    let guest = Guest::builder(own().unwrap()).append(KERNEL);
    let guest = served.boot(with_iopf(guest));
    (served, guest)
}

/// A program in the guest.
struct Run<'a> {
    guest: &'a Guest,
    pid: String,
}

impl<'a> Run<'a> {
    /// Starts `iopf run` with these arguments, and waits until it serves.
    fn start(guest: &'a Guest, arguments: &str) -> Self {
        let pid = guest.must(&format!("{RUN} {arguments}")).unwrap().remove(0);
        let run = Self { guest, pid };
        run.wait("serving", 1);
        run
    }

    /// Every event so far.
    fn events(&self) -> Vec<Value> {
        let lines = self.guest.must(&format!("output {}", self.pid)).unwrap();
        let event =
            |line: &String| serde_json::from_str(line).unwrap_or(Value::String(line.clone()));
        lines.iter().map(event).collect()
    }

    /// Waits until there are so many events of this name.
    fn wait(&self, name: &str, count: usize) -> Vec<Value> {
        let deadline = Instant::now() + SOON;
        loop {
            let events = self.events();
            if events.iter().filter(|event| event["event"] == name).count() >= count {
                return events;
            }
            assert!(Instant::now() < deadline, "no {count} {name}: {events:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn signal(&self, number: i32) {
        self.guest
            .must(&format!("signal {} {number}", self.pid))
            .unwrap();
    }

    /// Waits for its end; its status and its report.
    fn end(self) -> (i32, Value) {
        let output = self.guest.run(&format!("wait {}", self.pid)).unwrap();
        let report = output
            .lines
            .iter()
            .rev()
            .find(|line| line.contains("\"event\":\"report\""));
        let report = report.map_or(Value::Null, |line| serde_json::from_str(line).unwrap());
        (output.status, report)
    }

    /// Stops it as a user would.
    fn stop(self) -> Value {
        self.signal(15);
        let (status, report) = self.end();
        assert_eq!(status, 0, "{report}");
        report
    }
}

/// Has the engine do a job to its end; what it says.
fn dma(guest: &Guest, job: &str) -> Vec<String> {
    guest.must(&format!("dma 00:04.0 0 {job}")).unwrap()
}

fn has(lines: &[String], word: &str) -> bool {
    lines
        .iter()
        .any(|line| line.split(' ').any(|other| other == word))
}

#[test]
fn a_device_gets_its_memory_on_demand_and_every_byte_is_right() {
    let (mut served, guest) = both("dma@04.0");
    guest.must("bind 00:04.0 vfio-pci").unwrap();
    guest
        .must("write /run/memory greetings from the process")
        .unwrap();
    let run = Run::start(
        &guest,
        "--resolver memory --memory 1M --backing /run/memory --trace",
    );
    // What the process has in its file, the device reads.
    let said = dma(&guest, &format!("read {BASE:#x} 26"));
    assert!(has(&said, "state=done"), "{said:?}");
    let hex: String = b"greetings from the process"
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    assert!(has(&said, &hex), "{said:?}");
    // What the device writes, the process has.
    let text: String = b"and from the device\n"
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    let said = dma(&guest, &format!("write {BASE:#x} 20 data={text}"));
    assert!(has(&said, "state=done"), "{said:?}");
    let file = guest.must("cat /run/memory 20").unwrap();
    assert_eq!(file[0], "and from the device");
    // Many pages, one after the other, by several groups.
    let said = dma(
        &guest,
        &format!("fill {:#x} 0x40000 pattern=0x5a5a", BASE + 0x1000),
    );
    assert!(has(&said, "state=done"), "{said:?}");
    let said = dma(
        &guest,
        &format!("verify {:#x} 0x40000 pattern=0x5a5a", BASE + 0x1000),
    );
    assert!(
        has(&said, "state=done") && has(&said, "check=0x0"),
        "{said:?}"
    );
    // Beyond the memory there is nothing.
    let said = dma(&guest, &format!("read {:#x} 8", BASE + (1 << 20)));
    assert!(has(&said, "code=response-invalid"), "{said:?}");
    let report = run.stop();
    let row = &report["devices"][0];
    assert_eq!(report["mapped"], 1 + 0x40, "{report}");
    assert_eq!(row["invalid"], 1, "{report}");
    assert_eq!(row["by_resolver"], row["groups"], "{report}");
    assert_eq!(report["unanswered"], 0, "{report}");
    drop(guest);
    let last = served.stop_keeping();
    assert_eq!(last["counts"]["page_requests"], row["pages"], "{last}");
    assert_eq!(last["counts"]["responses"], row["groups"], "{last}");
    assert_eq!(last["counts"]["faults"], 0, "{last}");
}
