//! Starting a program without a copy of the agent's memory.
//!
//! A fork copies the agent's page tables and makes all of its threads copy what they write until the child has become
//! another program: milliseconds of processor time, growing with the agent. So the child borrows the memory instead, as
//! with `posix_spawn`, while the thread that started it stands still (`CLONE_VM | CLONE_VFORK`); but unlike there it may
//! make any system calls of its own first.

#![expect(unsafe_code, reason = "clone, signals and exec between them have no safe wrapper")]

use std::ffi::{CString, c_char, c_int, c_void};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;
use std::ptr;

use rustix::process::{Pid, WaitOptions, waitpid};

/// For the child until it is another program.
const STACK_BYTES: usize = 256 << 10;
/// What programs are looked for in where the environment has no `PATH`, as the C library has it.
const PATH: &str = "/bin:/usr/bin";
/// Runs files that are executable but no program, as `execvp` does.
const SHELL: &std::ffi::CStr = c"/bin/sh";
const SIGNALS: std::ops::RangeInclusive<c_int> = 1..=64;

/// What is to be run, as the kernel wants it. Made before the child is, which must not allocate.
pub(super) struct Program {
    /// Where it may be, in the order of the search.
    places: Vec<CString>,
    args: Vec<CString>,
    env: Vec<CString>,
    dir: Option<CString>,
}

impl Program {
    pub(super) fn new(
        program: &str,
        args: &[String],
        env: &[(String, String)],
        dir: Option<PathBuf>,
    ) -> io::Result<Self> {
        let path = env.iter().find(|(name, _)| name == "PATH").map_or(PATH, |(_, value)| value);
        let places = if program.contains('/') {
            vec![CString::new(program)?]
        } else {
            let place =
                |dir: &str| if dir.is_empty() { program.to_owned() } else { format!("{dir}/{program}") };
            path.split(':').map(|dir| CString::new(place(dir))).collect::<Result<_, _>>()?
        };
        let args = std::iter::once(program).chain(args.iter().map(String::as_str));
        Ok(Self {
            places: if program.is_empty() { Vec::new() } else { places },
            args: args.map(CString::new).collect::<Result<_, _>>()?,
            env: env.iter().map(|(k, v)| CString::new(format!("{k}={v}"))).collect::<Result<_, _>>()?,
            dir: dir.map(|dir| CString::new(dir.into_os_string().into_vec())).transpose()?,
        })
    }
}

/// What the child works from; it lies in the memory of both.
struct Plan<'a> {
    program: &'a Program,
    args: Vec<*const c_char>,
    /// The same for the shell: its name, the place that was found, and the arguments.
    shell_args: Vec<*const c_char>,
    env: Vec<*const c_char>,
    streams: [RawFd; 3],
    prepare: &'a mut dyn FnMut() -> io::Result<()>,
    /// Before signals were blocked.
    mask: libc::sigset_t,
    /// Why the child gave up.
    failure: Option<io::Error>,
}

/// Starts `program` with these standard streams. `prepare` runs in the child, which has the caller's memory, but its own
/// descriptors, directories and signals: it must do nothing but system calls, and neither allocate nor lock.
pub(super) fn start(
    program: &Program,
    streams: [BorrowedFd<'_>; 3],
    prepare: &mut dyn FnMut() -> io::Result<()>,
) -> io::Result<Pid> {
    // Copies beyond the standard numbers, so that none is overwritten before its turn.
    let copy = |fd: BorrowedFd<'_>| rustix::io::fcntl_dupfd_cloexec(fd, 3);
    let copies: [OwnedFd; 3] = [copy(streams[0])?, copy(streams[1])?, copy(streams[2])?];
    let pointers = |texts: &[CString]| {
        let all = texts.iter().map(|text| text.as_ptr());
        all.chain([ptr::null()]).collect::<Vec<_>>()
    };
    let args = pointers(&program.args);
    let mut plan = Plan {
        program,
        shell_args: [SHELL.as_ptr(), ptr::null()].into_iter().chain(args[1..].iter().copied()).collect(),
        args,
        env: pointers(&program.env),
        streams: [0, 1, 2].map(|n: usize| copies[n].as_fd().as_raw_fd()),
        prepare,
        mask: no_signals(),
        failure: None,
    };
    let mut stack: Vec<MaybeUninit<u128>> = vec![MaybeUninit::uninit(); STACK_BYTES / size_of::<u128>()];
    // SAFETY: the child runs `child` on a stack of its own and with `plan`, both of which outlive the time in which it
    // shares this memory: this thread goes on only when the child has become another program or ended. Signals are
    // blocked meanwhile, so that no handler runs in the child.
    let pid = unsafe {
        let mut all = MaybeUninit::uninit();
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), &raw mut plan.mask);
        let top = stack.as_mut_ptr_range().end.cast::<c_void>();
        let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
        let pid = libc::clone(child, top, flags, (&raw mut plan).cast());
        let error = io::Error::last_os_error();
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const plan.mask, ptr::null_mut());
        Pid::from_raw(pid.max(0)).ok_or(error)?
    };
    match plan.failure {
        None => Ok(pid),
        Some(error) => {
            // It has ended by itself.
            let _ = waitpid(Some(pid), WaitOptions::empty());
            Err(error)
        }
    }
}

fn no_signals() -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: it is filled by the call.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        set.assume_init()
    }
}

extern "C" fn child(plan: *mut c_void) -> c_int {
    // SAFETY: [`start`] gave this pointer and stands still.
    let plan = unsafe { &mut *plan.cast::<Plan<'_>>() };
    plan.failure = Some(plan.become_program());
    // SAFETY: ends the child alone, without a word to what the memory's owner has registered for its own end.
    unsafe { libc::_exit(127) }
}

impl Plan<'_> {
    /// Returns only if that failed.
    fn become_program(&mut self) -> io::Error {
        match self.set_up() {
            Ok(()) => self.exec(),
            Err(error) => error,
        }
    }

    fn set_up(&mut self) -> io::Result<()> {
        for (number, fd) in (0..).zip(self.streams) {
            // SAFETY: the descriptors of a child that makes no other use of the standard ones.
            check(unsafe { libc::dup2(fd, number) })?;
        }
        (self.prepare)()?;
        // Afterwards: entering a mount namespace leads to its root.
        if let Some(dir) = &self.program.dir {
            rustix::process::chdir(dir.as_c_str())?;
        }
        // SAFETY: handlers are the child's own, and none of the agent's may run here. What it ignores stays so, but for
        // the signal that Rust programs ignore unasked.
        unsafe {
            for signal in SIGNALS {
                let mut action = MaybeUninit::<libc::sigaction>::zeroed();
                if libc::sigaction(signal, ptr::null(), action.as_mut_ptr()) != 0 {
                    continue;
                }
                let handler = action.assume_init_ref().sa_sigaction;
                if signal == libc::SIGPIPE || !matches!(handler, libc::SIG_DFL | libc::SIG_IGN) {
                    libc::signal(signal, libc::SIG_DFL);
                }
            }
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.mask, ptr::null_mut());
        }
        Ok(())
    }

    /// As `execvp` does it.
    fn exec(&mut self) -> io::Error {
        let mut denied = false;
        let mut last = io::Error::from_raw_os_error(libc::ENOENT);
        for place in &self.program.places {
            // SAFETY: each list ends with a null pointer, and what it leads to outlives the child's use of it.
            unsafe { libc::execve(place.as_ptr(), self.args.as_ptr(), self.env.as_ptr()) };
            last = io::Error::last_os_error();
            match last.raw_os_error() {
                Some(libc::ENOEXEC) => {
                    self.shell_args[1] = place.as_ptr();
                    // SAFETY: as above.
                    unsafe { libc::execve(SHELL.as_ptr(), self.shell_args.as_ptr(), self.env.as_ptr()) };
                    return io::Error::last_os_error();
                }
                Some(libc::EACCES) => denied = true,
                Some(libc::ENOENT | libc::ENOTDIR) => {}
                _ => return last,
            }
        }
        if denied { io::Error::from_raw_os_error(libc::EACCES) } else { last }
    }
}

fn check(result: c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::Read as _;
    use std::os::unix::fs::PermissionsExt as _;

    /// What it printed, and its exit code.
    fn run(program: &Program, mut prepare: impl FnMut() -> io::Result<()>) -> io::Result<(String, i32)> {
        let null = File::open("/dev/null")?;
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        let pid = start(program, [null.as_fd(), write.as_fd(), write.as_fd()], &mut prepare)?;
        drop(write);
        let mut text = String::new();
        File::from(read).read_to_string(&mut text)?;
        let (_, status) = waitpid(Some(pid), WaitOptions::empty())?.expect("no option not to wait");
        Ok((text, status.exit_status().unwrap_or(-1)))
    }

    fn program(program: &str, args: &[&str], env: &[(&str, &str)], dir: Option<&str>) -> Program {
        let args: Vec<String> = args.iter().map(ToString::to_string).collect();
        let env: Vec<_> = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Program::new(program, &args, &env, dir.map(PathBuf::from)).unwrap()
    }

    #[test]
    fn a_program_gets_its_arguments_environment_and_directory() {
        let script = "echo $0 $1 $GIVEN $HOME; pwd; exit 3";
        let env = [("GIVEN", "yes"), ("PATH", "/nowhere:/bin")];
        let (text, code) =
            run(&program("sh", &["-c", script, "name", "first"], &env, Some("/proc")), || Ok(())).unwrap();
        assert_eq!((text.as_str(), code), ("name first yes\n/proc\n", 3));
    }

    #[test]
    fn what_cannot_start_says_why_and_leaves_nobody() {
        let kind = |p: &Program| run(p, || Ok(())).unwrap_err().kind();
        assert_eq!(kind(&program("nosuch", &[], &[("PATH", "/bin:/etc")], None)), io::ErrorKind::NotFound);
        assert_eq!(kind(&program("", &[], &[], None)), io::ErrorKind::NotFound);
        let denied = program("passwd", &[], &[("PATH", "/etc:/nowhere")], None);
        assert_eq!(kind(&denied), io::ErrorKind::PermissionDenied);
        assert_eq!(kind(&program("true", &[], &[], Some("/no/such"))), io::ErrorKind::NotFound);
        let refused = run(&program("true", &[], &[], None), || Err(io::ErrorKind::BrokenPipe.into()));
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn a_script_without_its_first_line_is_the_shells() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("script");
        std::fs::write(&path, "echo $1\n").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let (text, _) = run(&program(path.to_str().unwrap(), &["one"], &[], None), || Ok(())).unwrap();
        assert_eq!(text, "one\n");
    }

    #[test]
    fn no_descriptor_and_no_signal_of_the_agents_is_passed_on() {
        let kept = tempfile::NamedTempFile::new().unwrap();
        let script = "readlink /proc/self/fd/*; grep -E 'SigBlk|SigIgn' /proc/self/status";
        let (text, _) = run(&program("sh", &["-c", script], &[("PATH", "/bin")], None), || Ok(())).unwrap();
        assert!(text.contains("/dev/null") && !text.contains(kept.path().to_str().unwrap()), "{text}");
        let set = |name| {
            let mask = text.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim();
            u64::from_str_radix(mask, 16).unwrap()
        };
        assert_eq!(set("SigBlk:"), 0);
        assert_eq!(set("SigIgn:") & 1 << (libc::SIGPIPE - 1), 0, "broken pipes end it");
    }
}
