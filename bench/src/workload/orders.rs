//! The shop's day as a workload.

use super::Workload;
use crate::workload::shop::{SCHEMA, Shop};

pub(super) struct Orders {
    shop: Shop,
    history: String,
}

impl Orders {
    pub(super) fn new(seed: u64) -> Orders {
        let mut shop = Shop::new(seed);
        // The day goes on where the history ends, whoever asks for what first.
        let history = shop.history(CUSTOMERS, ORDERS);
        Orders { shop, history }
    }
}

impl Workload for Orders {
    fn schema(&self) -> String {
        SCHEMA.into()
    }

    fn fill(&mut self) -> String {
        self.history.clone()
    }

    fn change(&mut self) -> String {
        self.shop.change()
    }

    fn progress(&self) -> String {
        format!("select count(*) from order_events where id > {ORDERS}")
    }
}

const CUSTOMERS: u64 = 500;
/// Each has left one event.
const ORDERS: u64 = 2_000;
