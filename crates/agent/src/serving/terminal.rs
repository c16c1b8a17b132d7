//! Descriptors whose other end a process has: pipes and terminals, read and written without blocking.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use rustix::fs::OFlags;
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;
use tokio::io::unix::AsyncFd;

/// A new terminal.
pub(super) struct Terminal {
    pub(super) upper: Upper,
    /// For the process.
    pub(super) lower: OwnedFd,
}

impl Terminal {
    pub(super) fn open() -> io::Result<Self> {
        let upper = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        rustix::pty::grantpt(&upper)?;
        rustix::pty::unlockpt(&upper)?;
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let lower = rustix::pty::ioctl_tiocgptpeer(&upper, flags)?;
        Ok(Self { upper: Upper::new(upper)?, lower })
    }
}

/// Our end.
pub(super) struct Upper(AsyncFd<OwnedFd>);

impl Upper {
    pub(super) fn new(fd: OwnedFd) -> io::Result<Self> {
        let flags = rustix::fs::fcntl_getfl(&fd)?;
        rustix::fs::fcntl_setfl(&fd, flags | OFlags::NONBLOCK)?;
        // SAFETY: the descriptor is owned by the `AsyncFd` and never replaced or closed before it.
        Ok(Self(unsafe { AsyncFd::register(fd) }?))
    }

    /// Another descriptor of the same end.
    pub(super) fn again(&self) -> io::Result<Self> {
        // SAFETY: as above.
        Ok(Self(unsafe { AsyncFd::register(self.0.get_ref().try_clone()?) }?))
    }

    /// Cancel-safe.
    pub(super) async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut ready = self.0.readable().await?;
            if let Ok(read) = ready.try_io(|fd| Ok(rustix::io::read(fd.as_fd(), &mut *buffer)?)) {
                return read;
            }
        }
    }

    pub(super) async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let mut ready = self.0.writable().await?;
            if let Ok(written) = ready.try_io(|fd| Ok(rustix::io::write(fd.as_fd(), bytes)?)) {
                bytes = &bytes[written?..];
            }
        }
        Ok(())
    }

    pub(super) fn resize(&self, columns: u16, rows: u16) {
        let size = Winsize { ws_col: columns, ws_row: rows, ws_xpixel: 0, ws_ypixel: 0 };
        // Fails only where there is no terminal.
        let _ = rustix::termios::tcsetwinsize(self.0.get_ref(), size);
    }
}
