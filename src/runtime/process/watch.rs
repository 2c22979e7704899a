//! Tells when a file has been written to, or files in a directory replaced.

use std::io;
use std::mem::MaybeUninit;
use std::path::Path;

use rustix::fd::OwnedFd;
use rustix::fs::inotify;
use tokio::io::unix::AsyncFd;

/// An inotify watch on one path. It counts from its making: what changed since is told at the next wait.
pub struct Watch {
    fd: AsyncFd<OwnedFd>,
}

impl Watch {
    /// Writes to a file, cuts too.
    pub fn writes(file: &Path) -> io::Result<Watch> {
        Watch::new(file, inotify::WatchFlags::MODIFY)
    }

    /// Files renamed into a directory, which is how ours are replaced.
    pub fn replacements(dir: &Path) -> io::Result<Watch> {
        Watch::new(dir, inotify::WatchFlags::MOVED_TO)
    }

    #[expect(
        deprecated,
        reason = "its successor is unsafe; what it warns of, a type that does not own its descriptor, is not passed here"
    )]
    fn new(path: &Path, what: inotify::WatchFlags) -> io::Result<Watch> {
        let fd = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        inotify::add_watch(&fd, path, what)?;
        Ok(Watch {
            fd: AsyncFd::new(fd)?,
        })
    }

    /// Waits for a change since the last wait.
    pub async fn changed(&self) -> io::Result<()> {
        let mut ready = self.fd.readable().await?;
        let mut buffer = [MaybeUninit::<u8>::uninit(); 4096];
        let mut events = inotify::Reader::new(self.fd.get_ref(), &mut buffer);
        // Each says the same; all are taken, so that the next wait is for a new one.
        loop {
            match events.next() {
                Ok(_) => {}
                Err(rustix::io::Errno::AGAIN) => break,
                Err(e) => return Err(e.into()),
            }
        }
        ready.clear_ready();
        Ok(())
    }
}
