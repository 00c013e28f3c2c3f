//! How this process uses memory: settings that only a program, not a library, may make.

/// To be called first. Has the allocator keep the buffers of an update rather than give them back: mapping and clearing fresh
/// pages for them costs some 5 ms of every update of the nature network at batch 160.
pub fn prepare() {
    #[cfg(target_env = "gnu")]
    // SAFETY: `mallopt` only sets parameters of the allocator.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 32 << 20);
        libc::mallopt(libc::M_TRIM_THRESHOLD, i32::MAX);
        libc::mallopt(libc::M_TOP_PAD, 64 << 20);
    }
}
