//! Order-independent digests of tables, made by the server, to say whether two tables hold the same
//! rows.
//!
//! A digest covers every column of every row, by column name, so that it does not depend on the
//! order of rows or columns. A partitioned table has the rows of its partitions, whatever these are; another table has
//! its own and not those of tables that inherit from it. Each row's text is hashed and the hashes are added: rows that occur
//! twice count twice.

use crate::{Cluster, Result};

/// The digest of one table, given as `schema.table`, quoted as in SQL where needed: number of rows
/// and sum of hashes.
pub fn digest(cluster: &Cluster, database: &str, table: &str) -> Result<String> {
    let name = table.replace('\'', "''");
    let columns = cluster.psql(
        database,
        &format!(
            "select case relkind when 'p' then '' else 'only ' end || '|' || \
             coalesce((select string_agg(format('%I', attname), ', ' order by attname) \
             from pg_attribute where attrelid = c.oid and attnum > 0 and not attisdropped), '') \
             from pg_class c where oid = '{name}'::regclass"
        ),
    )?;
    let (only, columns) = columns.split_once('|').unwrap_or(("", &columns));
    let answer = cluster.psql(
        database,
        &format!(
            "{SETTINGS}select count(*) || ':' || coalesce(sum(('x' || left(hash, 16))::bit(64)\
             ::bigint::numeric), 0) from (select md5(row({columns})::text) as hash \
             from {only}{table}) as hashes"
        ),
    )?;
    Ok(answer)
}

/// The digests of several tables, in their order.
pub fn digests<T: AsRef<str>>(
    cluster: &Cluster,
    database: &str,
    tables: &[T],
) -> Result<Vec<String>> {
    tables.iter().map(|table| digest(cluster, database, table.as_ref())).collect()
}

/// All tables of users in a database, as quoted `schema.table`, in order. Schemas of extensions and
/// of Thinwire itself are left out.
pub fn tables(cluster: &Cluster, database: &str) -> Result<Vec<String>> {
    let names = cluster.psql(
        database,
        "select format('%I.%I', nspname, relname) \
         from pg_class join pg_namespace n on n.oid = relnamespace \
         where relkind = 'r' and relpersistence <> 't' \
         and nspname !~ '^(pg_|information_schema$|thinwire|pglogical$)' order by 1",
    )?;
    Ok(names.lines().map(str::to_owned).collect())
}

/// The text form of values must not depend on the settings of a database.
const SETTINGS: &str = "set timezone = 'UTC'; set datestyle = 'ISO, YMD'; \
    set intervalstyle = 'postgres'; set bytea_output = 'hex'; set extra_float_digits = 3; \
    set xmlbinary = 'base64';\n";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Options;

    #[test]
    fn equal_rows_give_equal_digests_and_any_change_another() {
        let cluster = Cluster::start(Options::default()).unwrap();
        let sql = |text: &str| cluster.psql("postgres", text).unwrap();
        sql("create table a (id int, t text, f float8, n numeric);
             create table b (n numeric, f float8, t text, id int)");
        assert_eq!(digest(&cluster, "postgres", "public.a").unwrap(), "0:0");
        sql("insert into a select i, 'row ' || i, i / 3.0, i from generate_series(1, 100) i");
        sql("insert into b (id, t, f, n) select id, t, f, n from a order by id desc");
        let both = || digests(&cluster, "postgres", &["a", "b"]).unwrap();
        assert_eq!(both()[0], both()[1]);
        for change in ["t = null", "t = ''", "n = 50.0", "f = f + 1e-12"] {
            sql(&format!("begin; update b set {change} where id = 50; commit"));
            assert_ne!(both()[0], both()[1], "{change}");
            sql("update b set t = a.t, n = a.n, f = a.f from a where a.id = b.id and b.id = 50");
            assert_eq!(both()[0], both()[1]);
        }
        sql("insert into b select * from b where id = 1;\ndelete from b where id = 2");
        assert_ne!(both()[0], both()[1]);
        assert_eq!(tables(&cluster, "postgres").unwrap(), ["public.a", "public.b"]);
        sql("create table c (n numeric, t text, f float8, id int) partition by hash (id);
             create table c_0 partition of c for values with (modulus 2, remainder 0);
             create table c_1 partition of c for values with (modulus 2, remainder 1);
             insert into c select n, t, f, id from a;
             create table d (like a); create table d_child () inherits (d);
             insert into d select * from a; insert into d_child select * from a");
        let all = digests(&cluster, "postgres", &["a", "c", "d"]).unwrap();
        assert!(all[0] == all[1] && all[0] == all[2], "{all:?}");
    }
}
