//! What the agent does as process 1.

use crate::reply::Failure;
use crate::{commands, serve, sys};
use rustix::mount::{MountFlags, mount};
use std::fs::{self, File, OpenOptions};
use std::io::{BufReader, Write as _};

/// File systems: what, where, type.
const MOUNTS: [(&str, &str, &str); 8] = [
    ("proc", "/proc", "proc"),
    ("sysfs", "/sys", "sysfs"),
    ("devtmpfs", "/dev", "devtmpfs"),
    ("devpts", "/dev/pts", "devpts"),
    ("tmpfs", "/dev/shm", "tmpfs"),
    ("tmpfs", "/tmp", "tmpfs"),
    ("tmpfs", "/run", "tmpfs"),
    ("debugfs", "/sys/kernel/debug", "debugfs"),
];

/// What to load: a file a line, in order, with its parameters.
const MODULES: &str = "/etc/iopf/modules";

/// The serial port with the command channel: the second 16550 of a PC, else the second PL011.
const CHANNEL: &str = if cfg!(target_arch = "x86_64") {
    "/dev/ttyS1"
} else {
    "/dev/ttyAMA1"
};

/// Sets the guest up and serves commands for as long as it runs.
pub(crate) fn run() -> ! {
    let mut complaints = prepare();
    complaints.extend(modules());
    let channel = OpenOptions::new().read(true).write(true).open(CHANNEL);
    let why = match channel {
        Ok(channel) => talk(channel, &complaints),
        Err(error) => Failure::from(error).at(CHANNEL),
    };
    // Process 1 must not end. The machine goes down instead, and the reason is in its log.
    log(&why.text);
    commands::power_off()
}

fn talk(mut channel: File, complaints: &[String]) -> Failure {
    let said = sys::make_raw(&channel)
        .and_then(|()| Ok(channel.write_all(hello(complaints).as_bytes())?))
        .and_then(|()| Ok(channel.try_clone()?))
        .and_then(|reader| Ok(serve::serve(BufReader::new(reader), &channel)?));
    match said {
        Ok(()) => Failure::new("the command channel was closed"),
        Err(failure) => failure.at(CHANNEL),
    }
}

/// The line that tells the host that the guest is up.
fn hello(complaints: &[String]) -> String {
    let release = rustix::system::uname();
    let uptime = fs::read_to_string("/proc/uptime").unwrap_or_default();
    let mut text = format!(
        "* hello release={} uptime={}",
        release.release().to_string_lossy(),
        uptime.split(' ').next().unwrap_or_default()
    );
    if !complaints.is_empty() {
        text += &format!(" failed={}", complaints.join("; "));
    }
    text + "\n"
}

fn prepare() -> Vec<String> {
    let mut complaints = Vec::new();
    for (what, place, kind) in MOUNTS {
        let _ = fs::create_dir_all(place);
        let mounted = mount(what, place, kind, MountFlags::empty(), None);
        match mounted {
            Ok(()) | Err(rustix::io::Errno::BUSY) => {}
            Err(error) => complaints.push(format!("mounting {place}: {error}")),
        }
    }
    // Pinned memory is what devices work on.
    let unlimited = rustix::process::Rlimit {
        current: None,
        maximum: None,
    };
    let _ = rustix::process::setrlimit(rustix::process::Resource::Memlock, unlimited);
    complaints
}

fn modules() -> Vec<String> {
    let list = fs::read_to_string(MODULES).unwrap_or_default();
    let load = |line: &str| {
        let (file, parameters) = line.split_once(' ').unwrap_or((line, ""));
        sys::load_module(file, parameters)
            .err()
            .map(|failure| format!("loading {file}: {}", failure.text))
    };
    list.lines().filter_map(load).collect()
}

/// Puts a line into the kernel's log.
fn log(text: &str) {
    let kmsg = OpenOptions::new().write(true).open("/dev/kmsg");
    let _ = kmsg.and_then(|mut kmsg| kmsg.write_all(format!("<2>iopf-guest: {text}").as_bytes()));
}
