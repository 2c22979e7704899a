//! A file system of our own in a file, which can be cut from power and filled up. Needs root and loop devices.

use crate::Outcome;
use rustix::fs::FallocateFlags;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// `FS_IOC_SHUTDOWN` with `FS_SHUTDOWN_FLAGS_NOLOGFLUSH`: what is not on disk by now, the journal's tail included, never gets
/// there, and every later write fails. An ioctl takes unsafe code, which this workspace does without.
const CUT: &str = "import fcntl, os, struct, sys\n\
    fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587d, struct.pack('I', 2))";

/// Within which a file system that nobody uses any more can be unmounted.
const UNMOUNT: Duration = Duration::from_secs(10);

/// An ext4 of its own; unmounted and removed when dropped.
pub struct Disk {
    image: PathBuf,
    pub mount: PathBuf,
    mounted: bool,
}

/// Whether there can be one here.
pub fn possible(common: &crate::Common) -> Outcome<()> {
    if !rustix::process::geteuid().is_root() {
        return Err("mounting a file system of one's own needs root".into());
    }
    for tool in ["mkfs.ext4", "mount", "umount", "python3"] {
        if !found(tool) {
            return Err(format!("{tool} is missing").into());
        }
    }
    let dir = common.dir("disk")?;
    let mut disk = Disk::new(&dir, 16)?;
    disk.cut()?;
    disk.detach()?;
    Ok(std::fs::remove_dir_all(&dir)?)
}

impl Disk {
    /// Makes and mounts one of that many MiB.
    pub fn new(dir: &Path, mebibytes: u64) -> Outcome<Disk> {
        let mut disk = Disk {
            image: dir.join("disk.img"),
            mount: dir.join("disk"),
            mounted: false,
        };
        std::fs::create_dir_all(&disk.mount)?;
        std::fs::File::create(&disk.image)?.set_len(mebibytes << 20)?;
        // No room is set aside for root, which these brokers are.
        run(Command::new("mkfs.ext4")
            .args(["-q", "-F", "-m", "0"])
            .arg(&disk.image))?;
        disk.attach()?;
        Ok(disk)
    }

    /// Mounts it; the journal is replayed.
    pub fn attach(&mut self) -> Outcome<()> {
        run(Command::new("mount")
            .args(["-o", "loop"])
            .arg(&self.image)
            .arg(&self.mount))?;
        self.mounted = true;
        Ok(())
    }

    /// The power goes.
    pub fn cut(&self) -> Outcome<()> {
        run(Command::new("python3").args(["-c", CUT]).arg(&self.mount))
    }

    /// Unmounts it, as soon as nobody uses it.
    pub fn detach(&mut self) -> Outcome<()> {
        let deadline = Instant::now() + UNMOUNT;
        loop {
            match run(Command::new("umount").arg(&self.mount)) {
                Ok(()) => {
                    self.mounted = false;
                    return Ok(());
                }
                Err(error) if Instant::now() > deadline => return Err(error),
                // The kernel lets go of a killed process's files a moment after it is gone.
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    /// Bytes that can still be written.
    fn free(&self) -> Outcome<u64> {
        let stat = rustix::fs::statvfs(&self.mount)?;
        Ok(stat.f_bavail * stat.f_frsize)
    }

    fn filler(&self) -> PathBuf {
        self.mount.join("filler")
    }

    /// Takes all room but that many bytes away.
    pub fn fill(&self, leave: u64) -> Outcome<()> {
        let file = std::fs::File::create(self.filler())?;
        let mut len = 0;
        let mut piece = u64::MAX;
        loop {
            piece = piece.min(self.free()?.saturating_sub(leave));
            if piece < 4096 {
                return Ok(());
            }
            match rustix::fs::fallocate(&file, FallocateFlags::empty(), len, piece) {
                Ok(()) => len += piece,
                // The file's own bookkeeping takes room as well, and so does whoever writes meanwhile.
                Err(rustix::io::Errno::NOSPC) => piece /= 2,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Gives the room back.
    pub fn empty(&self) -> Outcome<()> {
        Ok(std::fs::remove_file(self.filler())?)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.mounted {
            // The node that uses it may be dropped after this.
            let _ = run(Command::new("umount").arg("-l").arg(&self.mount));
        }
    }
}

fn found(tool: &str) -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&paths).any(|dir| dir.join(tool).exists())
}

fn run(command: &mut Command) -> Outcome<()> {
    let out = command.stdin(Stdio::null()).output()?;
    if out.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&out.stderr);
    Err(format!("{command:?}: {}: {}", out.status, said.trim()).into())
}
