//! The measured processes: what each one used until it ended, by the kernel's own account of it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use tempfile::tempfile;
use wait4::Wait4;

use crate::figures::Usage;
use crate::problem::Problem;

/// How a measured process ended.
#[derive(Debug)]
pub struct Ended {
    /// What it used.
    pub usage: Usage,
    /// Its exit code; 128 + the signal, as a shell has it, where one ended it.
    pub code: i32,
    /// Its standard output.
    pub out: String,
    /// Its standard error.
    pub err: String,
}

impl Ended {
    /// Takes an end with one of these exit codes only.
    ///
    /// # Errors
    /// Another code, with the end of what the process said.
    pub fn with_code(self, what: &str, codes: &[i32]) -> Result<Self, Problem> {
        if codes.contains(&self.code) {
            return Ok(self);
        }
        let tail: Vec<&str> = self.err.lines().rev().take(20).collect();
        let tail: Vec<&str> = tail.into_iter().rev().collect();
        Err(Problem::new(format!("{what} ended with exit code {}:\n{}", self.code, tail.join("\n"))))
    }
}

/// Runs a process to its end.
///
/// Its memory is the kernel's `ru_maxrss`. A new process inherits there what its parent had resident, so that this process has
/// to stay small: whatever is large (rows, plans of requests) is the business of measured processes.
///
/// # Errors
/// It can't be started.
pub fn measure(command: &mut Command) -> Result<Ended, Problem> {
    let name = Path::new(command.get_program()).display().to_string();
    let failed = |error: std::io::Error| Problem::new(format!("{name}: {error}"));
    // Files, not pipes: nobody has to read while it runs.
    let (out, err) = (tempfile().map_err(failed)?, tempfile().map_err(failed)?);
    let handle = |file: &File| file.try_clone().map(Stdio::from).map_err(failed);
    command.stdin(Stdio::null()).stdout(handle(&out)?).stderr(handle(&err)?);
    let load_average = load_average();
    let began = Instant::now();
    let mut child = command.spawn().map_err(failed)?;
    let used = child.wait4().map_err(failed)?;
    let wall_seconds = began.elapsed().as_secs_f64();
    use std::os::unix::process::ExitStatusExt as _;
    let signal = || used.status.signal().map(|signal| 128 + signal);
    Ok(Ended {
        usage: Usage {
            wall_seconds,
            cpu_seconds: (used.rusage.utime + used.rusage.stime).as_secs_f64(),
            peak_bytes: used.rusage.maxrss,
            load_average,
        },
        code: used.status.code().or_else(signal).unwrap_or(-1),
        out: text(out).map_err(failed)?,
        err: text(err).map_err(failed)?,
    })
}

fn text(mut file: File) -> std::io::Result<String> {
    use std::io::{Read as _, Seek as _};
    file.rewind()?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The machine's load average over one minute; NaN where the kernel tells none.
pub fn load_average() -> f64 {
    let told = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    told.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or(f64::NAN)
}

/// A program of this project: the one that was named, else the one beside this program.
///
/// # Errors
/// It is not there.
pub fn program(name: &str, named: Option<&PathBuf>) -> Result<PathBuf, Problem> {
    let path = match named {
        Some(path) => path.clone(),
        None => own_path()?.with_file_name(name),
    };
    if path.is_file() {
        // A relative path would be looked for in the directory of the run.
        return path.canonicalize().map_err(|error| Problem::new(format!("{}: {error}", path.display())));
    }
    Err(Problem::new(format!(
        "{} is not there: build it (cargo build --release -p pvegraph -p pve-sim), or name it with --{name}",
        path.display()
    )))
}

/// Where this program is, which also makes the floors.
///
/// # Errors
/// The system does not tell.
pub fn own_path() -> Result<PathBuf, Problem> {
    std::env::current_exe()
        .map_err(|error| Problem::new(format!("the path of this program is not known: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_measured_and_its_words_are_kept() {
        let ended = measure(Command::new("sh").args(["-c", "echo out; echo err >&2; exit 3"])).unwrap();
        assert_eq!((ended.code, ended.out.as_str(), ended.err.as_str()), (3, "out\n", "err\n"));
        assert!(ended.usage.peak_bytes > 100_000, "{:?}", ended.usage);
        assert!(ended.usage.wall_seconds > 0.0);
        let error = ended.with_code("sh", &[0]).unwrap_err().to_string();
        assert!(error.contains("exit code 3") && error.contains("err"), "{error}");
    }

    #[test]
    fn processor_time_is_the_child_s_alone() {
        let busy =
            measure(Command::new("sh").args(["-c", "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done"]));
        let idle = measure(Command::new("true").arg("")).unwrap().usage.cpu_seconds;
        let busy = busy.unwrap().usage.cpu_seconds;
        assert!(busy > idle, "{busy} {idle}");
    }

    #[test]
    fn a_signal_is_an_exit_code() {
        assert_eq!(measure(Command::new("sh").args(["-c", "kill -9 $$"])).unwrap().code, 137);
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let error =
            program("pvegraph", Some(&PathBuf::from("/nonexistent/pvegraph"))).unwrap_err().to_string();
        assert!(error.contains("/nonexistent/pvegraph") && error.contains("--pvegraph"), "{error}");
    }
}
