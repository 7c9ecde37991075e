//! scratch
mod served;

use served::Served;
use testkit::guest::Guest;
use testkit::kernel::{Stock, stock};

#[test]
fn scratch() {
    let mut served = Served::start(&["--endpoint", "dsa@07.0", "--trace", "--verbose"]);
    let kernel = stock(Stock::Newest).unwrap();
    let mut builder = Guest::builder(kernel)
        .append("intel_iommu=on,sm_on setcpuid=movdir64b")
        .module("idxd")
        .verbose();
    let root = "/tmp/dsa-accel";
    for (to, from) in [
        (
            "/lib64/ld-linux-x86-64.so.2",
            "usr/lib64/ld-linux-x86-64.so.2",
        ),
        (
            "/lib/x86_64-linux-gnu/libc.so.6",
            "usr/lib/x86_64-linux-gnu/libc.so.6",
        ),
        (
            "/lib/x86_64-linux-gnu/libjson-c.so.5",
            "usr/lib/x86_64-linux-gnu/libjson-c.so.5",
        ),
        (
            "/lib/x86_64-linux-gnu/libaccel-config.so.1",
            "usr/lib/x86_64-linux-gnu/libaccel-config.so.1",
        ),
        (
            "/lib/x86_64-linux-gnu/libuuid.so.1",
            "usr/lib/x86_64-linux-gnu/libuuid.so.1",
        ),
        ("/bin/accel-config", "usr/bin/accel-config"),
    ] {
        builder = builder.file(to, std::fs::read(format!("{root}/{from}")).unwrap());
    }
    let guest = served.boot(builder);
    for line in guest.must("lspci").unwrap() {
        println!("{line}");
    }
    for command in [
        "exec /bin/accel-config config-wq dsa0/wq0.0 --group-id=0 --mode=dedicated --wq-size=16 --priority=10 --type=user --name=iopf --driver-name=user --block-on-fault=1 --max-transfer-size=16777216 --max-batch-size=32",
        "exec /bin/accel-config config-engine dsa0/engine0.0 --group-id=0",
        "exec /bin/accel-config enable-device dsa0",
        "exec /bin/accel-config enable-wq dsa0/wq0.0",
    ] {
        println!("{:?}", guest.run(command));
    }
    for scenario in [
        "operations",
        "anonymous",
        "stop",
        "tmpfs",
        "file",
        "fork",
        "huge",
        "dontneed",
        "read-only",
        "unmapped",
        "record",
        "large",
        "kill",
        "anonymous",
    ] {
        let t = std::time::Instant::now();
        served.catch_up();
        let before = served.events.len();
        println!("---- {scenario}");
        match guest.run(&format!("exec /init run dsa /dev/dsa/wq0.0 {scenario}")) {
            Ok(o) => {
                println!("= {}", o.status);
                for l in o.lines {
                    println!("  {l}");
                }
            }
            Err(e) => {
                println!("{e}");
                break;
            }
        }
        println!("   {:?}", t.elapsed());
        std::thread::sleep(std::time::Duration::from_millis(300));
        served.catch_up();
        let steps = served.events[before..]
            .iter()
            .filter(|e| e["event"] == "step")
            .count();
        println!(
            "   {steps} steps; {}",
            served.events[before..]
                .iter()
                .filter(|e| e["event"] != "step" && e["event"] != "counts")
                .map(|e| e.to_string())
                .collect::<Vec<_>>()
                .join("\n")
        );
    }
    for line in guest.must("dmesg").unwrap() {
        if line.contains("DMAR") || line.contains("idxd") || line.contains("00:07") {
            println!("{line}");
        }
    }
    served.catch_up();
    println!("{}", served.stop());
}
