//! The window against a link of known rate, delay and loss, by arithmetic alone.

use super::*;

/// A link: packets are serialised at its rate, wait in a queue of a second, and are acknowledged a round trip later.
struct Link {
    now: Instant,
    rate: f64,
    rtt: Duration,
    loss: f64,
    /// What a packet may take longer, in either direction; none overtakes another.
    jitter: Duration,
    random: u64,
    free_at: Instant,
    flying: VecDeque<(Instant, Instant, bool)>,
    delivered: u64,
    longest_queue: Duration,
}

impl Link {
    fn new(rate: f64, rtt_ms: u64, loss: f64) -> Self {
        let now = Instant::now();
        Self {
            now,
            rate,
            rtt: Duration::from_millis(rtt_ms),
            loss,
            jitter: Duration::ZERO,
            random: 7,
            free_at: now,
            flying: VecDeque::new(),
            delivered: 0,
            longest_queue: Duration::ZERO,
        }
    }

    fn chance(&mut self) -> f64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.random >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Sends as the window allows and delivers, for so long.
    fn run(&mut self, window: &mut Window, duration: Duration) {
        let end = self.now + duration;
        while self.now < end {
            let mut in_flight = self.flying.len() as u64 * MTU;
            while in_flight + MTU <= window.bytes() {
                let start = self.free_at.max(self.now);
                let queue = start - self.now;
                self.longest_queue = self.longest_queue.max(queue);
                let lost = self.chance() < self.loss || queue > Duration::from_secs(1);
                if queue <= Duration::from_secs(1) {
                    self.free_at = start + Duration::from_secs_f64(MTU as f64 / self.rate);
                }
                let late = self.jitter.mul_f64(self.chance() + self.chance());
                let back = self.free_at.max(self.now) + self.rtt + late;
                let last = self.flying.back().map_or(back, |(_, last, _)| *last);
                self.flying.push_back((self.now, back.max(last), lost));
                window.on_sent(self.now, MTU);
                in_flight += MTU;
            }
            let Some((sent, back, lost)) = self.flying.pop_front() else { break };
            self.now = self.now.max(back);
            if lost {
                window.on_lost(MTU);
            } else {
                self.delivered += MTU;
                window.on_acked(self.now, sent, MTU, false);
            }
        }
    }
}

const MTU: u64 = 1_200;

fn utilisation(loss: f64) -> f64 {
    filled(Link::new(32_000.0, 600, loss))
}

/// The share of a minute of the link that was used, after a ping had shown how long its way is for small packets.
fn filled(mut link: Link) -> f64 {
    let mut window = Window::new(1_200);
    let pinged = link.now;
    link.now += link.rtt;
    window.on_sent(pinged, 40);
    window.on_acked(link.now, pinged, 40, true);
    link.run(&mut window, Duration::from_secs(60));
    link.delivered as f64 / (link.rate * 60.0)
}

#[test]
fn a_lossy_link_is_filled_all_the_same() {
    assert!(utilisation(0.0) > 0.93, "{}", utilisation(0.0));
    assert!(utilisation(0.05) > 0.88, "{}", utilisation(0.05));
    assert!(utilisation(0.10) > 0.80, "{}", utilisation(0.10));
}

#[test]
fn a_slow_link_whose_packets_take_now_this_long_and_now_that_is_filled() {
    let used = filled(Link { jitter: Duration::from_millis(200), ..Link::new(4_000.0, 700, 0.01) });
    assert!(used > 0.93, "{used}");
}

#[test]
fn a_short_link_whose_packets_take_several_times_longer_now_and_then_is_filled() {
    let used = filled(Link { jitter: Duration::from_millis(40), ..Link::new(625_000.0, 20, 0.04) });
    assert!(used > 0.85, "{used}");
}

#[test]
fn queues_stay_short_once_the_pipe_is_known() {
    let mut link = Link::new(32_000.0, 600, 0.02);
    let mut window = Window::new(1_200);
    link.run(&mut window, Duration::from_secs(30));
    link.longest_queue = Duration::ZERO;
    link.run(&mut window, Duration::from_secs(60));
    assert!(link.longest_queue < Duration::from_millis(500), "{:?}", link.longest_queue);
}

#[test]
fn a_very_slow_link_is_not_buried() {
    let mut link = Link::new(300.0, 3_000, 0.0);
    let mut window = Window::new(1_200);
    link.run(&mut window, Duration::from_secs(300));
    assert!(window.bytes() <= 4 * MTU, "{}", window.bytes());
    assert!(window.bytes() >= 2 * MTU);
}

#[test]
fn a_link_that_becomes_faster_is_followed() {
    let mut link = Link::new(16_000.0, 200, 0.0);
    let mut window = Window::new(1_200);
    link.run(&mut window, Duration::from_secs(30));
    let before = window.bytes();
    link.rate = 64_000.0;
    link.run(&mut window, Duration::from_secs(60));
    assert!(window.bytes() > 2 * before, "{before} -> {}", window.bytes());
}

#[test]
fn what_the_application_did_not_send_says_nothing_about_the_link() {
    let start = Instant::now();
    let mut window = Window::new(1_200);
    for round in 0..100 {
        let sent = start + Duration::from_secs(round);
        window.on_sent(sent, 100);
        window.on_acked(sent + Duration::from_millis(600), sent, 100, true);
    }
    assert_eq!(window.bytes(), INITIAL_WINDOW);
}

#[test]
fn the_shortest_round_trip_is_forgotten_after_ten_minutes() {
    let start = Instant::now();
    let mut shortest = Shortest::default();
    shortest.observe(start, 0.1);
    for second in 1..1_000 {
        shortest.observe(start + Duration::from_secs(second), 0.6);
        assert_eq!(shortest.value(), Some(if second < 600 { 0.1 } else { 0.6 }), "{second}");
    }
}

#[test]
fn an_outage_is_no_round_trip_and_a_longer_link_is_believed_in_steps() {
    let start = Instant::now();
    let mut window = Window::new(1_200);
    let mut acked = |at: u64, rtt_ms: u64| {
        let now = start + Duration::from_secs(at);
        window.on_acked(now, now - Duration::from_millis(rtt_ms), 1_200, false);
        window.smoothed_rtt
    };
    (4_000..4_100).for_each(|at| _ = acked(at, 600));
    // All that was acknowledged at once after an hour.
    (0..50).for_each(|packet| _ = acked(7_700, 3_600_000 - packet));
    let smoothed = acked(7_701, 600);
    assert!((0.6..1.2).contains(&smoothed), "{smoothed}");
    (7_702..7_800).for_each(|at| _ = acked(at, 20_000));
    let smoothed = acked(7_801, 20_000);
    assert!((18.0..20.1).contains(&smoothed), "{smoothed}");
}

#[test]
fn where_quinn_takes_an_outage_for_a_round_trip_it_is_kept_from_pacing() {
    const RTT: Duration = Duration::from_millis(600);
    let (start, shared) = (Instant::now(), Arc::new(InFlight::default()));
    let mut seat = Seat::new(shared, start, 1_200);
    seat.window.on_acked(start + RTT, start, 1_200, false);
    seat.on_end_acks(start + RTT, 0, false, None);
    let usual = seat.window();
    seat.notice_outage(start + RTT, start, RTT);
    assert_eq!(seat.window(), usual);

    let (outage, after) = (Duration::from_secs(3_600), start + Duration::from_secs(3_600));
    seat.notice_outage(after, start, RTT);
    assert_eq!(seat.window(), UNPACED);
    seat.on_sent(after, usual, 1);
    assert_eq!(seat.window(), usual, "there is room for no more");
    seat.remove(usual);
    seat.notice_outage(after + RTT, after, outage / 8);
    assert_eq!(seat.window(), UNPACED);
    seat.notice_outage(after + RTT, after, RTT * 2);
    assert_eq!(seat.window(), usual);
}

#[test]
fn full_packets_of_long_ago_say_nothing_about_another_path() {
    let (start, mut window) = (Instant::now(), Window::new(1_200));
    let mut answer = |after: u64, rtt: f64, bytes| {
        let sent = start + Duration::from_secs(after);
        window.on_sent(sent, bytes);
        window.on_acked(sent + Duration::from_secs_f64(rtt), sent, bytes, bytes < MTU);
        window.pipe().unwrap()
    };
    assert_eq!(answer(0, 0.05, MTU), 0.05);
    for second in 1..3_600 {
        answer(second, 0.7, 100);
    }
    assert!(answer(3_600, 0.7, 100) > 0.69);
    assert!(answer(3_601, 0.7, MTU) > 0.69);
}

#[test]
fn a_probe_may_leave_through_a_full_window_until_the_next_ack() {
    let shared = Arc::new(InFlight::default());
    let now = Instant::now();
    let mut seat = Seat::new(shared.clone(), now, 1_200);
    seat.on_sent(now, 50_000, 1);
    assert_eq!(seat.window(), INITIAL_WINDOW);
    shared.grant_probe();
    assert_eq!(seat.window(), 51_232);
    seat.on_congestion_event(now, now, false, 10_000);
    assert_eq!(shared.bytes(), 40_000);
    seat.on_end_acks(now, 12, false, None);
    assert_eq!((seat.window(), shared.bytes(), shared.acks()), (INITIAL_WINDOW, 12, 1));
}
