//! A disk that limps, for a process that knows nothing of it: a library that is loaded before the C library
//! (`LD_PRELOAD`) and takes the place of `fsync`, `fdatasync`, `write` and `pwrite64`.
//!
//! What the disk does is said by a small file (`order`), named by the environment variable `BALSA_LIMP_DISK` and read at
//! every call, so that a disk falls ill and recovers while the process runs. Without the variable or the file the disk is
//! sound. Only regular files are concerned: sockets, pipes and the standard streams are left alone.
//!
//! The node itself has no switch for any of this: what runs under the tests is the very binary that ships. It must be
//! linked dynamically, and must reach the disk by the C library, as Rust's `std::fs` does; `rustix` does not, so that
//! reserving space (`fallocate`) and measuring it (`statvfs`) always tell the truth here.

mod order;

use order::Order;
use std::ffi::{CStr, c_char, c_int, c_long, c_void};
use std::fs::File;
use std::os::fd::FromRawFd;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// What the environment calls the file.
const VARIABLE: &str = "BALSA_LIMP_DISK";

/// "The next one after this library" (`RTLD_NEXT`), on all systems where this can be built.
fn rtld_next() -> *mut c_void {
    usize::MAX as *mut c_void
}

#[allow(unsafe_code, reason = "functions of the C library")]
mod c {
    use super::*;

    unsafe extern "C" {
        pub(super) fn dlsym(library: *mut c_void, name: *const c_char) -> *mut c_void;
        pub(super) fn __errno_location() -> *mut c_int;
    }
}

type Sync = unsafe extern "C" fn(c_int) -> c_int;
type Write = unsafe extern "C" fn(c_int, *const c_void, usize) -> isize;
type WriteAt = unsafe extern "C" fn(c_int, *const c_void, usize, c_long) -> isize;

/// The C library's own function of that name.
#[allow(unsafe_code, reason = "looking a symbol up")]
fn next(name: &CStr) -> usize {
    // SAFETY: both arguments are what dlsym takes.
    let found = unsafe { c::dlsym(rtld_next(), name.as_ptr()) };
    assert!(!found.is_null(), "the C library has no {name:?}");
    found as usize
}

/// Whether the call is to fail; if so, `errno` says why.
#[allow(unsafe_code, reason = "errno belongs to this thread")]
fn fails(errno: Option<c_int>) -> bool {
    let Some(errno) = errno else { return false };
    // SAFETY: the C library gives a valid place of this thread.
    unsafe { *c::__errno_location() = errno };
    true
}

/// What the disk is to do now.
fn ordered() -> Order {
    static FILE: OnceLock<Option<std::ffi::OsString>> = OnceLock::new();
    let Some(file) = FILE.get_or_init(|| std::env::var_os(VARIABLE)) else { return Order::default() };
    std::fs::read_to_string(file).map_or_else(|_| Order::default(), |text| Order::read(&text))
}

/// Whether `fd` is a regular file, beyond the standard streams (which may be files, too).
#[allow(unsafe_code, reason = "looks at a file that another owns")]
fn is_file(fd: c_int) -> bool {
    // SAFETY: the caller's file is open during its call, and is not closed here.
    let file = std::mem::ManuallyDrop::new(unsafe { File::from_raw_fd(fd.max(0)) });
    fd > 2 && file.metadata().is_ok_and(|metadata| metadata.file_type().is_file())
}

/// Stalls, then says whether the call is to fail and how.
fn before_sync() -> Option<c_int> {
    static SYNCS: AtomicU64 = AtomicU64::new(0);
    let order = ordered();
    let number = SYNCS.fetch_add(1, Ordering::Relaxed);
    if !order.sync_stall.is_zero() && number.is_multiple_of(order.sync_stall_every) {
        std::thread::sleep(order.sync_stall);
    }
    order.sync_fails
}

/// In place of the C library's.
///
/// # Safety
///
/// As there.
#[allow(unsafe_code, reason = "takes the C library's place")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fdatasync(fd: c_int) -> c_int {
    static NEXT: OnceLock<usize> = OnceLock::new();
    // SAFETY: that is the function's type.
    let real: Sync = unsafe { std::mem::transmute(*NEXT.get_or_init(|| next(c"fdatasync"))) };
    if fails(before_sync()) {
        return -1;
    }
    // SAFETY: as the caller promised.
    unsafe { real(fd) }
}

/// In place of the C library's.
///
/// # Safety
///
/// As there.
#[allow(unsafe_code, reason = "takes the C library's place")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fsync(fd: c_int) -> c_int {
    static NEXT: OnceLock<usize> = OnceLock::new();
    // SAFETY: that is the function's type.
    let real: Sync = unsafe { std::mem::transmute(*NEXT.get_or_init(|| next(c"fsync"))) };
    if fails(before_sync()) {
        return -1;
    }
    // SAFETY: as the caller promised.
    unsafe { real(fd) }
}

/// In place of the C library's.
///
/// # Safety
///
/// As there.
#[allow(unsafe_code, reason = "takes the C library's place")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn write(fd: c_int, bytes: *const c_void, count: usize) -> isize {
    static NEXT: OnceLock<usize> = OnceLock::new();
    // SAFETY: that is the function's type.
    let real: Write = unsafe { std::mem::transmute(*NEXT.get_or_init(|| next(c"write"))) };
    if is_file(fd) && fails(ordered().write_fails) {
        return -1;
    }
    // SAFETY: as the caller promised.
    unsafe { real(fd, bytes, count) }
}

/// In place of the C library's.
///
/// # Safety
///
/// As there.
#[allow(unsafe_code, reason = "takes the C library's place")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pwrite64(fd: c_int, bytes: *const c_void, count: usize, offset: c_long) -> isize {
    static NEXT: OnceLock<usize> = OnceLock::new();
    // SAFETY: that is the function's type.
    let real: WriteAt = unsafe { std::mem::transmute(*NEXT.get_or_init(|| next(c"pwrite64"))) };
    if is_file(fd) && fails(ordered().write_fails) {
        return -1;
    }
    // SAFETY: as the caller promised.
    unsafe { real(fd, bytes, count, offset) }
}
