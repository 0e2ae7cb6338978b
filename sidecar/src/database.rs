//! How the database is reached: a libpq connection string and the PG* environment, made into a value
//! that the clients can use.

mod passfile;
mod tls;
mod url;

use std::{env, net::IpAddr, path::Path, sync::Arc, time::Duration};

use tokio_postgres::config::{Config, Host, SslMode};

/// A database and how to authenticate to it.
#[derive(Debug, Clone)]
pub struct Database {
    /// Host, login, database.
    pub config: Config,
    /// How to encrypt; none if that is not wanted.
    pub tls: Option<Arc<rustls::ClientConfig>>,
    /// Whether no other server can answer in its place: it is on this machine, or proves its name.
    pub is_certain: bool,
}

/// A connection string that cannot be used. Never repeats the string: it may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DatabaseError(String);

impl DatabaseError {
    fn new(why: impl Into<String>) -> Self {
        Self(why.into())
    }
}

/// A database that does not answer is weather, but a dead address must not hold up the next try for long.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

impl Database {
    /// Reads a connection string in libpq's keyword or URI form; what it leaves open comes from the PG*
    /// environment and libpq's own defaults.
    ///
    /// # Errors
    /// One sentence.
    pub fn parse(text: &str) -> Result<Self, DatabaseError> {
        let parts = url::split(text)?;
        let mut config: Config = parts.rest.parse().map_err(|error: tokio_postgres::Error| {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            DatabaseError::new(format!(
                "not a connection string: {}",
                cause.unwrap_or_else(|| error.to_string())
            ))
        })?;
        fill_in(&mut config)?;
        let mode = parts.sslmode.or_else(|| variable("PGSSLMODE"));
        let root = parts.sslrootcert.or_else(|| variable("PGSSLROOTCERT"));
        let tls = tls::policy(mode.as_deref(), root.as_deref().map(Path::new))?;
        config.ssl_mode(tls.mode);
        let local = config.get_hostaddrs().is_empty()
            && config.get_hosts().iter().all(|host| matches!(host, Host::Unix(_)));
        if local {
            config.ssl_mode(SslMode::Disable);
        }
        let is_certain = tls.proves_name || is_here(&config);
        Ok(Self { config, tls: if local { None } else { tls.client }, is_certain })
    }
}

/// Whether a server is reached without leaving the machine.
fn is_here(config: &Config) -> bool {
    let is_loopback = |host: &Host| match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => {
            name == "localhost" || name.parse().is_ok_and(|it: IpAddr| it.is_loopback())
        }
    };
    match config.get_hostaddrs() {
        [] => config.get_hosts().iter().all(is_loopback),
        addresses => addresses.iter().all(IpAddr::is_loopback),
    }
}

fn fill_in(config: &mut Config) -> Result<(), DatabaseError> {
    if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
        let host = variable("PGHOST").unwrap_or_else(|| "/var/run/postgresql".to_owned());
        host.split(',').for_each(|host| {
            config.host(host);
        });
    }
    if config.get_ports().is_empty()
        && let Some(ports) = variable("PGPORT")
    {
        for port in ports.split(',') {
            let port = port.parse().map_err(|_| DatabaseError::new("PGPORT is not a port"))?;
            config.port(port);
        }
    }
    if config.get_user().is_none() {
        let user = variable("PGUSER").or_else(|| variable("USER")).or_else(|| variable("LOGNAME"));
        config.user(user.unwrap_or_else(|| "postgres".to_owned()));
    }
    if config.get_dbname().is_none() {
        let user = config.get_user().unwrap_or_default().to_owned();
        config.dbname(variable("PGDATABASE").unwrap_or(user));
    }
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(CONNECT_TIMEOUT);
    }
    if config.get_password().is_none()
        && let Some(password) = variable("PGPASSWORD").or_else(|| passfile::password(config))
    {
        config.password(password);
    }
    Ok(())
}

fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read() {
        for text in [
            "host=/run/postgresql dbname=shop user=thinwire",
            "postgresql://thinwire@%2Frun%2Fpostgresql/shop",
        ] {
            let database = Database::parse(text).unwrap();
            assert_eq!(database.config.get_dbname(), Some("shop"));
            assert_eq!(database.config.get_user(), Some("thinwire"));
            assert_eq!(database.config.get_ssl_mode(), SslMode::Disable);
            assert!(database.tls.is_none());
        }
    }

    #[test]
    fn only_a_socket_goes_without_tls() {
        for text in
            ["hostaddr=127.0.0.1 user=u", "host=/tmp hostaddr=127.0.0.1 user=u", "host=h user=u"]
        {
            let database = Database::parse(&format!("{text} sslmode=require")).unwrap();
            assert_eq!(database.config.get_ssl_mode(), SslMode::Require, "{text}");
            assert!(database.tls.is_some(), "{text}");
        }
    }

    #[test]
    fn a_server_elsewhere_that_does_not_prove_its_name_is_not_certain() {
        for (text, is_certain) in [
            ("host=/run/postgresql user=u", true),
            ("host=localhost user=u", true),
            ("host=db.example.com hostaddr=127.0.0.1 user=u", true),
            ("hostaddr=::1 user=u sslmode=disable", true),
            ("host=db.example.com user=u", false),
            ("host=10.0.0.1 user=u sslmode=require", false),
            ("host=localhost,db.example.com user=u", false),
            ("host=localhost hostaddr=10.0.0.1 user=u", false),
        ] {
            assert_eq!(Database::parse(text).unwrap().is_certain, is_certain, "{text}");
        }
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../capture/tests/it/tls/ca.crt");
        for (mode, is_certain) in [("verify-ca", false), ("verify-full", true)] {
            let text = format!("host=db.example.com user=u sslmode={mode} sslrootcert='{root}'");
            assert_eq!(Database::parse(&text).unwrap().is_certain, is_certain, "{mode}");
        }
    }

    #[test]
    fn a_mistake_is_named_and_the_password_is_not() {
        for text in [
            "host=a port=x password=hunter2",
            "host=a sslmode=sometimes password=hunter2",
            "host=a sslmode=verify-full password=hunter2",
            "host=a colour=red password=hunter2",
            "host='a password=hunter2",
        ] {
            let error = Database::parse(text).unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{error}");
            assert!(!error.is_empty());
        }
        let database = Database::parse("host=a user=u password=hunter2").unwrap();
        assert!(!format!("{database:?}").contains("hunter2"));
    }
}
