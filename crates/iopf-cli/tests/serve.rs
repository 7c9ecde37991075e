//! `iopf serve` without a guest: arguments, files, the first and the last word.

use assert_cmd::Command;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};
use vfio_user_server::codec::{Request, encode_request};

fn iopf(arguments: &[&str]) -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("iopf"));
    command.arg("serve").args(arguments);
    command
}

/// What it says on standard error before it ends with `status`.
fn refused(arguments: &[&str], status: i32) -> String {
    let output = iopf(arguments).assert().code(status).get_output().clone();
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn arguments_that_make_no_sense_are_named() {
    for (arguments, said) in [
        (&["--endpoint", "dma"][..], "names no place: write dma@04.0"),
        (&["--endpoint", "nic@4"], "there is no endpoint \"nic\""),
        (&["--endpoint", "dma@20"], "\"20\" is no place on bus 0"),
        (&["--endpoint", "dma@0"], "\"0\" is no place on bus 0"),
        (&["--endpoint", "dma@5"], "two functions at 05.0"),
        (
            &["--endpoint", "dma@04.1"],
            "a guest finds 04.1 only beside a function 0",
        ),
        (&["--bar", "0xfebf0100"], "write a page's address in hex"),
        (
            &["--arch", "amdvi", "--slot", "05.1"],
            "the IOMMU takes 2 functions: 05.1 is no function 0",
        ),
        (
            &["--arch", "amdvi", "--endpoint", "dma@05.1"],
            "two functions at 05.1",
        ),
        (
            &["--force-stall"],
            "--force-stall is for smmuv3, not for vtd",
        ),
        (
            &["--arch", "amdvi", "--dtb-in", "/no/such"],
            "--dtb-in is for smmuv3, not for amdvi",
        ),
        (
            &["--arch", "smmuv3", "--endpoint", "dsa@07.0"],
            "a dsa has no interrupt but messages",
        ),
        (
            &[
                "--arch", "smmuv3", "--dtb-in", "/no/such", "--stall", "07.0",
            ],
            "no function of ours is at 07.0",
        ),
        (&["--arch", "smmuv3", "--stall", "04.0"], "--dtb-in <FILE>"),
    ] {
        let text = refused(arguments, 2);
        assert!(text.contains(said), "{arguments:?}: {text}");
    }
}

#[test]
fn what_the_host_refuses_is_named() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("file");
    std::fs::write(&file, "").expect("a file");
    let file = file.to_str().expect("a path");
    let text = refused(&["--dir", file], 3);
    assert!(text.contains("cannot make the folder"), "{text}");
    let fine = dir.path().join("fine");
    let fine = fine.to_str().expect("a path");
    let text = refused(&["--dir", fine, "--entropy", "/no/such/file"], 3);
    assert!(text.contains("/no/such/file: No such file"), "{text}");
    let text = refused(&["--dir", fine, "--capture-dir", file], 3);
    assert!(text.contains("--capture-dir: "), "{text}");
    let tree = |tree: &str, status| {
        refused(
            &["--dir", fine, "--arch", "smmuv3", "--dtb-in", tree],
            status,
        )
    };
    assert!(tree("/no/such/tree", 3).contains("/no/such/tree: No such file"));
    assert!(tree(file, 4).contains("no device tree: "));
}

#[test]
fn a_socket_that_somebody_listens_on_is_left_alone() {
    let dir = tempfile::tempdir().expect("a folder");
    let socket = dir.path().join("iommu-05.0.sock");
    let _taken = UnixListener::bind(&socket).expect("a socket");
    let text = refused(&["--dir", dir.path().to_str().expect("a path")], 3);
    assert!(
        text.contains("another server listens on this socket"),
        "{text}"
    );
    assert!(socket.exists());
}

/// Starts it in `dir`, reads `lines` lines, asks it to stop, and gives everything it said.
fn told_to_stop(dir: &Path, arguments: &[&str], lines: usize) -> Vec<String> {
    let mut child = std::process::Command::new(assert_cmd::cargo::cargo_bin!("iopf"))
        .args(["serve", "--dir"])
        .arg(dir)
        .args(arguments)
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut out = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    let mut said: Vec<String> = out.by_ref().take(lines).map_while(Result::ok).collect();
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it runs");
    said.extend(out.map_while(Result::ok));
    assert!(child.wait().expect("it ends").success());
    said
}

#[test]
fn it_says_how_to_start_qemu_and_leaves_no_socket_behind() {
    let dir = tempfile::tempdir().expect("a folder");
    let said = told_to_stop(dir.path(), &["--endpoint", "dma@04.0"], 6).join("\n");
    for part in [
        "05.0  iommu",
        "04.0  dma",
        "-acpitable sig=DMAR,rev=1,",
        "\"driver\":\"vfio-user-pci\"",
        "intel_iommu=on",
        "stopped: 0 bytes moved, 0 faults",
    ] {
        assert!(said.contains(part), "{said}");
    }
    let left: Vec<_> = std::fs::read_dir(dir.path())
        .expect("the folder stays")
        .flatten()
        .map(|entry| entry.file_name())
        .filter(|name| name.to_string_lossy().ends_with(".sock"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
    // Host address width 52, less one; one unit of 16 bytes and a scope of 8; the guessed base.
    let table = std::fs::read(dir.path().join("dmar.table")).expect("a table");
    assert_eq!(table.len(), 12 + 24);
    assert_eq!((table[0], table[14]), (51, 24));
    assert_eq!(table[20..28], 0xfebf_0000u64.to_le_bytes());
}

#[test]
fn an_amd_iommu_is_two_functions_and_an_ivrs_table() {
    let dir = tempfile::tempdir().expect("a folder");
    let arguments = ["--arch", "amdvi", "--endpoint", "dma@04.0"];
    let said = told_to_stop(dir.path(), &arguments, 6).join("\n");
    for part in [
        "05.0  iommu",
        "05.1  registers",
        "-acpitable sig=IVRS,rev=2,",
        "\"addr\":\"05.0\",\"driver\":\"vfio-user-pci\",\"multifunction\":true",
        "stopped: 0 bytes moved, 0 faults",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(!said.contains("kernel parameters"), "{said}");
    // 12 bytes of header, a block of type 10h (24) and one of 11h (40) with an entry (4) each.
    let table = std::fs::read(dir.path().join("ivrs.table")).expect("a table");
    assert_eq!(table.len(), 12 + 28 + 44);
    assert_eq!((table[12], table[40]), (0x10, 0x11));
    for block in [12, 40] {
        assert_eq!(table[block + 4..block + 6], [0x28, 0], "00:05.0");
        assert_eq!(
            table[block + 8..block + 16],
            0xfebf_0000u64.to_le_bytes(),
            "the guessed base"
        );
    }
    // The features that Linux must find in the table: PPR, GT, GA, GIo, EPH; five-level guest tables.
    let features = u64::from_le_bytes(table[64..72].try_into().expect("eight bytes"));
    for bit in [1, 4, 7, 12, 48, 50] {
        assert_ne!(features & 1 << bit, 0, "bit {bit} of {features:#x}");
    }
}

/// A device tree as QEMU's `virt` machine has it, as far as the server looks at it.
fn virt() -> Vec<u8> {
    use dtoolkit::model::{DeviceTree, DeviceTreeNode, DeviceTreeProperty};
    fn set(node: &mut DeviceTreeNode, name: &str, cells: &[u32]) {
        let value: Vec<u8> = cells.iter().flat_map(|cell| cell.to_be_bytes()).collect();
        node.add_property(DeviceTreeProperty::new_unchecked(name, value));
    }
    fn text(node: &mut DeviceTreeNode, name: &str, value: &str) {
        let value = [value.as_bytes(), &[0]].concat();
        node.add_property(DeviceTreeProperty::new_unchecked(name, value));
    }
    let mut tree = DeviceTree::new();
    set(&mut tree.root, "#address-cells", &[2]);
    set(&mut tree.root, "#size-cells", &[2]);
    let mut memory = DeviceTreeNode::new_unchecked("memory@40000000");
    text(&mut memory, "device_type", "memory");
    set(&mut memory, "reg", &[0, 0x4000_0000, 0, 0x2000_0000]);
    let mut its = DeviceTreeNode::new_unchecked("its@8080000");
    set(&mut its, "phandle", &[0x8003]);
    set(&mut its, "#msi-cells", &[1]);
    let mut pcie = DeviceTreeNode::new_unchecked("pcie@10000000");
    text(&mut pcie, "compatible", "pci-host-ecam-generic");
    set(&mut pcie, "reg", &[0x40, 0x1000_0000, 0, 0x1000_0000]);
    set(&mut pcie, "msi-map", &[0, 0x8003, 0, 0x1_0000]);
    let window = [0x200_0000, 0, 0x1000_0000, 0, 0x1000_0000, 0, 0x2eff_0000];
    set(&mut pcie, "ranges", &window);
    for node in [memory, its, pcie] {
        tree.root.add_child(node);
    }
    tree.to_dtb()
}

#[test]
fn an_smmu_is_a_node_in_a_device_tree_and_a_program_that_places_its_registers() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = |name: &str| dir.path().join(name).to_str().expect("a path").to_owned();
    std::fs::write(file("virt.dtb"), virt()).expect("a file");
    // An arm64 Image as far as it is looked at: its magic number at byte 56.
    let mut image = vec![0; 64];
    image[56..60].copy_from_slice(b"ARM\x64");
    std::fs::write(file("Image"), image).expect("a file");
    let (tree, image) = (file("virt.dtb"), file("Image"));
    let arguments = ["--arch", "smmuv3", "--dtb-in", &tree, "--kernel", &image];
    let said = told_to_stop(dir.path(), &arguments, 5).join("\n");
    for part in [
        "registers expected at 0x3efc0000",
        "05.0  iommu",
        "04.0  dma",
        "06.0  rng",
        "qemu-system-aarch64 -accel tcg -cpu max -machine virt,gic-version=3,memory-backend=",
        &format!("-dtb {} -kernel {}", file("guest.dtb"), file("starter.bin")),
        &format!("-device loader,file={image},addr=0x40200000,force-raw=on"),
        "stopped: 0 bytes moved, 0 faults",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(
        !said.contains("-acpitable") && !said.contains("07.0"),
        "{said}"
    );
    // The starter has the function's configuration space (slot 5), the kernel, and the registers.
    let starter = std::fs::read(file("starter.bin")).expect("a program");
    let expected = [0x40_1002_8000u64, 0x4020_0000]
        .map(u64::to_le_bytes)
        .concat();
    assert_eq!(starter[32..48], expected);
    assert_eq!(starter[48..], 0x3efc_0000u32.to_le_bytes());
    let blob = std::fs::read(file("guest.dtb")).expect("a tree");
    let blob = dtoolkit::fdt::Fdt::new(&blob).expect("a tree");
    assert!(blob.find_node("/iommu@3efc0000").is_some());

    // What is no such kernel is not put on a command line.
    let arguments = [&arguments[..5], &[tree.as_str()]].concat();
    let folder = dir.path().to_str().expect("a path");
    let text = refused(&[&["--dir", folder], &arguments[..]].concat(), 4);
    assert!(
        text.contains("no arm64 Image of Linux 5.8 or newer"),
        "{text}"
    );
}

#[test]
fn without_a_device_tree_there_is_a_part_of_one_and_what_is_left_to_do() {
    let dir = tempfile::tempdir().expect("a folder");
    let arguments = ["--arch", "smmuv3", "--bar", "0x3e000000"];
    let said = told_to_stop(dir.path(), &arguments, 6).join("\n");
    for part in [
        "iommu.dtsi in it, and BAR 0 of the IOMMU at 0x3e000000 with COMMAND 6",
        "with --dtb-in both are done here",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(
        !said.contains("-dtb ") && !said.contains("-kernel "),
        "{said}"
    );
    let part = std::fs::read_to_string(dir.path().join("iommu.dtsi")).expect("source");
    assert!(
        part.contains("iommu-map = <0x20 &smmu 0x20 1>, <0x30 &smmu 0x30 1>;"),
        "{part}"
    );
}

#[test]
fn json_has_one_object_a_line() {
    let dir = tempfile::tempdir().expect("a folder");
    let said = told_to_stop(dir.path(), &["--json"], 1);
    let events: Vec<serde_json::Value> = said
        .iter()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(events[0]["event"], "ready");
    assert_eq!(events[0]["functions"].as_array().map(Vec::len), Some(4));
    assert_eq!(events.last().expect("one")["event"], "stopped");
    assert_eq!(events.last().expect("one")["lines_lost"], 0);
}

#[test]
fn a_second_signal_ends_it_where_the_first_cannot() {
    let dir = tempfile::tempdir().expect("a folder");
    // Opening a pipe waits for somebody to write to it.
    let entropy = dir.path().join("entropy");
    let made = std::process::Command::new("mkfifo").arg(&entropy).status();
    assert!(made.expect("mkfifo runs").success());
    let mut child = std::process::Command::new(assert_cmd::cargo::cargo_bin!("iopf"))
        .args(["serve", "--dir"])
        .arg(dir.path())
        .arg("--entropy")
        .arg(&entropy)
        .stdout(Stdio::null())
        .spawn()
        .expect("it starts");
    // The unit is listened for before the functions behind it are made, the last is the entropy.
    let before = dir.path().join("dma-04.0.sock");
    let deadline = Instant::now() + Duration::from_secs(20);
    while !before.exists() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
    let term = |child: &std::process::Child| {
        let pid = rustix::process::Pid::from_child(child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it runs");
    };
    term(&child);
    std::thread::sleep(Duration::from_millis(300));
    let after_one = child.try_wait().expect("it is ours");
    if after_one.is_none() {
        term(&child);
    }
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut ended = child.try_wait().expect("it is ours");
    while ended.is_none() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
        ended = child.try_wait().expect("it is ours");
    }
    if ended.is_none() {
        child.kill().expect("it runs");
        child.wait().expect("it ends");
    }
    assert_eq!(after_one, None, "it waits for the pipe");
    assert_eq!(ended.and_then(|status| status.code()), Some(128 + 15));
}

#[test]
fn a_client_that_is_refused_over_and_over_is_a_few_lines_and_an_exact_count() {
    const COMMANDS: u64 = 5000;
    let dir = tempfile::tempdir().expect("a folder");
    let mut child = std::process::Command::new(assert_cmd::cargo::cargo_bin!("iopf"))
        .args(["serve", "--json", "--endpoint", "dma@04.0", "--dir"])
        .arg(dir.path())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut out = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    out.next().expect("it is ready").expect("text");
    let mut client = UnixStream::connect(dir.path().join("dma-04.0.sock")).expect("it listens");
    let mut bytes = Vec::new();
    let (major, minor) = (0, 1);
    let data = &[];
    encode_request(
        0,
        false,
        &Request::Version { major, minor, data },
        &mut bytes,
    );
    client.write_all(&bytes).expect("it reads");
    let (address, size) = (0, 0x1000);
    encode_request(1, true, &Request::DmaUnmap { address, size }, &mut bytes);
    for _ in 0..COMMANDS {
        client.write_all(&bytes).expect("it reads");
    }
    // Its answer says that all before is done.
    encode_request(2, false, &Request::GetInfo, &mut bytes);
    client.write_all(&bytes).expect("it reads");
    // A version reply of 20 bytes and its JSON, then 32 bytes.
    client
        .set_read_timeout(Some(Duration::from_millis(500)))
        .expect("a time");
    let mut answers = Vec::new();
    let deadline = Instant::now() + Duration::from_secs(20);
    while !answers.windows(4).any(|id| id == [2, 0, 4, 0]) && Instant::now() < deadline {
        let mut some = [0; 256];
        if let Ok(len) = client.read(&mut some) {
            answers.extend_from_slice(&some[..len]);
        }
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it runs");
    let events: Vec<serde_json::Value> = out
        .map_while(Result::ok)
        .map(|line| serde_json::from_str(&line).expect("JSON"))
        .collect();
    assert!(child.wait().expect("it ends").success());
    let of = |name: &'static str| events.iter().filter(move |event| event["event"] == name);
    let refused = of("refused").count() as u64;
    let unsaid: u64 = of("unsaid").filter_map(|e| e["count"].as_u64()).sum();
    assert!((1..=4 * 32).contains(&refused), "{refused} lines");
    // Of the connection itself: it came, and it went.
    let others = of("connected")
        .chain(of("disconnected"))
        .filter(|e| e["function"] == "00:04.0");
    assert_eq!(refused + unsaid + others.count() as u64, COMMANDS + 2);
    assert_eq!(events.last().expect("one")["lines_lost"], 0);
}
