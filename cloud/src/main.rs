//! The program; everything is in the library.

fn main() -> std::process::ExitCode {
    weir_cloud::main()
}
