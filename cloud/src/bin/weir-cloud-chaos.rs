//! `weir-cloud` with fault points, see the library's `faults`.

fn main() -> std::process::ExitCode {
    weir_cloud::main()
}
