//! A page of a mapped file that cannot be read (its disk fails, a network file system has lost it, somebody cut it
//! short) is SIGBUS, which ends a process without a word. With this it says which file, and exits with 5.

use std::{
    path::Path,
    ptr,
    sync::{
        Once,
        atomic::{AtomicPtr, AtomicUsize, Ordering},
    },
};

/// Files that are watched at a time, at most: more than a checkpoint's shards. Others end the process as before.
const MOST: usize = 512;

/// Addresses of one file, and what is said if they cannot be read. Free where `message` is null.
struct Slot {
    start: AtomicUsize,
    /// 0 until the others are set.
    end: AtomicUsize,
    message: AtomicPtr<String>,
}

static SLOTS: [Slot; MOST] =
    [const { Slot { start: AtomicUsize::new(0), end: AtomicUsize::new(0), message: AtomicPtr::new(ptr::null_mut()) } };
        MOST];

/// Addresses that are watched until this is dropped, which must be before they are somebody else's.
#[derive(Debug)]
pub(super) struct Watched(Option<usize>);

impl Watched {
    pub(super) fn new(path: &Path, bytes: &[u8]) -> Self {
        static HANDLER: Once = Once::new();
        HANDLER.call_once(install);
        let message = Box::into_raw(Box::new(format!(
            "error: cannot read {}: its disk or its file system fails, or it was cut short meanwhile\n\
             hint: check the disk (dmesg), the file system's server, and whether somebody writes to that file\n",
            path.display()
        )));
        let claimed = SLOTS.iter().position(|slot| {
            let free = ptr::null_mut();
            slot.message.compare_exchange(free, message, Ordering::AcqRel, Ordering::Relaxed).is_ok()
        });
        match claimed {
            Some(i) => {
                let range = bytes.as_ptr_range();
                SLOTS[i].start.store(range.start as usize, Ordering::Release);
                SLOTS[i].end.store(range.end as usize, Ordering::Release);
            }
            // SAFETY: made above, and nobody has it.
            None => drop(unsafe { Box::from_raw(message) }),
        }
        Self(claimed)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let Some(slot) = self.0.map(|i| &SLOTS[i]) else { return };
        slot.end.store(0, Ordering::Release);
        let message = slot.message.swap(ptr::null_mut(), Ordering::AcqRel);
        // SAFETY: made by `new` and this slot's alone; the handler reads the message of a file that its own thread is
        // reading, which therefore still is mapped and watched.
        drop(unsafe { Box::from_raw(message) });
    }
}

fn install() {
    // SAFETY: zero is a valid sigaction; the handler has the signature that SA_SIGINFO asks for, and calls nothing that
    // a signal may not. Refused, SIGBUS ends the process as before.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = unreadable as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        libc::sigaction(libc::SIGBUS, &action, ptr::null_mut());
    }
}

extern "C" fn unreadable(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel's own.
    let address = unsafe { (*info).si_addr() } as usize;
    let read =
        |slot: &&Slot| address < slot.end.load(Ordering::Acquire) && address >= slot.start.load(Ordering::Acquire);
    // SAFETY: the message of a file that this thread is reading (see `drop`); write, _exit and signal may be called in
    // a handler. Not a file's: tried again, the instruction ends the process as if there were no handler.
    unsafe {
        if let Some(message) = SLOTS.iter().find(read).and_then(|slot| slot.message.load(Ordering::Acquire).as_ref()) {
            libc::write(libc::STDERR_FILENO, message.as_ptr().cast(), message.len());
            libc::_exit(5);
        }
        libc::signal(libc::SIGBUS, libc::SIG_DFL);
    }
}

#[cfg(test)]
mod tests {
    use std::{env, fs::OpenOptions, process::Command};

    /// Set where this very test is the child that reads what is no longer there.
    const FILE: &str = "CLSGEN_TEST_CUT_SHORT";

    #[test]
    fn a_file_cut_short_while_it_is_read_is_named() {
        if let Some(path) = env::var_os(FILE) {
            let map = crate::model::mmap::map(path.as_ref()).unwrap();
            OpenOptions::new().write(true).open(path).unwrap().set_len(10).unwrap();
            panic!("{} was read", map[2 << 20]);
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(4 << 20).unwrap();
        let mut child = Command::new(env::current_exe().unwrap());
        child.args(["a_file_cut_short", "--nocapture", "--test-threads=1"]).env(FILE, file.path());
        let told = child.output().unwrap();
        let stderr = String::from_utf8_lossy(&told.stderr);
        assert_eq!(told.status.code(), Some(5), "{stderr}");
        assert!(
            stderr.contains(&format!("error: cannot read {}: ", file.path().display())) && stderr.contains("hint: "),
            "{stderr}"
        );
    }
}
