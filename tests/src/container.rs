//! The server in a container, made by testcontainers.

use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use testcontainers::GenericImage;
use testcontainers::core::{ImageExt, IntoContainerPort, WaitFor};
use testcontainers::runners::AsyncRunner;

use crate::jars::free_port;
use crate::process::run;
use crate::server::{How, Neo4jServer, Settings, USER};

/// The images that will do, the wanted one first.
pub const IMAGES: [(&str, &str); 2] = [("neo4j", "5.26-community"), ("neo4j", "5")];

/// An engine that takes longer to answer a question about itself is not there.
const ENGINE_LIMIT: Duration = Duration::from_secs(20);

/// Stopping and starting, with the engine's own ten seconds before it kills.
const COMMAND_LIMIT: Duration = Duration::from_secs(90);

/// Creating and starting; a pull, which the check for the image rules out, would take longer.
const START_LIMIT: Duration = Duration::from_secs(120);

fn docker(args: &[&str], limit: Duration) -> Result<String, String> {
    run(Command::new("docker").args(args), limit)
}

/// Finds an image that is here already: nothing is ever pulled, which would hang where no registry can be reached.
///
/// # Errors
/// A sentence that says what is lacking.
pub fn find() -> Result<(&'static str, &'static str), String> {
    docker(&["version", "--format", "{{.Server.Version}}"], ENGINE_LIMIT).map_err(|e| {
        if e.contains("not installed") { e } else { "no container engine answers".to_owned() }
    })?;
    IMAGES
        .into_iter()
        .find(|(name, tag)| {
            docker(&["image", "inspect", "--format", "{{.Id}}", &format!("{name}:{tag}")], ENGINE_LIMIT)
                .is_ok()
        })
        .ok_or_else(|| format!("the image {}:{} is not here", IMAGES[0].0, IMAGES[0].1))
}

/// A container and the guardian that removes it when this process ends by any means.
#[derive(Debug)]
pub struct Container {
    name: String,
    guardian: Child,
}

impl Container {
    /// Creates and starts a container on a free port of loopback; the server does not answer yet.
    ///
    /// # Errors
    /// The engine's words.
    pub async fn new(image: (&str, &str), settings: &Settings) -> Result<(Neo4jServer, Self), String> {
        let port = free_port()?;
        let password = crate::server::password();
        let name = format!("pvegraph-test-{}-{port}", std::process::id());
        // The guardian is there before the container, so that nothing can come between. It reads a pipe that ends
        // with this process. The handle that testcontainers gives would only remove the container when dropped,
        // which statics never are.
        let guardian = Command::new("sh")
            .args(["-c", "cat >/dev/null; exec docker rm --force --volumes \"$1\"", "sh", &name])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .map_err(|e| format!("sh: {e}"))?;
        let container = Self { name, guardian };

        let mut request = GenericImage::new(image.0, image.1)
            .with_wait_for(WaitFor::Nothing)
            .with_container_name(&container.name)
            .with_startup_timeout(START_LIMIT)
            // a port of its own choice, not the engine's: that one changes when the container restarts
            .with_mapped_port(port, 7687.tcp())
            .with_host_config_modifier(|host| {
                for binding in host.port_bindings.iter_mut().flatten().flat_map(|(_, b)| b).flatten() {
                    binding.host_ip = Some("127.0.0.1".to_owned());
                }
            })
            .with_env_var("NEO4J_AUTH", format!("{USER}/{password}"));
        for (key, value) in settings.all() {
            request = request.with_env_var(variable(&key), value);
        }
        let handle = match tokio::time::timeout(START_LIMIT, request.start()).await {
            Ok(started) => started.map_err(|e| e.to_string())?,
            Err(_) => return Err(format!("the engine did not start a container within {START_LIMIT:?}")),
        };
        std::mem::forget(handle);
        let server = Neo4jServer {
            // the literal address: inside a container testcontainers would name the engine's bridge, where nothing listens
            bolt_uri: format!("bolt://127.0.0.1:{port}"),
            user: USER.to_owned(),
            password,
            how: How::Container,
        };
        Ok((server, container))
    }

    fn command(&self, args: &[&str]) -> Result<(), String> {
        docker(&[args, &[self.name.as_str()]].concat(), COMMAND_LIMIT).map(drop)
    }

    pub fn start(&self) -> Result<(), String> {
        self.command(&["start"])
    }

    pub fn alive(&self) -> bool {
        docker(&["inspect", "--format", "{{.State.Running}}", &self.name], ENGINE_LIMIT)
            .is_ok_and(|running| running == "true")
    }

    pub fn stop(&self) -> Result<(), String> {
        self.command(&["stop"])
    }

    pub fn kill(&self) -> Result<(), String> {
        self.command(&["kill"])
    }

    pub fn configure(&self, key: &str, value: &str) -> Result<(), String> {
        let script = "f=/var/lib/neo4j/conf/neo4j.conf; sed -i \"/^$1=/d\" $f; echo \"$1=$2\" >>$f";
        docker(&["exec", &self.name, "sh", "-c", script, "sh", key, value], COMMAND_LIMIT).map(drop)
    }

    pub fn log(&self) -> String {
        docker(&["logs", "--tail", "50", &self.name], ENGINE_LIMIT).unwrap_or_else(|e| e)
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        drop(self.guardian.stdin.take());
        let _ = self.guardian.wait();
    }
}

/// The image's variable for a setting: `.` becomes `_` and `_` becomes `__`.
fn variable(setting: &str) -> String {
    format!("NEO4J_{}", setting.replace('_', "__").replace('.', "_"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_images_variables() {
        assert_eq!(variable("server.memory.heap.max_size"), "NEO4J_server_memory_heap_max__size");
    }
}
