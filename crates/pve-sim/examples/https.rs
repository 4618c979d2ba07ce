//! How many config answers a second a running `pve-sim` gives over HTTPS, with connections that stay.
//!
//! ```text
//! taskset -c 0 target/release/pve-sim --guests 1000 --seed 7 --listen 127.0.0.1:8006 --out DIRECTORY &
//! taskset -c 1 target/release/examples/https 127.0.0.1:8006 DIRECTORY/ca.pem USER@REALM!NAME=SECRET PROCESS
//! ```
//!
//! With the number of the server's process (Linux) it also tells how many answers a second of that process's own processor
//! time gives, which other load on the machine does not change.
//!
//! Each connection sends the next request when an answer has come, so the load is as many requests at once as there are
//! connections. The client only counts bytes, so that it is not what is measured.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

const CONNECTIONS: usize = 16;
const DURATION: Duration = Duration::from_secs(5);

type Failure = Box<dyn Error + Send + Sync>;

/// Sends a request and reads its answer: the status and the body.
async fn exchange(
    stream: &mut (impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin),
    path: &str,
    token: &str,
    buffer: &mut Vec<u8>,
) -> Result<(u16, Vec<u8>), Failure> {
    let request =
        format!("GET /api2/json{path} HTTP/1.1\r\nHost: pve\r\nAuthorization: PVEAPIToken={token}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await?;
    buffer.clear();
    let head = loop {
        if stream.read_buf(buffer).await? == 0 {
            return Err("the connection was closed".into());
        }
        if let Some(end) = buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            break end + 4;
        }
    };
    let text = String::from_utf8_lossy(buffer.get(..head).unwrap_or_default()).to_ascii_lowercase();
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default();
    let length = text
        .split("content-length: ")
        .nth(1)
        .and_then(|rest| rest.split("\r\n").next()?.parse::<usize>().ok());
    let whole = head + length.ok_or("an answer without a length")?;
    while buffer.len() < whole {
        if stream.read_buf(buffer).await? == 0 {
            return Err("the connection was closed".into());
        }
    }
    Ok((status, buffer.get(head..whole).unwrap_or_default().to_vec()))
}

/// The processor time that a process has used, in hundredths of a second.
fn used(process: &str) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let (Some(address), Some(ca), Some(token)) = (arguments.next(), arguments.next(), arguments.next())
    else {
        return Err("usage: https ADDRESS CA-FILE TOKEN [PROCESS]".into());
    };
    let process = arguments.next();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&ca)?)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = TlsConnector::from(Arc::new(config));
    let name = ServerName::try_from(address.split(':').next().unwrap_or_default().to_owned())?;
    let connect = || async {
        let stream = TcpStream::connect(&address).await?;
        stream.set_nodelay(true)?;
        Ok::<_, Failure>(connector.connect(name.clone(), stream).await?)
    };

    let mut first = connect().await?;
    let (_, body) = exchange(&mut first, "/cluster/resources?type=vm", &token, &mut Vec::new()).await?;
    let rows: serde_json::Value = serde_json::from_slice(&body)?;
    let path = |row: &serde_json::Value| {
        let text =
            |key: &str| row.get(key).and_then(serde_json::Value::as_str).unwrap_or_default().to_owned();
        format!("/nodes/{}/{}/config", text("node"), text("id"))
    };
    let rows = rows.get("data").and_then(serde_json::Value::as_array).ok_or("no guests")?;
    let paths: Arc<Vec<String>> = Arc::new(rows.iter().map(path).collect());

    let (answers, bytes) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let before = process.as_deref().and_then(used);
    let started = Instant::now();
    let mut clients = Vec::new();
    for number in 0..CONNECTIONS {
        let mut stream = connect().await?;
        let (paths, token) = (Arc::clone(&paths), token.clone());
        let (answers, bytes) = (Arc::clone(&answers), Arc::clone(&bytes));
        clients.push(tokio::spawn(async move {
            let mut buffer = Vec::new();
            for path in paths.iter().cycle().skip(number * 37) {
                if started.elapsed() > DURATION {
                    break;
                }
                let (status, body) = exchange(&mut stream, path, &token, &mut buffer).await?;
                if status != 200 {
                    return Err(format!("{path}: {status}").into());
                }
                answers.fetch_add(1, Ordering::Relaxed);
                bytes.fetch_add(body.len() as u64, Ordering::Relaxed);
            }
            Ok::<(), Failure>(())
        }));
    }
    for client in clients {
        client.await??;
    }
    let (answers, bytes) = (answers.load(Ordering::Relaxed), bytes.load(Ordering::Relaxed));
    let rate = answers as f64 / started.elapsed().as_secs_f64();
    println!(
        "{rate:.0} config answers a second over {CONNECTIONS} connections, {} bytes each",
        bytes / answers.max(1)
    );
    if let (Some(before), Some(after)) = (before, process.as_deref().and_then(used)) {
        let seconds = after.saturating_sub(before).max(1) as f64 / 100.0;
        println!("{:.0} config answers per second of the server's processor time", answers as f64 / seconds);
    }
    Ok(())
}
