//! How a guest is described and started.

use super::control::Control;
use super::device_tree::packed;
use super::initramfs::Archive;
use super::machine::Machine;
use super::platform::Platform;
use super::{Guest, GuestError, Program, agent};
use crate::kernel::Kernel;
use crate::qemu::root::{self, QemuRoot};
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Where the agent finds what to load: `guests/agent/src/init.rs`.
const LIST: &str = "/etc/iopf/modules";

/// How long a guest may take from power-on to its agent's hello.
const BOOT: Duration = Duration::from_secs(120);

/// How long QEMU may take to connect.
const CONNECT: Duration = Duration::from_secs(20);

/// How long QEMU may take to write the device tree of a machine.
const DESCRIBE: Duration = Duration::from_secs(60);

/// A guest that can be started: a machine with shared memory, which is `q35` on x86-64 and `virt` with a
/// GICv3 on arm64, a kernel, our agent.
#[derive(Clone, Debug)]
pub struct Builder {
    kernel: Kernel,
    memory: u32,
    cpus: u8,
    append: Vec<String>,
    devices: Vec<(PathBuf, String)>,
    arguments: Vec<String>,
    modules: Vec<(String, String)>,
    files: Vec<(String, Vec<u8>)>,
    programs: Vec<Program>,
    device_tree: Option<Vec<u8>>,
    starter: Option<(PathBuf, u64)>,
    patience: Duration,
    quiet: bool,
    reboots: bool,
    counted: bool,
}

impl Builder {
    pub(super) fn new(kernel: &Kernel) -> Self {
        Self {
            kernel: kernel.clone(),
            memory: 512,
            cpus: 1,
            append: Vec::new(),
            devices: Vec::new(),
            arguments: Vec::new(),
            modules: Vec::new(),
            files: Vec::new(),
            programs: Vec::new(),
            device_tree: None,
            starter: None,
            patience: BOOT,
            quiet: true,
            reboots: false,
            counted: false,
        }
    }

    /// Memory in MiB; 512 when not said.
    #[must_use]
    pub fn memory(mut self, mebibytes: u32) -> Self {
        self.memory = mebibytes;
        self
    }

    /// Processors; 1 when not said.
    #[must_use]
    pub fn cpus(mut self, count: u8) -> Self {
        self.cpus = count;
        self
    }

    /// Adds words to the kernel's command line.
    #[must_use]
    pub fn append(mut self, words: &str) -> Self {
        self.append.push(words.to_owned());
        self
    }

    /// Adds a PCI function that is served over vfio-user at `socket`. `address` is its place on
    /// bus 0, such as `05.0`. Someone must be listening when the guest starts.
    #[must_use]
    pub fn device(mut self, socket: &Path, address: &str) -> Self {
        self.devices.push((socket.to_owned(), address.to_owned()));
        self
    }

    /// Adds arguments to QEMU's command line.
    #[must_use]
    pub fn arguments<S: Into<String>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Loads a module, after those it needs, before the agent says hello.
    #[must_use]
    pub fn module(self, name: &str) -> Self {
        self.module_with(name, "")
    }

    /// Loads a module with parameters, as `module`.
    #[must_use]
    pub fn module_with(mut self, name: &str, parameters: &str) -> Self {
        self.modules.push((name.to_owned(), parameters.to_owned()));
        self
    }

    /// Puts a file into the guest, executable.
    #[must_use]
    pub fn file(mut self, path: &str, data: impl Into<Vec<u8>>) -> Self {
        self.files.push((path.to_owned(), data.into()));
        self
    }

    /// Puts a program into the guest, with all that it needs.
    #[must_use]
    pub fn program(mut self, program: &Program) -> Self {
        self.programs.push(program.clone());
        self
    }

    /// Describes the machine to the kernel by this device tree instead of QEMU's own. QEMU still puts
    /// the kernel's command line, the initramfs and the memory into it. arm64 only.
    #[must_use]
    pub fn device_tree(mut self, blob: impl Into<Vec<u8>>) -> Self {
        self.device_tree = Some(blob.into());
        self
    }

    /// Starts `program` as QEMU starts a kernel; the kernel itself lies at address `at`, and the program
    /// goes on to it. arm64 only.
    #[must_use]
    pub fn starter(mut self, program: &Path, at: u64) -> Self {
        self.starter = Some((program.to_owned(), at));
        self
    }

    /// How long the guest may take to come up; two minutes when not said.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Puts everything the kernel says on the console, not only warnings and errors: boots slower.
    #[must_use]
    pub fn verbose(mut self) -> Self {
        self.quiet = false;
        self
    }

    /// Lets the guest reboot; without this, QEMU ends when it does.
    #[must_use]
    pub fn reboots(mut self) -> Self {
        self.reboots = true;
        self
    }

    /// Makes the guest's time its instructions: the time stamp counter and every clock advance by
    /// one nanosecond with each, whatever the host does meanwhile (`-icount shift=0`). Needs one
    /// thread for all processors, and boots slower.
    #[must_use]
    pub fn counted(mut self) -> Self {
        self.counted = true;
        self
    }

    /// Starts the guest and waits for its agent.
    ///
    /// # Errors
    /// Where QEMU is missing, the guest does not come up in time, or something that it was to do
    /// on the way, such as loading a module, failed.
    pub fn boot(&self) -> Result<Guest, GuestError> {
        let dir = Machine::directory()?;
        let initramfs = dir.path().join("initramfs.cpio");
        let archive = self.initramfs().map_err(GuestError::Initramfs)?;
        fs::write(&initramfs, archive)?;
        let socket = dir.path().join("agent.sock");
        let listener = UnixListener::bind(&socket)?;
        let mut command = self.machine(root::ensure_for(self.kernel.target())?, dir.path());
        if let Some(blob) = &self.device_tree {
            let path = dir.path().join("machine.dtb");
            fs::write(&path, blob)?;
            command.arg("-dtb").arg(path);
        }
        command
            .args(["-chardev", &file_chardev("console", &dir)])
            .args(["-serial", "chardev:console"])
            .arg("-chardev")
            .arg(format!("socket,id=agent,path={}", escape(&socket)))
            .args(["-serial", "chardev:agent"])
            .arg("-initrd")
            .arg(&initramfs)
            .args(["-append", &self.command_line()]);
        self.start_with(&mut command, dir.path())?;
        let deadline = Instant::now() + self.patience;
        let machine = start(command, dir)?;
        let stream = accept(&listener, &machine).map_err(|why| machine.down("connect", why))?;
        let mut control = Control::new(stream)?;
        let hello = control
            .hello(deadline)
            .map_err(|why| machine.down("hello", why))?;
        if !hello.failed.is_empty() {
            return Err(machine.down("hello", &hello.failed));
        }
        Ok(Guest {
            machine,
            control: control.into(),
            hello,
        })
    }

    /// Runs firmware alone on the same machine, without a kernel, until it has set up the devices:
    /// a server then knows where their BARs are. Gives what firmware said.
    ///
    /// # Errors
    /// Where QEMU is missing, firmware is not done within a minute, or the machine starts without
    /// firmware, as on arm64.
    pub fn probe(&self) -> Result<String, GuestError> {
        let target = self.kernel.target();
        let done = Platform::of(target).firmware_done;
        let done = done.ok_or(GuestError::NoFirmware)?;
        let dir = Machine::directory()?;
        let mut command = self.machine(root::ensure_for(target)?, dir.path());
        command
            .args(["-chardev", &file_chardev("firmware", &dir)])
            .args(["-device", "isa-debugcon,iobase=0x402,chardev=firmware"]);
        let machine = start(command, dir)?;
        machine.wait_log(done, Duration::from_secs(60))?;
        machine.stop();
        Ok(machine.log())
    }

    /// The device tree with which QEMU would describe this machine to a kernel, as a blob. What is on
    /// the PCI bus is not in it, so nobody needs to serve the functions for this.
    ///
    /// # Errors
    /// Where QEMU is missing, writes none within a minute, or the machine has none, as on x86-64.
    pub fn describe(&self) -> Result<Vec<u8>, GuestError> {
        let dir = Machine::directory()?;
        let bare = Self {
            devices: Vec::new(),
            ..self.clone()
        };
        let mut command = bare.machine(root::ensure_for(self.kernel.target())?, dir.path());
        command
            .args(["-M", "dumpdtb=machine.dtb"])
            // As of a boot: each port is a node.
            .args(["-serial", "null", "-serial", "null"]);
        let path = dir.path().join("machine.dtb");
        let machine = start(command, dir)?;
        machine.wait_end(DESCRIBE)?;
        let blob = fs::read(path).map_err(|error| machine.down("the device tree", error))?;
        packed(blob).ok_or_else(|| machine.down("the device tree", "QEMU wrote something else"))
    }

    /// The machine itself, the same for a probe and for a boot.
    fn machine(&self, qemu: &QemuRoot, dir: &Path) -> Command {
        let platform = Platform::of(self.kernel.target());
        let mut command = qemu.command();
        let accelerator = if self.counted {
            // A guest that waits gets its time at once, since nothing but its own timers ends that.
            command.args(["-icount", "shift=0,sleep=off"]);
            "tcg,thread=single"
        } else {
            "tcg,thread=multi"
        };
        let memory = format!("memory-backend-memfd,id=m,size={}M,share=on", self.memory);
        command
            .args(["-M", platform.machine, "-object", &memory])
            .args(["-accel", accelerator, "-cpu", platform.cpu])
            .args(["-smp", &self.cpus.to_string()])
            .args(["-nodefaults", "-display", "none", "-monitor", "none"]);
        if !self.reboots {
            command.arg("-no-reboot");
        }
        for (socket, address) in &self.devices {
            let socket = socket.to_string_lossy();
            let socket = socket.replace('\\', "\\\\").replace('"', "\\\"");
            let several = self.has_others(address);
            command.arg("-device").arg(format!(
                r#"{{"driver":"vfio-user-pci","addr":"{address}","multifunction":{several},"socket":{{"type":"unix","path":"{socket}"}}}}"#
            ));
        }
        command.args(&self.arguments).current_dir(dir);
        command
    }

    /// The kernel, or what starts it.
    fn start_with(&self, command: &mut Command, dir: &Path) -> io::Result<()> {
        let Some((program, at)) = &self.starter else {
            command.arg("-kernel").arg(self.kernel.image());
            return Ok(());
        };
        // What QEMU takes for a kernel it unpacks; what is loaded as it is has to be unpacked here.
        let image = dir.join("Image");
        fs::write(&image, unpacked(fs::read(self.kernel.image())?)?)?;
        let image = escape(&image);
        let loader = format!("loader,file={image},addr={at:#x},force-raw=on");
        command.arg("-kernel").arg(program);
        command.args(["-device", &loader]);
        Ok(())
    }

    /// Whether `address` is the function 0 of a device that has others: QEMU wants to be told.
    fn has_others(&self, address: &str) -> bool {
        let Some((device, "0")) = address.split_once('.') else {
            return false;
        };
        self.devices
            .iter()
            .filter_map(|(_, other)| other.split_once('.'))
            .any(|(other, function)| other == device && function != "0")
    }

    fn command_line(&self) -> String {
        let mut line = Platform::of(self.kernel.target()).command_line.to_owned();
        if self.quiet {
            line += " quiet";
        }
        for words in &self.append {
            line += " ";
            line += words;
        }
        line
    }

    /// The agent as the first process, modules, and whatever else was asked for.
    fn initramfs(&self) -> Result<Vec<u8>, String> {
        let read =
            |path: &Path| fs::read(path).map_err(|error| format!("{}: {error}", path.display()));
        let mut archive = Archive::new();
        let mut put = |path: &str, data: &[u8]| {
            let added = archive.file(path, data);
            added.map_err(|error| format!("{path}: {error}"))
        };
        put("/init", &read(agent::binary_for(self.kernel.target())?)?)?;
        let names: Vec<_> = self.modules.iter().map(|(name, _)| name.as_str()).collect();
        let mut list = String::new();
        for module in self.kernel.modules(&names)? {
            let name = module.file_stem().unwrap_or_default().to_string_lossy();
            let same = |(other, _): &&(String, String)| other.replace('-', "_") == name;
            let wanted = self.modules.iter().find(same);
            let parameters = wanted.map_or("", |(_, parameters)| parameters);
            let path = format!("/lib/modules/{name}.ko");
            put(&path, &read(&module)?)?;
            list += format!("{path} {parameters}").trim_end();
            list += "\n";
        }
        put(LIST, list.as_bytes())?;
        for (path, from) in self.programs.iter().flat_map(Program::files) {
            put(&path, &read(&from)?)?;
        }
        for (path, data) in &self.files {
            put(path, data)?;
        }
        archive.finish().map_err(|error| error.to_string())
    }
}

/// An image, unpacked if it is packed by gzip.
fn unpacked(image: Vec<u8>) -> io::Result<Vec<u8>> {
    if !image.starts_with(&[0x1f, 0x8b]) {
        return Ok(image);
    }
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(image.as_slice()).read_to_end(&mut plain)?;
    Ok(plain)
}

fn file_chardev(id: &str, dir: &TempDir) -> String {
    let path = Machine::console(dir.path());
    format!("file,id={id},path={}", escape(&path))
}

/// A path as the value of a QEMU option: a comma is written twice.
fn escape(path: &Path) -> String {
    path.to_string_lossy().replace(',', ",,")
}

fn start(mut command: Command, dir: TempDir) -> Result<Machine, GuestError> {
    let errors = File::create(Machine::errors(dir.path()))?;
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(errors)
        .spawn()?;
    Ok(Machine::new(child, dir))
}

/// Waits for QEMU to connect, or to end.
fn accept(listener: &UnixListener, machine: &Machine) -> io::Result<UnixStream> {
    listener.set_nonblocking(true)?;
    let started = Instant::now();
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false)?;
                return Ok(stream);
            }
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
            Err(_) => {}
        }
        if machine.ended().is_some() {
            return Err(io::Error::other("it ended"));
        }
        if started.elapsed() > CONNECT {
            return Err(io::ErrorKind::TimedOut.into());
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}
