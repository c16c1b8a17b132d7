//! Files that a process sees in place of the node's: bind mounts in a mount namespace of its own.
//!
//! The node's files are never touched: the namespace is the child's own before anything is mounted, and what is mounted
//! there does not spread. What the node unmounts, such as the namespace of a pod that went, goes there too.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, mount_bind, mount_change};
use rustix::thread::UnshareFlags;

/// Ready for use in a child that must not allocate.
#[derive(Debug, Clone, Default)]
pub(crate) struct Mounts {
    /// The file, and the path at which it appears.
    binds: Vec<(CString, CString)>,
}

impl Mounts {
    /// `source` appears at `target`, if there is something to cover.
    pub(crate) fn add(&mut self, source: &Path, target: &str) -> io::Result<()> {
        let source = CString::new(source.as_os_str().as_bytes())?;
        self.binds.push((source, CString::new(target)?));
        Ok(())
    }

    /// In the child: whether it got a namespace of its own for that. A path that the node does not have stays away: making it would change the node.
    pub(super) fn apply(&self) -> io::Result<bool> {
        if self.binds.is_empty() {
            return Ok(false);
        }
        // SAFETY: the child has one thread and shares nothing that mounts would touch.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS)? };
        let down = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
        mount_change(c"/", down)?;
        for (source, target) in &self.binds {
            match mount_bind(source.as_c_str(), target.as_c_str()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }
}
