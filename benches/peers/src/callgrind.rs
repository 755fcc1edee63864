//! Counts instructions, which are the same in each run, whatever the load of the machine.

use std::env::current_exe;
use std::process::Command;

const PACKETS: &str = "10000";

/// Returns the instructions per packet or message, including the loop around it; `None` if valgrind
/// reports none.
pub fn instructions(crate_name: &str, case: &str) -> Option<f64> {
    let function = match case.split_once(':').map_or(case, |(task, _)| task) {
        task if task.starts_with("decode") => "*decode_all*",
        task if task.starts_with("encode") || task.starts_with("made") => "*encode_all*",
        _ => "*exchange_all*",
    };
    let run = Command::new("valgrind")
        .args([
            "--tool=callgrind",
            "--callgrind-out-file=/dev/null",
            &format!("--toggle-collect={function}"),
        ])
        .arg(current_exe().ok()?)
        .args(["--only", crate_name, "--case", case, "--iterations", PACKETS])
        .output()
        .ok()?;
    let (output, report) =
        (String::from_utf8(run.stdout).ok()?, String::from_utf8(run.stderr).ok()?);
    let packets: f64 = output.rsplit_once(" times")?.0.rsplit_once(' ')?.1.parse().ok()?;
    let collected: f64 =
        report.split_once("Collected : ")?.1.lines().next()?.trim().parse().ok()?;
    (collected > 0.0).then_some(collected / packets)
}
