//! `weir-edge`, see the library.

fn main() -> std::process::ExitCode {
    weir_edge::main()
}
