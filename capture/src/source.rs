//! How to connect to the source, and the settings that every session of ours has.

use std::{sync::Arc, time::Duration};

use tokio_postgres::{Client, Config, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::{
    error::{Error, Result},
    sql,
};

/// A database to capture from.
#[derive(Clone, Debug)]
pub struct Source {
    /// Where and as whom, with `PG*` variables resolved already. `sslmode` in it says whether TLS is used.
    pub config: Config,
    /// How TLS is done; without it only connections in the clear are possible.
    pub tls: Option<Arc<rustls::ClientConfig>>,
}

impl Source {
    /// A source without TLS.
    pub fn new(config: Config) -> Self {
        Self { config, tls: None }
    }

    /// Opens a plain SQL session with our settings. It ends when the client is dropped.
    ///
    /// # Errors
    /// [`Error::Unreachable`], or what the server said.
    pub async fn connect(&self) -> Result<Client> {
        let mut config = self.config.clone();
        config.application_name(APPLICATION_NAME).options(self.startup_options());
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT_TIMEOUT);
        }
        let limit = self.connect_timeout() * self.hosts_len();
        let connected = tokio::time::timeout(limit, connect(&config, self.tls.as_deref())).await;
        let client = match connected {
            Ok(connected) => connected.map_err(|error| self.unreachable(error))?,
            Err(_) => return Err(self.silent()),
        };
        client.batch_execute(sql::SETTINGS_WHERE_THEY_EXIST).await?;
        client.batch_execute(sql::LIMIT_SENDER_TIMEOUT).await?;
        Ok(client)
    }

    /// How long to wait for one host.
    pub(crate) fn connect_timeout(&self) -> Duration {
        self.config.get_connect_timeout().copied().unwrap_or(CONNECT_TIMEOUT)
    }

    /// Our settings as the `options` of a startup message, after those that the user configured.
    pub(crate) fn startup_options(&self) -> String {
        let mut options = self.config.get_options().unwrap_or_default().to_owned();
        for (name, value) in sql::SETTINGS {
            options.push_str(&format!(" -c {name}={}", value.replace(' ', "\\ ")));
        }
        options
    }

    fn hosts_len(&self) -> u32 {
        let hosts = self.config.get_hosts().len().max(self.config.get_hostaddrs().len());
        u32::try_from(hosts.max(1)).unwrap_or(u32::MAX)
    }

    /// Where the source is, for people.
    pub(crate) fn place(&self) -> String {
        let ports = self.config.get_ports();
        let hosts = self.config.get_hosts().iter().enumerate().map(|(at, host)| {
            let port = ports.get(at).or(ports.first()).copied().unwrap_or(DEFAULT_PORT);
            match host {
                tokio_postgres::config::Host::Tcp(name) => format!("{name}:{port}"),
                tokio_postgres::config::Host::Unix(dir) => format!("{}:{port}", dir.display()),
            }
        });
        hosts.collect::<Vec<_>>().join(", ")
    }

    fn unreachable(&self, error: tokio_postgres::Error) -> Error {
        match Error::from(error) {
            Error::Lost(text) => {
                Error::Unreachable { host: self.place(), source: std::io::Error::other(text) }
            }
            other => other,
        }
    }

    fn silent(&self) -> Error {
        let source = std::io::Error::from(std::io::ErrorKind::TimedOut);
        Error::Unreachable { host: self.place(), source }
    }
}

async fn connect(
    config: &Config,
    tls: Option<&rustls::ClientConfig>,
) -> std::result::Result<Client, tokio_postgres::Error> {
    match tls {
        Some(tls) => {
            let (client, connection) = config.connect(MakeRustlsConnect::new(tls.clone())).await?;
            tokio::spawn(log_end(connection));
            Ok(client)
        }
        None => {
            let (client, connection) = config.connect(NoTls).await?;
            tokio::spawn(log_end(connection));
            Ok(client)
        }
    }
}

/// Drives a session until it ends. What broke it is also told to whoever waits for an answer.
async fn log_end(connection: impl Future<Output = std::result::Result<(), tokio_postgres::Error>>) {
    if let Err(error) = connection.await {
        tracing::debug!(error = crate::error::chain(&error), "a session at the source broke");
    }
}

/// How we call ourselves in `pg_stat_activity`.
pub(crate) const APPLICATION_NAME: &str = "thinwire";

pub(crate) const DEFAULT_PORT: u16 = 5432;

/// Long enough for a slow link to a database, short enough that the next host gets its turn.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
