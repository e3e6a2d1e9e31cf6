//! A disk that limps, for a process that knows nothing of it: a library that is loaded before the C library
//! (`LD_PRELOAD`) and takes the place of `fsync`, `fdatasync`, `write`, `pwrite64` and `ftruncate64`. It also can set the
//! wall clock (`clock_gettime`), which a node must not care for.
//!
//! What the disk does is said by a small file (`order`), named by the environment variable `BALSA_LIMP_DISK` and read at
//! every call, so that a disk falls ill and recovers while the process runs. Without the variable or the file the disk is
//! sound. Only regular files are concerned: sockets, pipes and the standard streams are left alone.
//!
//! The node itself has no switch for any of this: what runs under the tests is the very binary that ships. It must be
//! linked dynamically, and must reach the disk by the C library, as Rust's `std::fs` does; `rustix` does not, so that
//! reserving space (`fallocate`) and measuring it (`statvfs`) always tell the truth here.

mod before;
mod order;

use order::Order;
use std::ffi::{CStr, c_char, c_int, c_long, c_void};
use std::fs::File;
use std::io;
use std::os::fd::FromRawFd;
use std::path::{Path, PathBuf};
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
type SetLength = unsafe extern "C" fn(c_int, c_long) -> c_int;
type Time = unsafe extern "C" fn(c_int, *mut Instant) -> c_int;

/// A point in time, as the C library has it.
#[derive(Debug)]
#[repr(C)]
pub struct Instant {
    /// Seconds.
    seconds: i64,
    /// And nanoseconds, below a second.
    nanoseconds: c_long,
}

/// The clock that people set.
const WALL_CLOCK: c_int = 0;

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

/// The file of orders.
fn order_file() -> Option<&'static Path> {
    static FILE: OnceLock<Option<PathBuf>> = OnceLock::new();
    FILE.get_or_init(|| std::env::var_os(VARIABLE).map(PathBuf::from)).as_deref()
}

/// What the disk is to do now.
fn ordered() -> Order {
    let Some(file) = order_file() else { return Order::default() };
    std::fs::read_to_string(file).map_or_else(|_| Order::default(), |text| Order::read(&text))
}

/// The records of what files held before, where they are kept.
fn records(order: &Order) -> Option<before::Taken> {
    order_file().and_then(|file| before::take(order.keeps_before, file))
}

/// Whether `fd` is a regular file, beyond the standard streams (which may be files, too).
#[allow(unsafe_code, reason = "looks at a file that another owns")]
fn is_file(fd: c_int) -> bool {
    // SAFETY: the caller's file is open during its call, and is not closed here.
    let file = std::mem::ManuallyDrop::new(unsafe { File::from_raw_fd(fd.max(0)) });
    fd > 2 && file.metadata().is_ok_and(|metadata| metadata.file_type().is_file())
}

/// Stalls, then says whether the call is to fail and how.
fn before_sync(order: &Order) -> Option<c_int> {
    static SYNCS: AtomicU64 = AtomicU64::new(0);
    let number = SYNCS.fetch_add(1, Ordering::Relaxed);
    if !order.sync_stall.is_zero() && number.is_multiple_of(order.sync_stall_every) {
        std::thread::sleep(order.sync_stall);
    }
    order.sync_fails
}

/// A sync by the C library's own function.
fn sync(fd: c_int, real: impl FnOnce() -> c_int) -> c_int {
    let order = ordered();
    // What is written from here on may miss this sync.
    let upto = records(&order).as_ref().and_then(|records| records.as_ref()).map(before::Records::end);
    if fails(before_sync(&order)) {
        return -1;
    }
    let answer = real();
    if answer == 0
        && is_file(fd)
        && let Some(upto) = upto
        && let Some(records) = records(&order).as_mut().and_then(|records| records.as_mut())
    {
        records.synced(fd, upto);
    }
    answer
}

/// A write by the C library's own function; `offset` as in [`before::Records::write`].
///
/// # Safety
///
/// `bytes` and `count` as for `write`.
#[allow(unsafe_code, reason = "reads what the caller writes")]
unsafe fn written(
    fd: c_int,
    bytes: *const c_void,
    count: usize,
    offset: Option<c_long>,
    real: impl FnOnce() -> isize,
) -> isize {
    if !is_file(fd) {
        return real();
    }
    let order = ordered();
    if fails(order.write_fails) {
        return -1;
    }
    let mut taken = records(&order);
    if let Some(records) = taken.as_mut().and_then(|records| records.as_mut()) {
        // SAFETY: as the caller promised.
        let new = unsafe { std::slice::from_raw_parts(bytes.cast::<u8>(), count) };
        records.write(fd, offset.map(c_long::cast_unsigned), new);
    }
    // The records are held until it is written.
    real()
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
    // SAFETY: as the caller promised.
    sync(fd, || unsafe { real(fd) })
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
    // SAFETY: as the caller promised.
    sync(fd, || unsafe { real(fd) })
}

/// The C library's own.
#[allow(unsafe_code, reason = "looking a symbol up")]
fn real_write() -> Write {
    static NEXT: OnceLock<usize> = OnceLock::new();
    // SAFETY: that is the function's type.
    unsafe { std::mem::transmute(*NEXT.get_or_init(|| next(c"write"))) }
}

/// Writes all of it, unseen by this library.
#[allow(unsafe_code, reason = "calls the C library's function")]
fn write_past_this_library(fd: c_int, bytes: &[u8]) -> io::Result<()> {
    let mut left = bytes;
    while !left.is_empty() {
        // SAFETY: the bytes are there.
        let written = unsafe { real_write()(fd, left.as_ptr().cast(), left.len()) };
        let written = usize::try_from(written).map_err(|_| io::Error::last_os_error())?;
        left = &left[written..];
    }
    Ok(())
}

/// In place of the C library's.
///
/// # Safety
///
/// As there.
#[allow(unsafe_code, reason = "takes the C library's place")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn write(fd: c_int, bytes: *const c_void, count: usize) -> isize {
    // SAFETY: as the caller promised.
    unsafe { written(fd, bytes, count, None, || real_write()(fd, bytes, count)) }
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
    // SAFETY: as the caller promised.
    unsafe { written(fd, bytes, count, Some(offset), || real(fd, bytes, count, offset)) }
}

/// In place of the C library's.
///
/// # Safety
///
/// As there.
#[allow(unsafe_code, reason = "takes the C library's place")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ftruncate64(fd: c_int, length: c_long) -> c_int {
    static NEXT: OnceLock<usize> = OnceLock::new();
    // SAFETY: that is the function's type.
    let real: SetLength = unsafe { std::mem::transmute(*NEXT.get_or_init(|| next(c"ftruncate64"))) };
    let mut taken = records(&ordered());
    if is_file(fd)
        && let Some(records) = taken.as_mut().and_then(|records| records.as_mut())
    {
        records.length(fd, length.cast_unsigned());
    }
    // SAFETY: as the caller promised.
    unsafe { real(fd, length) }
}

/// In place of the C library's.
///
/// # Safety
///
/// As there.
#[allow(unsafe_code, reason = "takes the C library's place")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: c_int, into: *mut Instant) -> c_int {
    static NEXT: OnceLock<usize> = OnceLock::new();
    // SAFETY: that is the function's type.
    let real: Time = unsafe { std::mem::transmute(*NEXT.get_or_init(|| next(c"clock_gettime"))) };
    // SAFETY: as the caller promised.
    let answer = unsafe { real(clock, into) };
    if clock != WALL_CLOCK || answer != 0 {
        return answer;
    }
    let shift_ms = ordered().wall_clock_ms;
    // SAFETY: the C library has written it.
    let instant = unsafe { &mut *into };
    instant.seconds += shift_ms / 1_000;
    instant.nanoseconds += shift_ms % 1_000 * 1_000_000;
    instant.seconds += instant.nanoseconds.div_euclid(1_000_000_000);
    instant.nanoseconds = instant.nanoseconds.rem_euclid(1_000_000_000);
    answer
}
