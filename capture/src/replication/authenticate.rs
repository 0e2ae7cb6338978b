//! Proving who we are to a server, and with SCRAM the server to us.

use fallible_iterator::FallibleIterator;
use postgres_protocol::{
    authentication::{
        md5_hash,
        sasl::{ChannelBinding, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramSha256},
    },
    message::{
        backend::{AuthenticationSaslBody, Message},
        frontend,
    },
};
use tokio_postgres::{Config, config};

use super::connection::Connection;
use crate::error::{Error, Result};

/// Answers the server's demands until it is content.
pub(super) async fn authenticate(
    connection: &mut Connection,
    config: &Config,
    server_end_point: Option<Vec<u8>>,
) -> Result<()> {
    let must_bind = config.get_channel_binding() == config::ChannelBinding::Require;
    match connection.read().await? {
        Message::AuthenticationOk if must_bind => Err(not_bound()),
        Message::AuthenticationOk => Ok(()),
        Message::AuthenticationCleartextPassword | Message::AuthenticationMd5Password(_)
            if must_bind =>
        {
            Err(not_bound())
        }
        Message::AuthenticationCleartextPassword => {
            let password = password(config)?;
            frontend::password_message(password, connection.output()).map_err(unsendable)?;
            accepted(connection).await
        }
        Message::AuthenticationMd5Password(body) => {
            let user = config.get_user().unwrap_or_default();
            let hash = md5_hash(user.as_bytes(), password(config)?, body.salt());
            frontend::password_message(hash.as_bytes(), connection.output()).map_err(unsendable)?;
            accepted(connection).await
        }
        Message::AuthenticationSasl(body) => {
            let binding = Binding { server_end_point, wanted: config.get_channel_binding() };
            scram(connection, password(config)?, &body, binding).await
        }
        _ => Err(unsupported()),
    }
}

struct Binding {
    server_end_point: Option<Vec<u8>>,
    wanted: config::ChannelBinding,
}

impl Binding {
    /// The strongest mechanism that both sides can do.
    fn choose(self, offered: &[String]) -> Result<(&'static str, ChannelBinding)> {
        let offers = |mechanism: &str| offered.iter().any(|it| it == mechanism);
        let hash = match self.wanted {
            config::ChannelBinding::Disable => None,
            _ => self.server_end_point,
        };
        match hash {
            Some(hash) if offers(SCRAM_SHA_256_PLUS) => {
                Ok((SCRAM_SHA_256_PLUS, ChannelBinding::tls_server_end_point(hash)))
            }
            _ if self.wanted == config::ChannelBinding::Require => Err(not_bound()),
            // Says that we could have bound, so that a server that could too knows of somebody in between.
            Some(_) if offers(SCRAM_SHA_256) => Ok((SCRAM_SHA_256, ChannelBinding::unrequested())),
            None if offers(SCRAM_SHA_256) => Ok((SCRAM_SHA_256, ChannelBinding::unsupported())),
            _ => Err(unsupported()),
        }
    }
}

/// The library bounds the iteration count, which the server chooses and we have to work for.
async fn scram(
    connection: &mut Connection,
    password: &[u8],
    body: &AuthenticationSaslBody,
    binding: Binding,
) -> Result<()> {
    let offered: Vec<String> =
        body.mechanisms().map(|it| Ok(it.to_owned())).collect().map_err(unsendable)?;
    let (mechanism, binding) = binding.choose(&offered)?;
    let mut scram = ScramSha256::new(password, binding);
    frontend::sasl_initial_response(mechanism, scram.message(), connection.output())
        .map_err(unsendable)?;
    connection.flush().await?;
    match connection.read().await? {
        Message::AuthenticationSaslContinue(body) => {
            scram.update(body.data()).map_err(refused)?;
        }
        _ => return Err(unsupported()),
    }
    frontend::sasl_response(scram.message(), connection.output()).map_err(unsendable)?;
    connection.flush().await?;
    match connection.read().await? {
        Message::AuthenticationSaslFinal(body) => scram.finish(body.data()).map_err(refused)?,
        _ => return Err(unsupported()),
    }
    match connection.read().await? {
        Message::AuthenticationOk => Ok(()),
        _ => Err(unsupported()),
    }
}

async fn accepted(connection: &mut Connection) -> Result<()> {
    connection.flush().await?;
    match connection.read().await? {
        Message::AuthenticationOk => Ok(()),
        _ => Err(unsupported()),
    }
}

fn password(config: &Config) -> Result<&[u8]> {
    config.get_password().ok_or_else(|| {
        Error::Handshake("the server asks for a password and none is configured".to_owned())
    })
}

fn not_bound() -> Error {
    Error::Handshake("channel_binding=require, but the server does not bind".to_owned())
}

fn unsupported() -> Error {
    Error::Handshake(
        "the server asks for a way of authentication that Thinwire does not know \
         (it knows SCRAM-SHA-256, md5, password and trust)"
            .to_owned(),
    )
}

fn unsendable(error: std::io::Error) -> Error {
    Error::Handshake(format!("the server's demand for authentication is malformed: {error}"))
}

fn refused(error: std::io::Error) -> Error {
    Error::Handshake(format!("the server did not prove that it knows the password: {error}"))
}
