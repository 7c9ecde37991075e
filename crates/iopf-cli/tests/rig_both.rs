//! Both halves of a page request at once, in one guest: our VT-d unit and DMA engine ask, Linux carries
//! the question, `iopf run --backend iommufd` answers it.
//!
//! The kernel is our own build: none of Debian's has iommufd.
#![expect(clippy::unwrap_used, reason = "a failure ends the test")]

mod served;

use serde_json::Value;
use served::Served;
use std::time::{Duration, Instant};
use testkit::guest::{Builder, Guest, agent};
use testkit::kernel::{Stock, own, stock};

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
    let mut pages = row["pages"].as_u64().unwrap();
    let mut groups = row["groups"].as_u64().unwrap();
    assert_eq!(groups, row["success"].as_u64().unwrap() + 1, "{report}");

    // One PASID of the device has the same memory, each page of it asked for once.
    let run = Run::start(
        &guest,
        "--resolver memory --memory 1M --backing /run/memory --pasid 7",
    );
    let said = dma(&guest, &format!("read {BASE:#x} 20 pasid=7"));
    assert!(has(&said, &text), "{said:?}");
    let said = dma(&guest, &format!("read {BASE:#x} 20"));
    assert!(has(&said, &text), "{said:?}");
    let report = run.stop();
    assert_eq!(
        (&report["mapped"], &report["devices"][0]["success"]),
        (&1.into(), &1.into()),
        "{report}"
    );
    pages += 1;
    groups += 1;

    // Another process decides, and the memory is there when the device retries.
    let run = Run::start(
        &guest,
        "--resolver forward --socket /run/decide --memory 1M --backing /run/memory",
    );
    let other = guest
        .must("spawn forwarded /run/decide 2")
        .unwrap()
        .remove(0);
    let said = dma(&guest, &format!("read {BASE:#x} 20"));
    assert!(has(&said, &text), "{said:?}");
    let said = dma(&guest, &format!("read {:#x} 8", BASE + (1 << 20)));
    assert!(
        has(&said, "code=response-invalid"),
        "mapping fails, whatever it says: {said:?}"
    );
    let said = guest.must(&format!("wait {other}")).unwrap();
    let addresses: Vec<_> = said
        .iter()
        .filter_map(|line| line.split(' ').next_back())
        .collect();
    assert_eq!(
        addresses,
        [format!("{BASE:#x}"), format!("{:#x}", BASE + (1 << 20))]
    );
    let report = run.stop();
    let row = &report["devices"][0];
    assert_eq!(
        (&row["success"], &row["invalid"], &row["by_resolver"]),
        (&1.into(), &1.into(), &2.into())
    );
    assert_eq!(report["clients"], serde_json::json!([1, 0, 0]), "{report}");
    pages += 2;
    groups += 2;

    drop(guest);
    let last = served.stop_keeping();
    assert_eq!(last["counts"]["page_requests"], pages, "{last}");
    assert_eq!(last["counts"]["responses"], groups, "{last}");
    assert_eq!(last["counts"]["faults"], 0, "{last}");
}

#[test]
fn denied_late_and_abandoned_groups_are_answered_invalid() {
    let (mut served, guest) = both("dma@04.0");
    let refused = |arguments: &str| {
        let output = guest
            .run(&format!("exec /bin/iopf run --backend iommufd {arguments}"))
            .unwrap();
        (output.status, output.lines.join("\n"))
    };
    // Before the device is vfio's.
    let (status, said) = refused("--device 0000:00:04.0");
    assert_eq!(status, 3, "{said}");
    assert!(
        said.contains("driven by nothing, not by vfio-pci; this binds it: echo vfio-pci >"),
        "{said}"
    );
    let (status, said) = refused("--device 0000:00:1e.0");
    assert_eq!(status, 3, "{said}");
    assert!(
        said.contains("0000:00:1e.0: no such PCI function"),
        "{said}"
    );
    guest.must("bind 00:04.0 vfio-pci").unwrap();

    // Who has it is named.
    let deny = Run::start(&guest, "--resolver deny");
    let (status, said) = refused("--device 0000:00:04.0");
    assert_eq!(status, 3, "{said}");
    assert!(
        said.contains(&format!("it is open in iopf (pid {})", deny.pid)),
        "{said}"
    );
    // Denied groups.
    let said = dma(&guest, &format!("read {BASE:#x} 8"));
    assert!(has(&said, "code=response-invalid"), "{said:?}");
    let report = deny.stop();
    assert_eq!(report["devices"][0]["invalid"], 1, "{report}");
    assert_eq!(report["devices"][0]["by_resolver"], 1, "{report}");

    // Addresses that the device can't have: interrupt messages go there.
    let (status, said) =
        refused("--device 0000:00:04.0 --resolver memory --iova 0xfee00000 --memory 4K");
    assert_eq!(status, 3, "{said}");
    assert!(
        said.contains("0xfee00000 to 0xfee00fff is not free; these devices can have 0x"),
        "{said}"
    );

    // Nobody connects, so the deadline answers.
    let late = Run::start(
        &guest,
        "--resolver forward --socket /run/faults --deadline 0.2 --fail-on-fault",
    );
    let said = dma(&guest, &format!("read {BASE:#x} 8"));
    assert!(has(&said, "code=response-invalid"), "{said:?}");
    late.signal(2);
    let (status, report) = late.end();
    let row = &report["devices"][0];
    assert_eq!(status, 1, "{report}");
    assert_eq!(
        (&row["by_deadline"], &row["by_resolver"]),
        (&1.into(), &0.into()),
        "{report}"
    );
    assert!(row["p50_ns"].as_u64().unwrap() >= 190_000_000, "{report}");

    // Looked at, then let go: the device's own state is in the output.
    let look = Run::start(&guest, "--resolver inspect --groups 1");
    let said = dma(&guest, &format!("read {BASE:#x} 8"));
    assert!(has(&said, "code=response-invalid"), "{said:?}");
    let seen = guest.run(&format!("wait {}", look.pid)).unwrap();
    assert_eq!(seen.status, 0, "{:?}", seen.lines);
    let stalled = seen
        .lines
        .iter()
        .find(|line| line.contains("\"event\":\"stalled\""))
        .unwrap();
    let stalled: Value = serde_json::from_str(stalled).unwrap();
    assert_eq!(stalled["pages"][0], format!("{BASE:#x}"), "{stalled}");
    // Bus Master is on, PRI and ATS are enabled.
    let look = &stalled["look"];
    assert_eq!(look["command"].as_u64().unwrap() & 4, 4, "{look}");
    assert_eq!(look["ats"].as_u64().unwrap() & 0x8000, 0x8000, "{look}");
    assert_eq!(look["pri"][0].as_u64().unwrap() & 1, 1, "{look}");

    // What is held at the stop is answered.
    let held = Run::start(&guest, "--resolver forward --socket /run/faults --trace");
    guest
        .must(&format!("dma 00:04.0 0 read {BASE:#x} 8 nowait"))
        .unwrap();
    held.wait("step", 2);
    let report = held.stop();
    assert_eq!(report["devices"][0]["by_departure"], 1, "{report}");

    // A process that dies in the middle of a fault: the kernel answers for it.
    served.catch_up();
    let mark = served.events.len();
    let dead = Run::start(&guest, "--resolver forward --socket /run/faults2 --trace");
    guest
        .must(&format!("dma 00:04.0 0 read {BASE:#x} 8 nowait"))
        .unwrap();
    dead.wait("step", 2);
    dead.signal(9);
    let (status, report) = dead.end();
    assert_eq!((status, &report), (137, &Value::Null));
    let deadline = Instant::now() + SOON;
    let answer = loop {
        served.catch_up();
        let mut events = served.events[mark..].iter();
        if let Some(answer) = events.find(|event| event["step"] == "group answered") {
            break answer.clone();
        }
        assert!(Instant::now() < deadline, "{}", served.transcript());
        std::thread::sleep(Duration::from_millis(20));
    };
    assert_eq!(answer["note"], "Invalid", "{answer}");
    drop(guest);
    let last = served.stop();
    assert_eq!(last["counts"]["page_requests"], 5, "{last}");
    assert_eq!(last["counts"]["responses"], 5, "{last}");
}

#[test]
fn a_device_without_page_requests_says_what_that_means() {
    let (mut served, guest) = both("rng@04.0");
    guest.must("bind 00:04.0 vfio-pci").unwrap();
    let output = guest
        .run("exec /bin/iopf run --backend iommufd --device 00:04.0")
        .unwrap();
    let said = output.lines.join("\n");
    assert_eq!(output.status, 3, "{said}");
    assert!(
        said.contains("VFIO_DEVICE_ATTACH_IOMMUFD_PT: No such device"),
        "{said}"
    );
    assert!(said.contains("The device has no PRI capability"), "{said}");
    drop(guest);
    served.stop_keeping();
}

#[test]
fn page_requests_are_told_by_both_sides_in_one_order() {
    let seen = testkit::demo::both(
        assert_cmd::cargo::cargo_bin!("iopf"),
        &mut std::io::stdout(),
    )
    .unwrap();
    let mut text = String::new();
    testkit::demo::both_text(&seen, &mut text).unwrap();
    println!("{text}");
    assert_eq!(seen.faults.len(), 64);
    for fault in &seen.faults {
        let place = |step: &str| {
            let at = fault.steps.iter().position(|seen| seen.step == step);
            at.unwrap_or_else(|| panic!("no {step}: {fault:?}"))
        };
        let order = [
            "translation request finds nothing",
            "page request queued for the guest",
            "fault read",
            "resolver decided",
            "IOAS_MAP done",
            "answer on its way",
            "group answered",
            "translation request finds the page",
        ];
        assert!(order.map(place).is_sorted(), "{fault:?}");
        assert!(
            place("interrupt message to the guest") < place("translation request finds the page")
        );
    }
    assert!(seen.offset.0 <= seen.offset.1);
}

#[test]
fn a_guest_without_iommufd_is_told_so() {
    let guest = Guest::builder(stock(Stock::Newest).unwrap());
    let guest = with_iopf(guest).boot().unwrap();
    let output = guest
        .run("exec /bin/iopf run --backend iommufd --device 0000:00:04.0")
        .unwrap();
    let said = output.lines.join("\n");
    assert_eq!(output.status, 3, "{said}");
    // Debian's configuration is a file in /boot, which this guest does not have.
    let release = &guest.hello().release;
    let expected = format!(
        "/dev/iommu: there is no iommufd: whether Linux {release} was built with CONFIG_IOMMUFD is not known \
         here: there is no /proc/config.gz and no /boot/config-{release}; modprobe iommufd tells"
    );
    assert!(said.contains(&expected), "{said}");
}
