//! What is installed at the source, where a superuser does it: it follows schema changes for the nodes that replicate
//! them, and for the others it only sees to it that no update fails for want of an identity.

use tokio_postgres::Client;

use super::{
    InitOptions, Removal,
    inventory::{Inventory, RunAs},
};
use crate::{
    Choice, Ddl,
    error::{Error, Result, sqlstate},
    schema::Secret,
    sql::schema as sql,
};

/// What is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Following {
    /// Whether anything is installed at all.
    is_installed: bool,
    /// Which edition, if it is whole and fires.
    edition: Option<String>,
    /// Who owns the schema, if that is no superuser.
    humble_owner: Option<String>,
    /// Whether the node is registered just as it would be now; none if it is not registered.
    is_registered: Option<bool>,
    /// Whether schema changes are followed for it.
    follows: bool,
    /// Whether other nodes are.
    has_others: bool,
    /// Whether the login that runs may ask all that it has to.
    may_ask: bool,
    /// Whether whoever initialises may install.
    may_install: bool,
}

/// Looks at it.
pub(super) async fn look(
    client: &Client,
    found: &Inventory,
    options: &InitOptions,
    publication: &str,
) -> Result<Following> {
    let role = client.query_one(crate::sql::ROLE, &[&found.server.user]).await?;
    let mut following = Following {
        is_installed: client.query_one(sql::IS_INSTALLED, &[]).await?.try_get(0)?,
        may_install: role.try_get(1)?,
        ..Following::default()
    };
    let edition = client.query_one(sql::EDITION, &[]).await?;
    following.edition = edition.try_get(0)?;
    following.humble_owner = edition.try_get(1)?;
    if !following.is_installed {
        return Ok(following);
    }
    let (patterns, choice) = (options.patterns.to_json(), options.choice.to_json());
    for row in client.query(sql::REGISTERED, &[&publication, &patterns, &choice]).await? {
        let (node, reader): (String, Option<String>) = (row.try_get(0)?, row.try_get(1)?);
        if !row.try_get::<_, bool>(3)? {
            following.has_others = true;
            continue;
        }
        following.follows = row.try_get(4)?;
        let is_same = node == options.node && reader.as_deref() == Some(reader_of(found));
        let is_same = is_same && following.follows == (options.ddl == Ddl::Replicate);
        following.is_registered = Some(is_same && row.try_get::<_, bool>(2)?);
    }
    // Of another edition, what may be asked is not known.
    if following.edition.as_deref() == Some(&sql::edition()) {
        let may_ask = client.query_one(sql::MAY_ASK, &[&reader_of(found)]).await;
        following.may_ask = may_ask.is_ok_and(|row| row.get(0));
    }
    Ok(following)
}

/// What has to be done about it, in its order.
pub(super) fn statements(
    found: &Inventory,
    following: &Following,
    options: &InitOptions,
    publication: &str,
) -> Result<Vec<String>> {
    let follows = options.ddl == Ddl::Replicate;
    if !follows && permitted(found, following).is_err() {
        // Without it nothing is lost but what it would see to.
        return Ok(if following.follows { remove(following, publication) } else { vec![] });
    }
    let mut out = Vec::new();
    if following.edition.as_deref() != Some(&sql::edition()) {
        permitted(found, following)?;
        out.push(sql::install());
    }
    let is_new = !out.is_empty();
    if following.is_registered != Some(true) {
        let (patterns, choice) = (options.patterns.to_json(), options.choice.to_json());
        let (node, reader) = (&options.node, reader_of(found));
        let (patterns, choice) = (&patterns, &choice);
        let it = sql::Registration { publication, node, reader, patterns, choice, follows };
        out.push(sql::register(it));
    }
    let is_there = found.run_as.as_ref().is_none_or(|it| it.exists);
    if is_there && (is_new || !following.may_ask) {
        out.push(sql::grant_asking(reader_of(found)));
    }
    // Without a slot nobody listens yet, but what tables consist of is remembered with it.
    if follows && !out.is_empty() {
        out.push(sql::tell_all(publication));
    }
    Ok(out)
}

/// The published tables without a key, if nothing sees to it that their updates go on working, or else none; and whether
/// each has parts, or no whole rows as identity, so that updates may fail although nobody alters it.
pub(super) async fn unguarded(client: &Client, publication: &str) -> Result<Vec<(String, bool)>> {
    let edition: Option<String> = client.query_one(sql::EDITION, &[]).await?.try_get(0)?;
    if edition.as_deref() == Some(&sql::edition()) {
        let row = client.query_one(sql::IS_REGISTERED, &[&publication]).await.map_err(Error::from);
        match row {
            Ok(row) if row.try_get(0)? => return Ok(vec![]),
            // Who may not look is not registered as the one that captures.
            Err(error) if error.code() != Some(sqlstate::INSUFFICIENT_PRIVILEGE) => {
                return Err(error);
            }
            _ => {}
        }
    }
    let rows = client.query(crate::sql::KEYLESS, &[&publication]).await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

/// What that means for one of them.
pub(super) fn unguarded_says(table: &str) -> String {
    format!(
        "{table} is published and has no key, and no event trigger sees to it that UPDATEs of partitions that come to it, or \
         of columns that are generated, go on working: run `thinwire init` with `--admin-url` of a superuser, or give it a \
         primary key"
    )
}

/// Lets what `init` does itself to tables and publication be done by it alone.
pub(super) async fn hush(client: &Client, publication: &str) -> Result<()> {
    let edition: Option<String> = client.query_one(sql::EDITION, &[]).await?.try_get(0)?;
    if edition.as_deref() == Some(&sql::edition()) {
        match client.execute(sql::HUSH, &[&publication]).await.map_err(Error::from) {
            // What somebody does who may not is followed like anybody's.
            Err(error) if error.code() == Some(sqlstate::INSUFFICIENT_PRIVILEGE) => {}
            done => drop(done?),
        }
    }
    Ok(())
}

/// What takes a node's part away.
pub(super) async fn removals(client: &Client, publication: &str) -> Result<Vec<Removal>> {
    if !client.query_one(sql::IS_INSTALLED, &[]).await?.try_get::<_, bool>(0)? {
        return Ok(vec![]);
    }
    let mut following = Following { is_installed: true, ..Following::default() };
    for row in client.query(sql::REGISTERED, &[&publication, &"[]", &"{}"]).await? {
        match row.try_get(3)? {
            true => following.is_registered = Some(true),
            false => following.has_others = true,
        }
    }
    let what = match following.has_others {
        true => {
            "what is said of this node in thinwire.captures (other nodes use the event triggers)"
        }
        false => "the event triggers, and what they run and know in the schema thinwire",
    };
    let mut statements = remove(&following, publication);
    if !following.has_others {
        statements.push(sql::DROP_EMPTY_SCHEMA.to_owned());
    }
    let what = what.to_owned();
    Ok(match statements.is_empty() {
        true => vec![],
        false => vec![Removal { what, statement: statements.join(";\n") }],
    })
}

/// What is wrong with it for the login that runs; nothing if schema changes are followed as they should be.
pub(super) async fn problem(client: &Client, publication: &str) -> Result<Option<String>> {
    let edition: Option<String> = client.query_one(sql::EDITION, &[]).await?.try_get(0)?;
    if edition.as_deref() != Some(&sql::edition()) {
        return Ok(Some("the event triggers that follow schema changes are not there, or not as this version has them".to_owned()));
    }
    match secret(client, publication).await {
        Ok(Some(_)) => Ok(None),
        Ok(None) => Ok(Some("schema changes are not followed for this node".to_owned())),
        Err(error) if error.code() == Some(sqlstate::INSUFFICIENT_PRIVILEGE) => {
            Ok(Some("the login may not follow schema changes".to_owned()))
        }
        Err(error) => Err(error),
    }
}

/// What is wrong with what was chosen of tables that are not there yet.
pub(crate) async fn misjudged(
    client: &Client,
    publication: &str,
    choice: &Choice,
) -> Result<Option<String>> {
    let row = client.query_opt(sql::CHOSEN, &[&publication, &choice.to_json()]).await?;
    let is_right = row.map(|row| row.try_get(0)).transpose()?.unwrap_or(true);
    Ok((!is_right).then(|| {
        "of tables that are made from now on something else is published than the configuration says".to_owned()
    }))
}

/// What proves the messages for a node; none if it is not registered.
///
/// # Errors
/// What the server said, for instance that we may not know it.
pub(crate) async fn secret(client: &Client, publication: &str) -> Result<Option<Secret>> {
    if !client.query_one(sql::IS_INSTALLED, &[]).await?.try_get::<_, bool>(0)? {
        return Ok(None);
    }
    match client.query_opt(sql::SECRET, &[&publication]).await? {
        Some(row) => Ok(Some(Secret::new(row.try_get(0)?))),
        None => Ok(None),
    }
}

fn remove(following: &Following, publication: &str) -> Vec<String> {
    match following {
        Following { is_installed: false, .. } => vec![],
        Following { has_others: false, .. } => vec![sql::UNINSTALL.trim_end().to_owned()],
        Following { is_registered: Some(_), .. } => vec![sql::unregister(publication)],
        _ => vec![],
    }
}

fn permitted(found: &Inventory, following: &Following) -> Result<()> {
    if !following.may_install {
        return Err(Error::Refused(format!(
            "`[capture] ddl = \"replicate\"` needs event triggers, which only a superuser can create, and {} is \
             none: run `thinwire init` with `--admin-url` of one, or hand the output of `--print-sql` to one",
            found.server.user
        )));
    }
    if let Some(owner) = &following.humble_owner {
        return Err(Error::Refused(format!(
            "the schema thinwire belongs to {owner}, who could replace what runs with a superuser's rights: give \
             it to a superuser with `ALTER SCHEMA thinwire OWNER TO CURRENT_USER`"
        )));
    }
    Ok(())
}

/// The login that captures.
fn reader_of(found: &Inventory) -> &str {
    match &found.run_as {
        Some(RunAs { name, .. }) => name,
        None => &found.server.user,
    }
}
