//! `iopf serve` under test, and guests in front of it.
#![allow(dead_code, reason = "each test binary uses its own part of this")]

use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use testkit::guest::{Builder, Guest};

/// How long an event may take that is sure to come.
const SOON: Duration = Duration::from_secs(20);

/// An arm64 processor whose addresses are not wider than the unit's: with others Linux shares no address
/// space with devices, and 7.3 crashes where one of them may stall (`evtq.iopf` is not there).
pub(crate) const NARROW: [&str; 2] = ["-cpu", "neoverse-n1"];

/// A running server. It is killed when it goes out of scope.
pub(crate) struct Served {
    child: Child,
    dir: Arc<TempDir>,
    lines: Receiver<Value>,
    /// Every event so far.
    pub(crate) events: Vec<Value>,
    /// The address of the BAR is known to be in the table.
    placed: bool,
    /// The IOMMU comes behind the other functions on QEMU's command line.
    unit_last: bool,
}

impl Served {
    /// Starts a server with these arguments, a folder of its own and a folder for captures.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        Self::start_in(Arc::new(dir), arguments)
    }

    /// As [`start`](Self::start), for a guest that is told of the unit by its device tree if the
    /// architecture is one of those.
    pub(crate) fn start_before(guest: &Builder, arguments: &[&str]) -> Self {
        if !arguments.contains(&"smmuv3") {
            return Self::start(arguments);
        }
        let blob = guest.describe().expect("a machine with a tree");
        let tree = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(tree.path(), blob).expect("it is ours");
        let tree = tree.path().to_str().expect("a path");
        // It is read before the server is ready.
        Self::start(&[arguments, &["--dtb-in", tree]].concat())
    }

    /// As [`start`](Self::start), in a folder that another server may have used.
    pub(crate) fn start_in(dir: Arc<TempDir>, arguments: &[&str]) -> Self {
        let mut child = Command::new(assert_cmd::cargo::cargo_bin!("iopf"))
            .args(["serve", "--json", "--dir"])
            .arg(dir.path())
            .arg("--capture-dir")
            .arg(dir.path().join("captures"))
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("iopf starts");
        let out = BufReader::new(child.stdout.take().expect("it is piped"));
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                let value = serde_json::from_str(&line).unwrap_or(Value::String(line));
                if sender.send(value).is_err() {
                    return;
                }
            }
        });
        let mut served = Self {
            child,
            dir,
            lines,
            events: Vec::new(),
            placed: false,
            unit_last: false,
        };
        served.wait("ready", |_| true);
        served
    }

    /// The server's process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The folder of sockets and table.
    pub(crate) fn folder(&self) -> Arc<TempDir> {
        self.dir.clone()
    }

    /// Kills it, as a crash would.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ends");
    }

    /// The folder of captures.
    pub(crate) fn captures(&self) -> PathBuf {
        self.dir.path().join("captures")
    }

    /// Takes in what was said meanwhile.
    pub(crate) fn catch_up(&mut self) {
        self.events.extend(self.lines.try_iter());
    }

    /// Waits for an event of this name that `wanted` likes, among those to come.
    pub(crate) fn wait(&mut self, name: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + SOON;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(event) => {
                    self.events.push(event.clone());
                    if event["event"] == name && wanted(&event) {
                        return event;
                    }
                }
                Err(why @ (RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected)) => {
                    panic!("no {name}: {why}; events so far:\n{}", self.transcript());
                }
            }
        }
    }

    /// The events so far, one a line.
    pub(crate) fn transcript(&self) -> String {
        self.events
            .iter()
            .map(|event| format!("{event}\n"))
            .collect()
    }

    fn ready(&self) -> &Value {
        self.events
            .iter()
            .find(|event| event["event"] == "ready")
            .expect("it was waited for")
    }

    /// Puts the IOMMU behind the other functions on QEMU's command line from now on: QEMU resets
    /// functions in the opposite order.
    pub(crate) fn put_unit_last(&mut self) {
        self.unit_last = true;
    }

    /// The architecture that it serves.
    pub(crate) fn arch(&self) -> &str {
        self.ready()["arch"].as_str().expect("a name")
    }

    /// What Linux wants on its command line, so that processes can share their memory with devices.
    pub(crate) fn sva_words(&self) -> &'static str {
        match self.arch() {
            "vtd" => "intel_iommu=on,sm_on",
            "amdvi" | "smmuv3" => "",
            other => panic!("what does {other} want?"),
        }
    }

    /// Gives a guest the functions and the table.
    pub(crate) fn attach(&self, mut guest: Builder) -> Builder {
        let ready = self.ready();
        let mut functions: Vec<_> = ready["functions"]
            .as_array()
            .expect("a list")
            .iter()
            .collect();
        if self.unit_last {
            let of_the_unit = ["iommu", "registers"];
            let own = |function: &&&Value| of_the_unit.iter().any(|k| function["kind"] == **k);
            let count = functions.iter().filter(own).count();
            functions.rotate_left(count);
        }
        for function in functions {
            let (place, socket) = (&function["function"], &function["socket"]);
            let place = place.as_str().expect("a place").trim_start_matches("00:");
            guest = guest.device(Path::new(socket.as_str().expect("a path")), place);
        }
        if let Some(table) = self.said_to_qemu("-acpitable") {
            return guest.arguments(["-acpitable", table]);
        }
        let tree = self.said_to_qemu("-dtb").expect("a table or a tree");
        let starter = self.said_to_qemu("-kernel").expect("a program");
        let kernel = self
            .said_to_qemu("-device")
            .expect("the kernel comes first");
        let at = kernel
            .split(',')
            .find_map(|word| word.strip_prefix("addr=0x"));
        let at = u64::from_str_radix(at.expect("an address"), 16).expect("in hex");
        guest
            .device_tree(std::fs::read(tree).expect("it was written"))
            .starter(Path::new(starter), at)
    }

    /// What follows `word` for the first time on the QEMU command line that it printed.
    fn said_to_qemu(&self, word: &str) -> Option<&str> {
        let words = self.ready()["qemu"].as_array().expect("a list");
        let mut words = words.iter().filter_map(Value::as_str);
        words.find(|other| *other == word)?;
        words.next()
    }

    /// Boots a guest in front of it. The first time, firmware runs alone before, so that the table is
    /// right when the guest reads it; with a device tree there is no firmware.
    pub(crate) fn boot(&mut self, guest: Builder) -> Guest {
        let guest = self.attach(guest);
        if !self.placed && self.said_to_qemu("-acpitable").is_some() {
            guest.probe().expect("firmware comes up");
            self.wait("bar", |_| true);
            self.placed = true;
        }
        let booted = guest.boot();
        self.catch_up();
        booted.unwrap_or_else(|error| panic!("{error}\nthe server said:\n{}", self.transcript()))
    }

    /// Stops it as a user would, and gives its last word.
    pub(crate) fn stop(mut self) -> Value {
        self.stop_keeping()
    }

    /// As [`stop`](Self::stop); what it said can still be looked at.
    pub(crate) fn stop_keeping(&mut self) -> Value {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it runs");
        let last = self.wait("stopped", |_| true);
        let status = self.child.wait().expect("it ends");
        assert!(status.success(), "{status}\n{}", self.transcript());
        last
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // It may have been stopped already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
