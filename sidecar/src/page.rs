//! The status page: what `thinwire status` says, over HTTP, for those who may look but not touch.

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::CONTENT_TYPE,
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{sleep, timeout},
};
use tracing::{debug, info, warn};

use crate::{metrics, node::Node};

/// A browser and a scraper or two; more at once would only wait for each other.
const CONNECTIONS_MAX: usize = 16;
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// Long enough for a status of many streams over a slow link.
const CONVERSATION_TIMEOUT: Duration = Duration::from_secs(30);
/// How often an address that is not there is looked for.
const ADDRESS_RECHECK: Duration = Duration::from_secs(2);

/// The status page's port.
pub struct Page {
    address: SocketAddr,
    listener: Option<TcpListener>,
}

impl Page {
    /// Opens the port. An address that is not there is waited for by [`serve`](Self::serve).
    ///
    /// # Errors
    /// What somebody has to mend: another process holds the port, or it is not ours to have.
    pub async fn open(address: SocketAddr) -> io::Result<Self> {
        match TcpListener::bind(address).await {
            Ok(listener) => Ok(Self { address, listener: Some(listener) }),
            Err(error) if is_for_people(&error) => Err(error),
            Err(error) => {
                warn!(%address, %error, "cannot show the status page yet; trying again");
                Ok(Self { address, listener: None })
            }
        }
    }

    /// Answers until it is dropped, once the address is there.
    pub async fn serve(self, node: Arc<Node>) {
        let listener = match self.listener {
            Some(listener) => listener,
            None => match bind_when_there(self.address).await {
                Ok(listener) => listener,
                Err(error) => return node.fail(unopened(self.address, &error)),
            },
        };
        let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let Ok(slot) = slots.clone().acquire_owned().await else { return };
            let Ok((stream, _)) = listener.accept().await else {
                // Out of descriptors, perhaps: those in use will be given back.
                sleep(Duration::from_millis(100)).await;
                continue;
            };
            let node = node.clone();
            tokio::spawn(async move {
                converse(stream, node).await;
                drop(slot);
            });
        }
    }
}

/// Why there is no page, in a sentence.
pub fn unopened(address: SocketAddr, error: &io::Error) -> String {
    format!("cannot open the status page at {address}: {error}")
}

fn is_for_people(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied)
}

async fn bind_when_there(address: SocketAddr) -> io::Result<TcpListener> {
    loop {
        sleep(ADDRESS_RECHECK).await;
        match TcpListener::bind(address).await {
            Err(error) if !is_for_people(&error) => {}
            outcome => {
                info!(%address, "the status page's address is there");
                return outcome;
            }
        }
    }
}

/// One request and its answer. A reader that stops to read, or never asks, has no more time than any other.
async fn converse(stream: TcpStream, node: Arc<Node>) {
    let service = service_fn(move |request| answer(node.clone(), request));
    let conversation = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    match timeout(CONVERSATION_TIMEOUT, conversation).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%error, "a reader of the status page went away"),
        Err(_) => debug!("a reader of the status page took too long"),
    }
}

async fn answer(
    node: Arc<Node>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (code, kind, text) = match (request.method(), request.uri().path()) {
        (&Method::GET, "/") => (StatusCode::OK, TEXT, node.status().render()),
        (&Method::GET, "/status.json") => match serde_json::to_string(&node.status()) {
            Ok(text) => (StatusCode::OK, "application/json", text),
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, TEXT, error.to_string()),
        },
        (&Method::GET, "/metrics") => {
            (StatusCode::OK, metrics::CONTENT_TYPE, metrics::render(&node.status()))
        }
        (&Method::GET, _) => {
            let text = "there are /, /status.json and /metrics\n".to_owned();
            (StatusCode::NOT_FOUND, TEXT, text)
        }
        _ => (StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET is answered\n".to_owned()),
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    Ok(response)
}

const TEXT: &str = "text/plain; charset=utf-8";
