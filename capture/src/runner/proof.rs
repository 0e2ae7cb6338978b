//! What proves the messages of the source's triggers, asked for again before one of them counts as forged: whoever has
//! installed the triggers anew has given them another secret.

use thinwire_engine::model::Lsn;

use crate::{
    Options,
    error::Result,
    schema::{self, Secret, Told},
    slot::secret,
    sql,
};

/// The secret, as it was at a position.
#[derive(Debug)]
pub(super) struct Proof {
    secret: Secret,
    /// Whatever was committed before this is proven by it, or by none that is in force.
    as_of: Lsn,
}

impl Proof {
    /// One that was read at an unknown position.
    pub(super) fn new(secret: Secret) -> Self {
        Self { secret, as_of: Lsn::ZERO }
    }

    /// Reads a message in the transaction `xid`, which commits at `lsn`.
    ///
    /// # Errors
    /// The source could not be asked.
    pub(super) async fn read(
        &mut self,
        content: &[u8],
        options: &Options,
        xid: u32,
        lsn: Lsn,
    ) -> Result<Told> {
        let told = schema::read(content, &self.secret, &options.publication, xid);
        // However many are forged, it is asked once for all that was committed until then.
        if told != Told::Forged || lsn < self.as_of {
            return Ok(told);
        }
        self.ask(options).await?;
        Ok(schema::read(content, &self.secret, &options.publication, xid))
    }

    async fn ask(&mut self, options: &Options) -> Result<()> {
        let client = options.source.connect().await?;
        let flushed: String = client.query_one(sql::FLUSHED, &[]).await?.try_get(0)?;
        if let Some(secret) = secret(&client, &options.publication).await? {
            self.secret = secret;
        }
        self.as_of = flushed.parse().unwrap_or(Lsn::ZERO);
        Ok(())
    }
}
