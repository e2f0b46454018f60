//! The `hooke` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    hooke::cli::main()
}
