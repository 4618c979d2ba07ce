//! Running a command of the machine with a bound on its time.

use std::io::{Read, Seek};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Runs a command without input to its end and returns its standard output, trimmed.
///
/// # Errors
/// A sentence without a full stop: the command is not there, it failed (with what it wrote), or it took longer than
/// `limit`, in which case it is killed.
pub fn run(command: &mut Command, limit: Duration) -> Result<String, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let failed = |e: std::io::Error| match e.kind() {
        std::io::ErrorKind::NotFound => format!("`{name}` is not installed"),
        _ => format!("`{name}` could not be run: {e}"),
    };
    // files rather than pipes: a grandchild that holds a pipe open cannot keep this waiting
    let mut out = tempfile::tempfile().map_err(failed)?;
    let mut err = tempfile::tempfile().map_err(failed)?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(out.try_clone().map_err(failed)?)
        .stderr(err.try_clone().map_err(failed)?)
        .spawn()
        .map_err(failed)?;
    let end = Instant::now() + limit;
    let status = loop {
        if let Some(status) = child.try_wait().map_err(failed)? {
            break status;
        }
        if Instant::now() > end {
            let _ = child.kill();
            let _ = child.wait();
            return Err(format!("`{name}` did not end within {limit:?}"));
        }
        sleep(Duration::from_millis(10));
    };
    let read = |file: &mut std::fs::File| -> Result<String, String> {
        let mut bytes = Vec::new();
        file.rewind().map_err(failed)?;
        file.read_to_end(&mut bytes).map_err(failed)?;
        Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
    };
    let (out, err) = (read(&mut out)?, read(&mut err)?);
    if status.success() { Ok(out) } else { Err(format!("`{name}` failed ({status}): {err}{out}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn tells_success_failure_absence_and_lateness_apart() {
        let limit = Duration::from_secs(60);
        assert_eq!(run(&mut sh("echo a; echo b >&2"), limit), Ok("a".to_owned()));
        let failure = run(&mut sh("echo why >&2; exit 3"), limit).unwrap_err();
        assert!(failure.contains("why") && failure.contains('3'), "{failure}");
        let absence = run(&mut Command::new("no-such-command-here"), limit).unwrap_err();
        assert_eq!(absence, "`no-such-command-here` is not installed");
        let lateness = run(&mut sh("exec sleep 600"), Duration::from_millis(1)).unwrap_err();
        assert!(lateness.contains("did not end"), "{lateness}");
    }
}
