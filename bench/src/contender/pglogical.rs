//! pglogical as a contender, where it is installed: the extension that came before PostgreSQL's own logical replication.
//!
//! It is helped as native is: disabled in order before a backlog is collected, and told a new address at once.

use anyhow::Result;
use thinwire_cluster::{Cluster, Options};

use crate::contender::Contender;
use crate::contender::bed::{Bed, DATABASE};
use crate::contender::native::connection;

#[derive(Debug)]
pub(crate) struct Pglogical {
    /// How often its publisher had another address.
    addresses: u32,
}

/// Whether the servers of this machine have it.
pub(crate) fn is_installed() -> Result<bool> {
    let cluster = Cluster::start(Options::default())?;
    let there = "select count(*) from pg_available_extensions where name = 'pglogical'";
    Ok(cluster.psql("postgres", there)? == "1")
}

impl Pglogical {
    /// Both nodes are there, and the source offers all tables: those without a key for inserts only, as they must be.
    pub(crate) fn new(bed: &Bed) -> Result<Pglogical> {
        let dsn = connection(bed)?;
        // Later servers load only the decoders that they are told to trust.
        if bed.source.psql(DATABASE, TRUSTS)? == "1" {
            bed.source.set("output_plugin_libraries", "pglogical_output")?;
        }
        bed.source.psql(DATABASE, &format!("{};\n{OFFER}", node("source", &dsn)))?;
        let target = bed.target.url(DATABASE);
        bed.target.psql(DATABASE, &node("target", &target))?;
        Ok(Pglogical { addresses: 0 })
    }
}

/// Makes the extension and a node.
fn node(name: &str, dsn: &str) -> String {
    let dsn = dsn.replace('\'', "''");
    format!("create extension pglogical;\nselect pglogical.create_node('{name}', '{dsn}')")
}

impl Contender for Pglogical {
    fn name(&self) -> &'static str {
        NAME
    }

    fn start(&mut self, bed: &Bed) -> Result<()> {
        let dsn = connection(bed)?;
        bed.at_target(&format!(
            "select pglogical.create_subscription('bench', '{dsn}', forward_origins := '{{}}')"
        ))
    }

    fn has_copied(&self, bed: &Bed) -> Result<bool> {
        let status = "select count(*) from pglogical.show_subscription_status('bench') \
             where status = 'replicating'";
        let tables = "select count(*) from pglogical.local_sync_status where sync_status <> 'r'";
        let ask = |query| bed.target.psql(DATABASE, query);
        Ok(ask(status)? == "1" && ask(tables)? == "0")
    }

    fn part(&mut self, bed: &Bed) -> Result<()> {
        bed.at_target("select pglogical.alter_subscription_disable('bench', true)")
    }

    fn meet(&mut self, bed: &Bed) -> Result<()> {
        bed.at_target("select pglogical.alter_subscription_enable('bench', true)")
    }

    fn disconnect(&mut self, bed: &mut Bed) -> Result<()> {
        bed.source.psql(DATABASE, "select pg_terminate_backend(pid) from pg_stat_replication")?;
        Ok(())
    }

    fn readdressed(&mut self, bed: &Bed) -> Result<()> {
        self.addresses += 1;
        let (name, dsn) = (format!("address{}", self.addresses), connection(bed)?);
        bed.at_target(&format!(
            "select pglogical.alter_node_add_interface('source', '{name}', '{dsn}');\n\
             select pglogical.alter_subscription_interface('bench', '{name}')"
        ))
    }
}

pub(crate) const NAME: &str = "pglogical";
/// What its servers load when they start.
pub(crate) const LIBRARY: &str = "pglogical";
const TRUSTS: &str = "select count(*) from pg_settings where name = 'output_plugin_libraries'";
const OFFER: &str = "select pglogical.replication_set_add_table(\
    case when exists (select from pg_index i where i.indrelid = c.oid and i.indisprimary) \
    then 'default' else 'default_insert_only' end, c.oid) \
    from pg_class c where relkind = 'r' and relnamespace = 'public'::regnamespace";
