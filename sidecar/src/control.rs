//! How commands reach the running node: one line of JSON each way over a socket that only its owner can open.

use std::{
    io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::Path,
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    time::timeout,
};
use tracing::debug;

use crate::{node::Node, status::Status};

/// What a command asks of the node.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "command")]
pub enum Request {
    /// How it is doing.
    Status,
    /// Stop until told to resume.
    Pause(Scope),
    /// Go on.
    Resume(Scope),
    /// Try again at once what has halted.
    Retry(Scope),
    /// Leave out what has halted a stream.
    Skip(Skip),
    /// Take the peers from the configuration as it is now.
    Reload,
}

/// What is to be left out.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Skip {
    /// The stream's origin, by its fingerprint or name.
    pub origin: String,
    /// The record that the halt names.
    pub offset: u64,
}

/// What a request is about; everything if nothing is named.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Scope {
    /// A peer's name.
    pub peer: Option<String>,
    /// A stream, by its origin's fingerprint or name.
    pub stream: Option<String>,
}

/// What the node answers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Response {
    /// How it is doing.
    Status(Box<Status>),
    /// It was done.
    Done,
    /// It was not done, and why.
    Refused(String),
}

/// A request is small; a node that got a longer line is not talking to us.
const REQUEST_BYTES_MAX: u64 = 64 << 10;
/// A status names every stream of every peer.
const RESPONSE_BYTES_MAX: u64 = 64 << 20;
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Opens the socket. One left behind by a node that was killed is replaced: the caller holds the journal's
/// lock, so no other node is using it.
///
/// # Errors
/// What the system says; a path too long for a socket among it.
pub fn listen(path: &Path) -> io::Result<UnixListener> {
    // Bound where only we may go and moved into its place with its permissions: nobody else can open it at any moment.
    let hidden = path.with_file_name(".control");
    match std::fs::remove_dir_all(&hidden) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    std::fs::DirBuilder::new().mode(0o700).create(&hidden)?;
    let draft = hidden.join("s");
    let listener = UnixListener::bind(&draft)?;
    std::fs::set_permissions(&draft, std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(&draft, path)?;
    std::fs::remove_dir(&hidden)?;
    Ok(listener)
}

/// Answers requests until it is dropped.
pub async fn serve(listener: UnixListener, node: Arc<Node>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let node = node.clone();
                tokio::spawn(async move {
                    if let Err(error) = answer(stream, &node).await {
                        debug!(%error, "a command went away");
                    }
                });
            }
            // Out of descriptors, perhaps: those in use will be given back.
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn answer(stream: UnixStream, node: &Arc<Node>) -> io::Result<()> {
    // Only the node's own user and root can open the socket.
    let user = stream.peer_cred()?.uid();
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    let mut read = BufReader::new(read.take(REQUEST_BYTES_MAX));
    timeout(ANSWER_TIMEOUT, read.read_line(&mut line)).await??;
    let response = match serde_json::from_str(&line) {
        Ok(request) => node.handle(request, user).await,
        Err(error) => Response::Refused(format!("not a request: {error}")),
    };
    let mut bytes = serde_json::to_vec(&response)?;
    bytes.push(b'\n');
    write.write_all(&bytes).await
}

/// Asks the node behind the socket at `path`. `None` if none is running.
///
/// # Errors
/// What the system says of a node that runs but does not answer.
pub async fn ask(path: &Path, request: &Request) -> io::Result<Option<Response>> {
    let stream = match UnixStream::connect(path).await {
        Ok(stream) => stream,
        Err(error) => {
            return match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Ok(None),
                _ => Err(error),
            };
        }
    };
    let exchange = async {
        let (read, mut write) = stream.into_split();
        let mut bytes = serde_json::to_vec(request)?;
        bytes.push(b'\n');
        write.write_all(&bytes).await?;
        let mut line = String::new();
        BufReader::new(read.take(RESPONSE_BYTES_MAX)).read_line(&mut line).await?;
        Ok(serde_json::from_str(&line)?)
    };
    timeout(ANSWER_TIMEOUT, exchange).await?.map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_socket_is_its_owners_alone_and_replaces_what_was_left() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        for _ in 0..3 {
            std::fs::create_dir(dir.path().join(".control")).unwrap();
            std::fs::write(dir.path().join(".control/s"), b"left by a killed process").unwrap();
            let _listener = listen(&path).unwrap();
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
            assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
            assert!(UnixStream::connect(&path).await.is_ok());
        }
    }
}
