//! `weir-edge` with fault points, see the library's `faults`.

fn main() -> std::process::ExitCode {
    weir_edge::main()
}
