//! `weir-edge`, see the library.

fn main() -> std::process::ExitCode {
    one_arena();
    weir_edge::main()
}

/// Messages are made by one thread and dropped by another. With an arena for each thread glibc keeps what was once used in
/// all of them: 5 MB more at 12,000 messages/s, and no faster.
#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "glibc has no other way to say it from inside the program")]
fn one_arena() {
    // SAFETY: called before any other thread is there; sets a number inside the allocator.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

#[cfg(not(target_env = "gnu"))]
const fn one_arena() {}
