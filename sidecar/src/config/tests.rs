//! The configuration of the README is read whole, and what it leaves out has its default.

use std::path::Path;

use super::*;

#[test]
fn every_key_is_read() {
    let text = r#"
        [node]
        name   = "shop"
        dir    = "/var/lib/thinwire"
        listen = "0.0.0.0:7420"
        status = "127.0.0.1:7421"
        [database]
        url = "host=/run/postgresql dbname=shop user=thinwire"
        [capture]
        mode   = "slot"
        tables = ["public.*", "!public.audit"]
        ddl    = "stop"
        operations = ["insert", "delete"]
        [capture.rows]
        "public.orders" = "site = 7"
        [capture.columns]
        "public.orders" = ["id", "site"]
        "public.\"odd name\"" = ["a"]
        [apply]
        conflicts = "stop"
        update_origin_differs = "last_update_wins"
        existing  = "merge"
        ddl_url   = "host=/run/postgresql dbname=shop user=owner"
        tables    = ["shop.*"]
        [journal]
        budget    = "1GiB"
        retention = "2h"
        segment   = "32MiB"
        on_full   = "resync"
        [[peer]]
        name    = "hq"
        address = "hq.example.com:7420"
    "#;
    let config = Config::parse(Path::new("shop.toml"), text).unwrap();
    assert_eq!(config.name, "shop");
    assert_eq!(config.dir, Path::new("/var/lib/thinwire"));
    assert_eq!(config.listen, Some("0.0.0.0:7420".parse().unwrap()));
    assert_eq!(config.journal.budget, 1 << 30);
    assert_eq!(config.journal.retention, Duration::from_secs(7_200));
    assert_eq!(config.journal.segment, 32 << 20);
    assert_eq!(config.journal.on_full, OnFull::Resync);
    let apply = config.apply.unwrap();
    assert_eq!(apply.existing, Existing::Merge);
    assert_eq!(apply.update_origin_differs, OriginDiffers::LastUpdateWins);
    assert_eq!(apply.delete_origin_differs, OriginDiffers::Apply);
    assert_eq!(apply.owner.unwrap().config.get_user(), Some("owner"));
    assert_eq!(format!("{:?}", apply.tables), "chosen");
    let capture = config.capture.unwrap();
    let mut choice = Choice::default();
    choice.operate(Operations::parse(&["delete", "insert"]).unwrap());
    choice.filter("public.orders", "site = 7").unwrap();
    choice.list("public.orders", &["site", "id"]).unwrap();
    choice.list("public.\"odd name\"", &["a"]).unwrap();
    assert_eq!(capture.choice, choice);
    let tables = capture.tables;
    assert!(tables.matches("public", "orders") && !tables.matches("public", "audit"));
    assert_eq!(config.keyless_peers, ["hq"]);
    assert!(config.peers.is_empty());
}

#[test]
fn the_page_of_the_configuration_has_every_key_and_is_read() {
    let page = include_str!("../../../docs/configuration.md");
    let text = page.split("```").nth(1).and_then(|block| block.strip_prefix("toml\n")).unwrap();
    let key = thinwire_transport::Identity::generate().unwrap().public().to_string();
    let config = Config::parse(Path::new("shop.toml"), &text.replace("tw1…", &key)).unwrap();
    let empty = Config::parse(Path::new("shop.toml"), "[node]\nname = \"shop\"").unwrap();
    assert_eq!(format!("{:?}", config.journal), format!("{:?}", empty.journal), "its defaults");
    let shapes = include_str!("file.rs").lines().filter_map(|line| {
        let (name, kind) = line.trim().strip_prefix("pub(super) ")?.split_once(": ")?;
        (kind.contains("Spanned") || kind.contains("Map")).then_some(name)
    });
    let written: Vec<&str> =
        text.lines().filter_map(|line| line.split([' ', ']']).next()).collect();
    for key in shapes {
        let table = format!("[capture.{key}");
        assert!(written.iter().any(|it| *it == key || *it == table), "{key} is not on the page");
    }
}

#[test]
fn a_name_is_enough() {
    let config = Config::parse(Path::new("some/n.toml"), "[node]\nname = \"n\"").unwrap();
    assert_eq!(config.dir, Path::new("some/n"));
    assert!(config.listen.is_none() && config.database.is_none() && config.capture.is_none());
    assert_eq!(config.journal.budget, 10 << 30);
}

#[test]
fn what_could_not_work_is_refused_with_its_place() {
    let key = thinwire_transport::Identity::generate().unwrap().public();
    for (line, sentence) in [
        ("listen = \"0.0.0.0:0\"".to_owned(), "n.toml, line 3, node.listen: a port is"),
        ("status = \"[::1]:0\"".to_owned(), "n.toml, line 3, node.status: a port is"),
        ("[[peer]]\nname = \"n\"".to_owned(), "line 4, peer.name: this is the name of the node"),
        (
            "[database]\nurl = \"dbname=x\"\n[apply]\ndelete_origin_differs = \"no\"".to_owned(),
            "line 6, apply.delete_origin_differs: \"apply\", \"skip\", \"stop\" or",
        ),
        (
            format!("[[peer]]\nname = \"a\"\nkey = \"{key}\"\n[[peer]]\nname = \"a\""),
            "line 7, peer.name: two peers have this name",
        ),
        (
            format!(
                "[[peer]]\nname = \"a\"\nkey = \"{key}\"\n[[peer]]\nname = \"b\"\nkey = \"{key}\""
            ),
            "line 8, peer.key: two peers have this key",
        ),
    ] {
        let text = format!("[node]\nname = \"n\"\n{line}\n");
        let error = Config::parse(Path::new("n.toml"), &text).unwrap_err().to_string();
        assert!(error.contains(sentence), "{error}");
    }
}

#[test]
fn a_choice_that_is_none_is_refused_with_its_place() {
    let tables = "[database]\nurl = \"dbname=shop\"\n[capture]\ntables = [\"public.*\"]";
    for (lines, sentence) in [
        ("[apply]\ntables = []", "apply.tables: name at least one table"),
        (
            "[apply]\ntables = [\"public.*\", \"orders\"]",
            "line 8, apply.tables: the table pattern \"orders\"",
        ),
        ("operations = [\"upsert\"]", "line 7, capture.operations: some of \"insert\""),
        ("operations = []", "line 7, capture.operations: some of \"insert\""),
        (
            "[capture.rows]\n\"public.*\" = \"a = 1\"",
            "line 8, capture.rows: \"public.*\" does not name one table",
        ),
        (
            "[capture.rows]\norders = \"a = 1\"",
            "line 8, capture.rows: the table pattern \"orders\"",
        ),
        ("[capture.rows]\n\"public.t\" = \" \"", "line 8, capture.rows: an expression"),
        ("[capture.columns]\n\"public.t\" = []", "line 8, capture.columns: a list of columns"),
        (
            "[capture.columns]\n\"public.t\" = [\"a\", \"a\"]",
            "line 8, capture.columns: a list of columns, each once",
        ),
    ] {
        let text = format!("[node]\nname = \"n\"\n{tables}\n{lines}\n");
        let error = Config::parse(Path::new("n.toml"), &text).unwrap_err().to_string();
        assert!(error.contains(sentence), "{error}");
    }
}
