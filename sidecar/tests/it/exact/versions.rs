//! Between servers of different versions: neighbours, and the oldest and the newest in both directions.

use std::time::Duration;

use super::values::between;

/// Schemas are compared for so long between each two versions.
const TIME: Duration = Duration::from_secs(6);

#[test]
fn values_arrive_from_14_at_18() {
    between(14, 18, TIME);
}

#[test]
fn values_arrive_from_18_at_14() {
    between(18, 14, TIME);
}
