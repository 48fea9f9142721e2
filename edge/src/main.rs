//! `weir-edge`, see the library.

/// Messages are made by one thread and dropped by another, which glibc answers with memory that it never gives back.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    weir_edge::main()
}
