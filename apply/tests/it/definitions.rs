//! Definitions and what is at the target by itself: what others there need, whose rights a routine has, and whose ids are told.

use thinwire_engine::model::Body;

use crate::{
    database::Database,
    feed::{Feed, Table},
    schema::{gone, labels, object, one, schema, sequence, table, told, with},
};

#[tokio::test]
async fn what_a_table_here_still_needs_stays_when_it_goes_at_the_source() {
    let database = Database::new("").await;
    let feed = Feed::new();
    let counter = object(2, "public.counter", Body::Sequence(sequence(None, None)));
    let mood = object(3, "public.mood", labels(&["ok"]));
    let spare = object(4, "public.spare", labels(&["ok"]));
    let t = with(table(1, "public.t", &["id integer", "mood public.mood"]), |table| {
        table.columns[0].default = Some("nextval('public.counter'::regclass)".to_owned());
    });
    feed.transaction(&[told(&[counter.clone(), mood.clone(), spare.clone(), t])]);
    feed.transaction(&[schema(&[], &[], &[gone(&counter), gone(&mood)])]);
    feed.transaction(&[schema(&[], &[], &[gone(&spare)])]);
    let rows = Table::new(1, "public.t", &["id", "mood"]);
    feed.transaction(&[rows.relation(), rows.insert("1|ok")]);
    database.apply_all(&feed).await;
    assert_eq!(database.sql("insert into t (mood) values ('ok'); select * from t"), "1|ok\n1|ok");
    assert_eq!(database.sql("select to_regtype('spare') is null"), "t");
    assert_eq!(database.sql("select object_name from thinwire.definitions"), "t");
}
