//! A shop's database and the transactions of its day: seeded, varied, shaped like real rows.
//!
//! Everything is SQL text made from a seed alone, so that a run can be repeated. Ids and times are
//! given, never taken from sequences or clocks.

use std::fmt::Write as _;

use crate::random::Random;

/// The shop's tables, for an empty database.
pub const SCHEMA: &str = "
create table customers (
    id bigint primary key, name text not null, email text not null unique, city text,
    phones text[], profile jsonb not null, photo bytea, since timestamptz not null);
create table orders (
    id bigint primary key, customer_id bigint not null references customers, status text not null,
    placed timestamptz not null, details jsonb not null, tags text[] not null, note text,
    total numeric(12,2) not null, signature bytea);
create table order_items (
    order_id bigint not null, line int not null, product text not null, quantity int not null,
    price numeric(10,2) not null, discount float8, primary key (order_id, line));
create table order_events (
    id bigint primary key, order_id bigint, kind text not null, at timestamptz not null);
";

/// A shop at some moment of its history.
#[derive(Clone, Debug)]
pub struct Shop {
    random: Random,
    customers: u64,
    orders: u64,
    events: u64,
    now_ms: u64,
}

impl Shop {
    /// An empty shop on its first morning.
    pub fn new(seed: u64) -> Shop {
        Shop { random: Random::new(seed), customers: 0, orders: 0, events: 0, now_ms: OPENING_MS }
    }

    /// Statements that fill the empty shop with its history.
    pub fn history(&mut self, customers: u64, orders: u64) -> String {
        let mut sql = String::from("begin;\n");
        for _ in 0..customers {
            self.customer(&mut sql);
        }
        for _ in 0..orders {
            self.order(&mut sql);
        }
        sql.push_str("commit;\n");
        sql
    }

    /// The next transaction of the day, on one line. Each adds one row to `order_events`.
    ///
    /// # Panics
    /// If the shop has no customers and orders yet.
    pub fn transaction(&mut self) -> String {
        format!("begin; {} commit;\n", self.change())
    }

    /// The statements of the next transaction of the day.
    ///
    /// # Panics
    /// If the shop has no customers and orders yet.
    pub fn change(&mut self) -> String {
        self.now_ms += 1 + self.random.below(9_000);
        let mut sql = String::new();
        match self.random.below(100) {
            0..45 => self.order(&mut sql),
            45..80 => self.progress(&mut sql),
            80..92 => self.visit(&mut sql),
            92..98 => self.correction(&mut sql),
            _ => self.cancellation(&mut sql),
        }
        sql.truncate(sql.trim_end().len());
        sql
    }

    fn customer(&mut self, sql: &mut String) {
        self.customers += 1;
        let id = self.customers;
        let (first, last) = (*self.random.pick(&FIRST_NAMES), *self.random.pick(&LAST_NAMES));
        let city = self.random.pick(&CITIES);
        let phones: Vec<String> = (0..self.random.below(3)).map(|_| self.phone()).collect();
        let profile = format!(
            concat!(
                r#"{{"language": "{}", "newsletter": {}, "points": {}, "#,
                r#""address": {{"street": "{} {}", "zip": "{:05}"}}}}"#
            ),
            self.random.pick(&["en", "no", "pt", "id", "el"]),
            self.random.chance(0.4),
            self.random.below(5_000),
            self.random.pick(&STREETS),
            1 + self.random.below(180),
            self.random.below(99_999)
        );
        // A few are large enough to be stored out of line.
        let photo = if self.random.chance(0.04) { self.bytes(3_000) } else { "null".into() };
        let since = OPENING_MS / 1_000 - self.random.below(150_000_000);
        let _ = writeln!(
            sql,
            "insert into customers values ({id}, '{first} {last}', '{}.{}{id}@example.com', \
             '{city}', '{{{}}}', '{profile}', {photo}, to_timestamp({since}));",
            first.to_lowercase(),
            last.to_lowercase(),
            phones.join(",")
        );
    }

    fn order(&mut self, sql: &mut String) {
        self.orders += 1;
        self.now_ms += self.random.below(40_000);
        let (id, customer) = (self.orders, 1 + self.random.below(self.customers));
        let mut items = String::new();
        let mut total_cents = 0;
        for line in 1..=1 + self.random.below(4) {
            let (product, cents) = *self.random.pick(&PRODUCTS);
            let quantity = 1 + self.random.below(6);
            let discount = self.random.pick(&["null", "0.05", "0.1", "0.125"]);
            total_cents += cents * quantity;
            let _ = write!(
                items,
                "insert into order_items values ({id}, {line}, '{product}', {quantity}, {}, \
                 {discount}); ",
                money(cents)
            );
        }
        let (details, tags, note) = (self.details(), self.tags(), self.note());
        let signature = if self.random.chance(0.3) { self.bytes(24) } else { "null".into() };
        let _ = write!(
            sql,
            "insert into orders values ({id}, {customer}, 'new', {}, '{details}', '{tags}', \
             {note}, {}, {signature}); {items}",
            self.time(),
            money(total_cents)
        );
        self.event(sql, id, "placed");
    }

    fn progress(&mut self, sql: &mut String) {
        let id = self.recent_order();
        let status = *self.random.pick(&["paid", "packed", "shipped", "delivered", "returned"]);
        let carrier = self.random.pick(&["Bring", "DHL", "the boat", "pickup"]);
        let weight = self.random.below(20_000);
        let _ = write!(
            sql,
            "update orders set status = '{status}', details = details || \
             '{{\"carrier\": \"{carrier}\", \"grams\": {weight}}}' where id = {id}; "
        );
        self.event(sql, id, status);
    }

    fn visit(&mut self, sql: &mut String) {
        let (id, points) = (1 + self.random.below(self.customers), self.random.below(400));
        let city = self.random.pick(&CITIES);
        let _ = write!(
            sql,
            "update customers set profile = jsonb_set(profile, '{{points}}', '{points}'), \
             city = '{city}' where id = {id}; "
        );
        self.event(sql, 0, "visit");
    }

    fn correction(&mut self, sql: &mut String) {
        let (id, quantity) = (self.recent_order(), 1 + self.random.below(9));
        let note = self.note();
        let _ = write!(
            sql,
            "update order_items set quantity = {quantity} where order_id = {id} and line = 1; \
             update orders set note = {note}, total = (select coalesce(sum(quantity * price), 0) \
             from order_items where order_id = {id}) where id = {id}; "
        );
        self.event(sql, id, "corrected");
    }

    fn cancellation(&mut self, sql: &mut String) {
        let id = self.recent_order();
        let _ = write!(
            sql,
            "delete from order_items where order_id = {id}; delete from orders where id = {id}; "
        );
        self.event(sql, id, "cancelled");
    }

    fn event(&mut self, sql: &mut String, order: u64, kind: &str) {
        self.events += 1;
        let (id, at) = (self.events, self.time());
        let _ = writeln!(
            sql,
            "insert into order_events values ({id}, nullif({order}, 0), '{kind}', {at});"
        );
    }

    fn details(&mut self) -> String {
        let mut details = format!(
            r#"{{"channel": "{}", "gift": {}, "slot": "{:02}:00-{:02}:00""#,
            self.random.pick(&["web", "phone", "counter", "app"]),
            self.random.chance(0.1),
            8 + self.random.below(4),
            13 + self.random.below(5)
        );
        if self.random.chance(0.25) {
            let voucher = self.random.below(1 << 32);
            let _ = write!(details, r#", "voucher": "{voucher:08X}""#);
        }
        details.push('}');
        details
    }

    fn tags(&mut self) -> String {
        let count = self.random.below(4);
        let tags: Vec<&str> = (0..count).map(|_| *self.random.pick(&TAGS)).collect();
        format!("{{{}}}", tags.join(","))
    }

    /// A text literal, or null.
    fn note(&mut self) -> String {
        if self.random.chance(0.5) {
            return "null".into();
        }
        let count = 1 + self.random.below(3);
        let notes: Vec<&str> = (0..count).map(|_| *self.random.pick(&NOTES)).collect();
        format!("'{}'", notes.join(" ").replace('\'', "''"))
    }

    fn phone(&mut self) -> String {
        format!("+47 {:03} {:05}", self.random.below(999), self.random.below(99_999))
    }

    fn bytes(&mut self, count: usize) -> String {
        let mut literal = String::from("'\\x");
        for _ in 0..count.div_ceil(8) {
            let _ = write!(literal, "{:016x}", self.random.bits());
        }
        literal.push('\'');
        literal
    }

    fn recent_order(&mut self) -> u64 {
        let back = self.random.below(self.orders.min(300));
        self.orders - back
    }

    fn time(&self) -> String {
        format!("to_timestamp({}.{:03})", self.now_ms / 1_000, self.now_ms % 1_000)
    }
}

fn money(cents: u64) -> String {
    format!("{}.{:02}", cents / 100, cents % 100)
}

/// 2025-01-06 08:00 UTC.
const OPENING_MS: u64 = 1_736_150_400_000;
const FIRST_NAMES: [&str; 12] = [
    "Ingrid", "Olav", "Maria", "João", "Siti", "Budi", "Eleni", "Nikos", "Anne", "Tomás", "Zoë",
    "Kari",
];
const LAST_NAMES: [&str; 12] = [
    "Hansen",
    "Nilsen",
    "Silva",
    "Pereira",
    "Wijaya",
    "Santoso",
    "Georgiou",
    "Vlahos",
    "Lindqvist",
    "Duarte",
    "Berg",
    "Moe",
];
const CITIES: [&str; 8] =
    ["Tromsø", "Bodø", "Funchal", "Horta", "Makassar", "Kupang", "Chania", "Syros"];
const STREETS: [&str; 6] =
    ["Storgata", "Rua da Praia", "Jalan Merdeka", "Havnegata", "Odos Ermou", "Strandveien"];
const PRODUCTS: [(&str, u64); 14] = [
    ("Coffee, dark roast, 500 g", 1_190),
    ("Tea, Earl Grey, 100 bags", 890),
    ("Rope, polyester, 12 mm, 50 m", 8_450),
    ("Shackle, stainless, 10 mm", 1_275),
    ("Engine oil 15W-40, 5 l", 3_990),
    ("Fuel filter, type B", 2_150),
    ("Rice, jasmine, 10 kg", 2_480),
    ("Flour, wheat, 2 kg", 365),
    ("Batteries, AA, 24 pieces", 1_795),
    ("First aid kit, 12 persons", 6_900),
    ("Life jacket, 150 N", 11_900),
    ("Work gloves, size 10", 1_120),
    ("Head lamp, 400 lm", 3_450),
    ("Charts, coastal, set 3", 5_600),
];
const TAGS: [&str; 8] =
    ["fragile", "express", "regular", "export", "cold", "bulk", "crew", "warranty"];
const NOTES: [&str; 10] = [
    "Leave it with the harbour master.",
    "Call before delivery, the gate's locked after five.",
    "Same as last month.",
    "Please no plastic bags.",
    "Invoice to the head office.",
    "Needed before we sail on Thursday!",
    "The last box was damaged; pack it better this time.",
    "Customer asks for a paper receipt.",
    "Substitute if out of stock.",
    "Half now, the other half next week.",
];

#[cfg(test)]
mod tests {
    use super::*;
    use thinwire_cluster::{Cluster, Options};

    #[test]
    fn the_day_runs_on_a_real_server_and_counts_its_transactions() {
        let cluster = Cluster::start(Options::default()).unwrap();
        let mut shop = Shop::new(1);
        let mut sql = SCHEMA.to_owned() + &shop.history(40, 60);
        let opened = shop.events;
        (0..400).for_each(|_| sql += &shop.transaction());
        cluster.psql("postgres", &sql).unwrap();
        let count = |what: &str| cluster.psql("postgres", &format!("select {what}")).unwrap();
        assert_eq!(count("count(*) from order_events"), (opened + 400).to_string());
        assert_ne!(count("count(*) from orders where note is null"), "0");
        assert_ne!(count("count(*) from customers where octet_length(photo) >= 3000"), "0");
    }

    #[test]
    fn a_seed_names_a_day() {
        let day = |seed| {
            let mut shop = Shop::new(seed);
            shop.history(10, 10) + &(0..50).map(|_| shop.transaction()).collect::<String>()
        };
        assert_eq!(day(1), day(1));
        assert_ne!(day(1), day(2));
    }
}
