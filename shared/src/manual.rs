//! What a package ships beside a program: its man pages and what shells complete.
//!
//! Comes in: the description of the command line. Goes out: files in a folder, named as Debian has them. On failure: the error of
//! the file system.

use std::fs::{self, File};
use std::path::Path;

use clap::Command;
use clap_complete::{Shell, generate_to};

/// Writes `man/*.1` and the completions of bash, zsh and fish.
///
/// # Errors
/// What cannot be written.
pub fn write(mut command: Command, folder: &Path) -> std::io::Result<()> {
    let man = folder.join("man");
    fs::create_dir_all(&man)?;
    clap_mangen::generate_to(command.clone(), &man)?;
    let name = command.get_name().to_owned();
    generate_to(Shell::Zsh, &mut command, &name, folder)?;
    generate_to(Shell::Fish, &mut command, &name, folder)?;
    clap_complete::generate(Shell::Bash, &mut command, &name, &mut File::create(folder.join(&name))?);
    Ok(())
}
