//! Every precondition of capture, one line each, with its cure.

use tokio_postgres::Client;

use super::{
    InitOptions, following,
    inventory::{self, Server, VERSION_MIN},
    plan,
    published::{Accepted, published},
};
use crate::{
    Ddl,
    error::{Error, Result},
    replication::Connection,
    slot::name_for,
    source::{APPLICATION_NAME, Source},
    sql,
};

/// One precondition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// Whether it holds.
    pub ok: bool,
    /// What was looked at, and what was found.
    pub what: String,
    /// What to do about it. With `ok`, advice that is not urgent.
    pub cure: Option<String>,
}

/// Looks at all preconditions as the login that will run. Stops early only where the rest cannot be told.
pub async fn check(source: &Source, options: &InitOptions) -> Vec<Check> {
    let name = name_for(&options.node);
    let mut checks = Checks(Vec::new());
    let client = match source.connect().await {
        Ok(client) => client,
        Err(error) => {
            checks.fails(error.to_string(), cure_of_connecting(&error));
            return checks.0;
        }
    };
    checks.holds(format!("the database answers at {}", source.place()));
    if let Err(error) = all(&client, source, &name, options, &mut checks).await {
        checks.fails(format!("looking at the database failed: {error}"), "look at its log".into());
    }
    checks.0
}

struct Checks(Vec<Check>);

impl Checks {
    fn holds(&mut self, what: impl Into<String>) {
        self.0.push(Check { ok: true, what: what.into(), cure: None });
    }

    fn fails(&mut self, what: impl Into<String>, cure: String) {
        self.0.push(Check { ok: false, what: what.into(), cure: Some(cure) });
    }

    fn advises(&mut self, what: impl Into<String>, cure: String) {
        self.0.push(Check { ok: true, what: what.into(), cure: Some(cure) });
    }
}

async fn all(
    client: &Client,
    source: &Source,
    name: &str,
    options: &InitOptions,
    checks: &mut Checks,
) -> Result<()> {
    let server = inventory::server(client).await?;
    server_itself(&server, checks);
    if let Some(doubt) = server.doubt() {
        let cure = "make sure that all of it is UTF-8, or capture a database with an encoding";
        checks.advises(doubt, cure.into());
    }
    login(client, source, &server, checks).await?;
    slot(client, name, checks).await?;
    publication(client, name, options, checks).await?;
    following(client, name, options, checks).await?;
    standbys(client, checks).await?;
    room(client, checks).await
}

fn server_itself(server: &Server, checks: &mut Checks) {
    let version = server.version / 10_000;
    match server.version >= VERSION_MIN {
        true => checks.holds(format!("it is PostgreSQL {version}")),
        false => {
            checks.fails(format!("it is PostgreSQL {version}"), "upgrade to 14 or later".into())
        }
    }
    match server.wal_level.as_str() {
        "logical" => checks.holds("wal_level is logical"),
        level => checks.fails(
            format!("wal_level is {level}"),
            "run `ALTER SYSTEM SET wal_level = logical` and restart the server".into(),
        ),
    }
    if let Some(minor) = heedful_minor(server.version) {
        checks.advises(
            "a transaction that is under way when a table is published, or published otherwise, goes on as before: \
             rows of it are missed, or told that are not chosen any more",
            format!("upgrade to {version}.{minor} or later"),
        );
    }
}

/// The minor version from which on a publication that is changed holds for transactions that are under way, if a server
/// is older than that.
fn heedful_minor(version: i32) -> Option<i32> {
    let (major, minor) = (version / 10_000, version % 10_000);
    let (_, needed) = *HEEDFUL.iter().find(|(it, _)| *it == major)?;
    (minor < needed).then_some(needed)
}

/// Later major versions are so from their first.
const HEEDFUL: [(i32, i32); 4] = [(14, 18), (15, 13), (16, 9), (17, 5)];

async fn login(
    client: &Client,
    source: &Source,
    server: &Server,
    checks: &mut Checks,
) -> Result<()> {
    let user = &server.user;
    let row = client.query_one(sql::ROLE, &[user]).await?;
    let (may_replicate, is_superuser): (bool, bool) = (row.try_get(0)?, row.try_get(1)?);
    if is_superuser {
        checks.advises(
            format!("the login {user} is a superuser"),
            "a login with REPLICATION and SELECT is enough; see the README".into(),
        );
    }
    if !may_replicate {
        checks.fails(
            format!("the login {user} may not replicate"),
            format!("run `{}`", sql::allow_replication(user)),
        );
        return Ok(());
    }
    match Connection::open(source).await {
        Ok(_) => checks.holds(format!("the login {user} may replicate")),
        Err(error) => checks.fails(
            format!("a replication session is refused: {error}"),
            "allow it in pg_hba.conf (a line for the database itself is enough)".into(),
        ),
    }
    Ok(())
}

async fn slot(client: &Client, name: &str, checks: &mut Checks) -> Result<()> {
    let Some(slot) = inventory::slot_state(client, name).await? else {
        checks.fails(format!("the slot {name} is not there"), "run `thinwire init`".into());
        return Ok(());
    };
    let drop =
        || format!("drop it (`SELECT pg_drop_replication_slot('{name}')`) and run `thinwire init`");
    if !slot.is_here || slot.is_temporary || slot.plugin.as_deref() != Some("pgoutput") {
        checks.fails(format!("the slot {name} is not Thinwire's for this database"), drop());
    } else if slot.wal_status.as_deref() == Some("lost") {
        checks.fails(
            format!("the slot {name} is lost: the server removed the log it needs"),
            format!("{}; the tables are copied again", drop()),
        );
    } else {
        let holder = match slot.active_pid {
            Some(pid) => format!(", in use by process {pid}"),
            None => String::new(),
        };
        let retained = slot.retained_bytes;
        checks.holds(format!("the slot {name} is there ({retained} bytes of log kept{holder})"));
    }
    Ok(())
}

async fn publication(
    client: &Client,
    name: &str,
    options: &InitOptions,
    checks: &mut Checks,
) -> Result<()> {
    let found = published(client, name, &options.choice, &mut Accepted::default()).await;
    let found = match found {
        Ok(found) => found,
        Err(Error::Refused(why)) => {
            checks.fails(why, "run `thinwire init`".into());
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    checks.holds(format!("the publication {name} has {} tables", found.tables.len()));
    for difference in found.differences {
        checks.fails(difference, "run `thinwire init`".into());
    }
    let inventory = inventory::take(client, name, name, None).await?;
    for problem in plan::misnamed(&inventory, &options.patterns) {
        checks.fails(problem, "then run `thinwire init`".into());
    }
    for table in plan::unpublished(&inventory, &options.patterns) {
        checks.advises(format!("{table} is meant and not published"), "run `thinwire init`".into());
    }
    for row in client.query(sql::UNREADABLE, &[&name]).await? {
        let (table, may_read, is_filtered): (String, bool, bool) =
            (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        if !may_read {
            checks.fails(format!("{table} may not be read"), "run `thinwire init`".into());
        } else if is_filtered {
            checks.fails(
                format!("row-level security hides rows of {table}"),
                "give the login BYPASSRLS, or exclude the table".into(),
            );
        }
    }
    Ok(())
}

async fn following(
    client: &Client,
    name: &str,
    options: &InitOptions,
    checks: &mut Checks,
) -> Result<()> {
    if options.ddl == Ddl::Stop {
        if options.choice.operations().need_identity() {
            for (table, is_urgent) in following::unguarded(client, name).await? {
                let what = format!(
                    "{table} has no key, and no event trigger looks after its partitions and generated columns"
                );
                let cure = "run `thinwire init` as a superuser, or give it a primary key".into();
                match is_urgent {
                    true => checks.fails(what, cure),
                    false => checks.advises(what, cure),
                }
            }
        }
        return sequences(client, name, checks).await;
    }
    let problem = match following::problem(client, name).await? {
        None => following::misjudged(client, name, &options.choice).await?,
        problem => problem,
    };
    match problem {
        None => {
            checks.holds("schema changes are followed");
            checks.0.extend(left_out(client, name).await?);
        }
        Some(problem) => checks.fails(problem, "run `thinwire init` as a superuser".into()),
    }
    Ok(())
}

/// That sequences stand still at the target where schema changes are not followed.
async fn sequences(client: &Client, name: &str, checks: &mut Checks) -> Result<()> {
    let many: i64 = client.query_one(sql::OWN_SEQUENCES, &[&name]).await?.try_get(0)?;
    if many > 0 {
        checks.advises(
            format!("not carried: {many} sequences of captured tables"),
            "set `ddl = \"replicate\"`, or run `setval` before the target takes over".into(),
        );
    }
    Ok(())
}

/// What does not travel, so that somebody knows it before it is missed.
async fn left_out(client: &Client, name: &str) -> Result<Option<Check>> {
    let row = client.query_one(sql::schema::LEFT_OUT, &[&name]).await?;
    let names: Option<String> = row.try_get(0)?;
    Ok(names.map(|names| Check {
        ok: true,
        what: format!("not carried with the schema: {names}"),
        cure: Some("make them at the target by hand where they are needed".into()),
    }))
}

/// A logical sender cannot say that it is no standby.
async fn standbys(client: &Client, checks: &mut Checks) -> Result<()> {
    let row = client.query_one(sql::SYNCHRONOUS_STANDBYS, &[]).await?;
    if means_us(row.try_get(0)?) {
        checks.advises(
            "commits may wait for this node: synchronous_standby_names means it",
            "name the standbys that are meant".into(),
        );
    }
    Ok(())
}

/// Whether a list of standbys has our sessions' name in it, or means all.
fn means_us(standbys: &str) -> bool {
    let is_ours = |name: &str| name == "*" || name.eq_ignore_ascii_case(APPLICATION_NAME);
    // Every second part is a name in quotes.
    standbys.split('"').enumerate().any(|(at, part)| match at % 2 {
        0 => part.split(|it: char| it.is_whitespace() || "(),".contains(it)).any(is_ours),
        _ => is_ours(part),
    })
}

async fn room(client: &Client, checks: &mut Checks) -> Result<()> {
    let row = client.query_one(sql::FREE, &[]).await?;
    for (free, setting, what) in [
        (row.try_get::<_, i64>(0)?, "max_replication_slots", "slot for copies"),
        (row.try_get::<_, i64>(1)?, "max_wal_senders", "sender"),
    ] {
        match free > 0 {
            true => checks.holds(format!("{free} of {setting} are free")),
            false => checks.fails(
                format!("no {what} is free"),
                format!("raise {setting} and restart the server, or drop what is not used"),
            ),
        }
    }
    Ok(())
}

fn cure_of_connecting(error: &Error) -> String {
    match error.code() {
        Some("28P01") => "correct the password in `url`, PGPASSWORD or the password file".into(),
        Some("28000") => "allow this login in pg_hba.conf, or create it".into(),
        Some("3D000") => "create the database, or correct its name in `url`".into(),
        _ => "check that the server runs and that `url` names it".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_that_heed_a_changed_publication_too_late_are_told_from_others() {
        for (version, minor) in
            [(150_012, Some(13)), (150_013, None), (140_000, Some(18)), (170_004, Some(5))]
        {
            assert_eq!(heedful_minor(version), minor, "{version}");
        }
        assert_eq!(heedful_minor(180_000), None);
    }

    #[test]
    fn a_list_of_standbys_means_us_by_our_name_or_as_one_of_all() {
        for ours in [
            "*",
            "a,*",
            "FIRST 1 (a, Thinwire)",
            "any 2(*)",
            "\"a b\", \"thinwire\"",
            "a,\nthinwire",
        ] {
            assert!(means_us(ours), "{ours}");
        }
        for others in
            ["", "a", "thinwire_a, a_thinwire", "1 (\"a, thinwire\")", "\"thinwire \"", "\"a *\""]
        {
            assert!(!means_us(others), "{others}");
        }
    }
}
