//! `weir-cloud` with fault points, see the library's `faults`.

/// A fifth less CPU time than with glibc's; it serves librdkafka's allocations too.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    weir_cloud::main()
}
