//! Nodes that hear each other, or do not: who answers when.

use std::collections::BTreeMap;

use super::*;
use crate::claims::{Announcer, weight};

pub(super) fn ip(last: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, last])
}

const STRANGER: Mac = [2, 9, 9, 9, 9, 9];

fn mac(node: usize) -> Mac {
    [2, 0, 0, 0, 0, node as u8]
}

/// Some nodes on one segment, in steps of ten milliseconds. A node runs when its time has come or something has arrived;
/// what arrives at a frozen one waits in its socket, with the time at which it came.
pub(super) struct World {
    pub(super) start: Instant,
    pub(super) now: Instant,
    pub(super) nodes: Vec<Node>,
    /// Beats under way: from, to, when they arrive.
    wire: Vec<(usize, usize, Instant, Beat)>,
    /// Whether beats from one reach the other.
    pub(super) cut: HashSet<(usize, usize)>,
    stranger: Option<IpAddr>,
    pub(super) losses: Losses,
    /// How often an address was taken.
    pub(super) takes: usize,
}

/// Beats that get lost: at random, but never three in a row from one node to another, so that bounds can be named.
pub(super) struct Losses {
    pub(super) percent: u64,
    pub(super) state: u64,
    in_row: HashMap<(usize, usize), u8>,
}

impl Losses {
    fn lose(&mut self, from: usize, to: usize) -> bool {
        // Knuth's MMIX generator.
        self.state =
            self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let in_row = self.in_row.entry((from, to)).or_default();
        let lost = *in_row < 2 && (self.state >> 33) % 100 < self.percent;
        *in_row = if lost { *in_row + 1 } else { 0 };
        lost
    }
}

pub(super) struct Node {
    name: String,
    pub(super) tenures: Tenures,
    pub(super) running: bool,
    pub(super) alive: bool,
    wakes: Instant,
    said: Vec<(IpAddr, Saying)>,
    announced: Vec<(Instant, IpAddr)>,
}

const STEP: Duration = Duration::from_millis(10);

impl World {
    pub(super) fn new(count: usize, ips: &[IpAddr]) -> Self {
        let start = Instant::now();
        let names: Vec<String> = (0..count).map(|i| format!("node-{i}")).collect();
        let nodes = names.iter().enumerate().map(|(i, name)| {
            let mut tenures = Tenures::new(name, Settings::default(), 1, start);
            tenures.set_macs(vec![mac(i)]);
            let (running, alive, wakes) = (true, true, start);
            Node { name: name.clone(), tenures, running, alive, wakes, said: vec![], announced: vec![] }
        });
        let nodes = nodes.collect();
        let (wire, cut, stranger) = (Vec::new(), HashSet::new(), None);
        let losses = Losses { percent: 0, state: 1, in_row: HashMap::new() };
        let mut world = Self { start, now: start, nodes, wire, cut, stranger, losses, takes: 0 };
        let change = world.change(ips, |_| true);
        for node in &mut world.nodes {
            node.tenures.apply(change.clone(), start, 1);
        }
        world
    }

    pub(super) fn wall(&self) -> u64 {
        1_000_000 + self.now.duration_since(self.start).as_micros() as u64
    }

    /// All claims, of the nodes that are chosen.
    fn change(&self, ips: &[IpAddr], chosen: impl Fn(usize) -> bool) -> Change {
        let names: Vec<Arc<str>> = self.nodes.iter().map(|node| Arc::from(node.name.as_str())).collect();
        let claim = |ip: IpAddr| {
            let mut candidates: Vec<Arc<str>> = names
                .iter()
                .enumerate()
                .filter(|(i, _)| chosen(*i))
                .map(|(_, name)| Arc::clone(name))
                .collect();
            candidates.sort_by_key(|name| std::cmp::Reverse(weight(name, ip)));
            Claim { preferred: candidates.len(), candidates, ..Claim::default() }
        };
        let announcer =
            |i: usize| Announcer { addresses: vec![IpAddr::from([10, 0, 0, i as u8])], fresh: true };
        let announcers: BTreeMap<Arc<str>, Announcer> =
            names.iter().enumerate().map(|(i, name)| (Arc::clone(name), announcer(i))).collect();
        Change {
            claims: ips.iter().map(|ip| (*ip, Some(claim(*ip)))).collect(),
            announcers: Some(announcers),
        }
    }

    fn apply(&mut self, node: usize, change: Change) {
        let (now, wall) = (self.now, self.wall());
        self.nodes[node].tenures.apply(change, now, wall);
    }

    pub(super) fn step(&mut self) {
        self.now += STEP;
        for i in 0..self.nodes.len() {
            if self.nodes[i].running && self.nodes[i].alive {
                self.run_node(i);
            }
        }
        for i in 0..self.nodes.len() {
            self.act(i);
        }
    }

    /// As the speaker's thread does it.
    fn run_node(&mut self, i: usize) {
        let (now, wall) = (self.now, self.wall());
        let (arrived, wire): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.wire).into_iter().partition(|(_, to, at, _)| *to == i && *at <= now);
        self.wire = wire;
        let node = &mut self.nodes[i];
        if arrived.is_empty() && now < node.wakes {
            return;
        }
        node.tenures.wake(now);
        for (_, _, at, beat) in arrived {
            node.tenures.hear(&beat, at, now, wall);
        }
        node.tenures.tick(now, wall);
        node.wakes = now + node.tenures.idle_for(now);
    }

    fn act(&mut self, i: usize) {
        let (now, wall) = (self.now, self.wall());
        for action in self.nodes[i].tenures.take_actions() {
            match action {
                Action::Send(beat) => {
                    for to in (0..self.nodes.len()).filter(|to| *to != i) {
                        if !self.cut.contains(&(i, to)) && !self.losses.lose(i, to) {
                            self.wire.push((i, to, now + STEP, beat.clone()));
                        }
                    }
                }
                Action::Probe(ip) => {
                    let answers: Vec<Mac> = (0..self.nodes.len())
                        .filter(|other| *other != i && self.nodes[*other].alive && self.nodes[*other].running)
                        .filter(|other| self.nodes[*other].tenures.answers(ip))
                        .map(mac)
                        .chain(self.stranger.filter(|taken| *taken == ip).map(|_| STRANGER))
                        .collect();
                    for mac in answers {
                        self.nodes[i].tenures.seen(ip, mac, now, wall);
                    }
                }
                Action::Say(ip, saying) => self.nodes[i].said.push((ip, saying)),
                Action::Announce(ip) => self.nodes[i].announced.push((now, ip)),
                Action::Take(_) => self.takes += 1,
                Action::Drop(_) => {}
            }
        }
    }

    pub(super) fn run(&mut self, for_: Duration) {
        let end = self.now + for_;
        while self.now < end {
            self.step();
        }
    }

    /// Nodes that answer for the address: frozen and dead ones answer nothing.
    pub(super) fn answering(&self, ip: IpAddr) -> Vec<usize> {
        let answers = |i: &usize| {
            let node = &self.nodes[*i];
            node.alive && node.running && node.tenures.answers(ip)
        };
        (0..self.nodes.len()).filter(answers).collect()
    }

    pub(super) fn first(&self, ip: IpAddr) -> usize {
        (0..self.nodes.len()).max_by_key(|i| weight(&self.nodes[*i].name, ip)).unwrap()
    }

    /// Steps until exactly one node answers, other than the excepted; how long it took.
    fn until_one(&mut self, ip: IpAddr, except: Option<usize>) -> Duration {
        let begin = self.now;
        while self.answering(ip).len() != 1 || self.answering(ip).first() == except.as_ref() {
            self.step();
            assert!(self.now - begin < Duration::from_secs(10), "{:?}", self.answering(ip));
        }
        self.now - begin
    }
}

const A: u8 = 1;

#[test]
fn one_node_answers_after_it_has_listened_and_probed() {
    let mut world = World::new(3, &[ip(A)]);
    let took = world.until_one(ip(A), None);
    assert!(took >= Duration::from_millis(300) && took < Duration::from_millis(700), "{took:?}");
    let owner = world.first(ip(A));
    assert_eq!(world.answering(ip(A)), [owner]);
    world.run(Duration::from_secs(5));
    assert_eq!(world.answering(ip(A)), [owner]);
    assert_eq!(world.nodes[owner].said, [(ip(A), Saying::Announcing)]);
    assert_eq!(world.nodes[owner].announced.len(), ANNOUNCED_AT.len());
}

#[test]
fn a_dead_owner_is_followed_within_the_detection_time() {
    let mut world = World::new(3, &[ip(A)]);
    world.run(Duration::from_secs(2));
    let owner = world.first(ip(A));
    world.nodes[owner].alive = false;
    let took = world.until_one(ip(A), Some(owner));
    assert!(took <= Duration::from_millis(620), "{took:?}");
    let follower = world.answering(ip(A))[0];
    assert_eq!(world.nodes[follower].announced.last().unwrap().1, ip(A), "announced at once");
}

#[test]
fn a_frozen_owner_answers_nothing_when_it_wakes_and_then_gets_its_address_back() {
    let mut world = World::new(3, &[ip(A)]);
    world.run(Duration::from_secs(2));
    let owner = world.first(ip(A));
    world.nodes[owner].running = false;
    let took = world.until_one(ip(A), Some(owner));
    assert!(took <= Duration::from_millis(620), "{took:?}");
    world.run(Duration::from_secs(3));
    world.nodes[owner].running = true;
    let mut two = 0;
    for _ in 0..300 {
        world.step();
        assert!(!world.answering(ip(A)).is_empty(), "never none");
        two += usize::from(world.answering(ip(A)).len() > 1);
    }
    assert!(two <= 2, "two for as long as a beat is under way: {two}");
    assert_eq!(world.answering(ip(A)), [owner]);
}

#[test]
fn a_node_that_was_frozen_for_just_long_enough_gets_its_address_back() {
    for frozen in 30..60 {
        let mut world = World::new(2, &[ip(A)]);
        world.run(Duration::from_secs(2) + STEP * frozen);
        let owner = world.first(ip(A));
        world.nodes[owner].running = false;
        // As soon as others have taken it.
        world.until_one(ip(A), Some(owner));
        world.nodes[owner].running = true;
        world.run(Duration::from_secs(2));
        assert_eq!(world.answering(ip(A)), [owner]);
    }
}

#[test]
fn a_planned_move_leaves_no_gap() {
    let mut world = World::new(3, &[ip(A)]);
    world.run(Duration::from_secs(2));
    let owner = world.first(ip(A));
    let (now, wall) = (world.now, world.wall());
    world.nodes[owner].tenures.leave(now, wall);
    let begin = world.now;
    while world.answering(ip(A)).contains(&owner) {
        world.step();
        assert!(!world.answering(ip(A)).is_empty(), "never none");
        assert!(world.now - begin < Duration::from_millis(100), "handed over quickly");
    }
    assert_eq!(world.answering(ip(A)).len(), 1);
    assert!(world.nodes[owner].tenures.has_left(world.now));
}

#[test]
fn an_excluded_node_hands_over_without_a_gap_whoever_learns_of_it_first() {
    for first in 0..3 {
        let mut world = World::new(3, &[ip(A)]);
        world.run(Duration::from_secs(2));
        let owner = world.first(ip(A));
        for i in (0..3).map(|i| (i + first) % 3) {
            let change = world.change(&[ip(A)], |node| node != owner);
            world.apply(i, change);
            for _ in 0..10 {
                world.step();
                assert!(!world.answering(ip(A)).is_empty(), "never none");
            }
        }
        world.run(Duration::from_millis(200));
        assert_eq!(world.answering(ip(A)).len(), 1);
        assert_ne!(world.answering(ip(A)), [owner]);
    }
}

#[test]
fn after_a_partition_one_remains() {
    let mut world = World::new(3, &[ip(A), ip(2), ip(3)]);
    world.run(Duration::from_secs(2));
    for other in [1, 2] {
        world.cut.extend([(0, other), (other, 0)]);
    }
    world.run(Duration::from_secs(2));
    world.cut.clear();
    world.run(Duration::from_millis(600));
    for last in 1..=3 {
        assert_eq!(world.answering(ip(last)).len(), 1);
    }
}

#[test]
fn who_was_left_with_an_address_and_is_excluded_gives_it_back() {
    let mut world = World::new(2, &[ip(A)]);
    world.run(Duration::from_secs(2));
    world.cut.extend([(0, 1), (1, 0)]);
    world.run(Duration::from_secs(2));
    world.cut.clear();
    world.run(Duration::from_secs(1));
    let left = world.answering(ip(A))[0];
    assert_ne!(left, world.first(ip(A)), "the newer claim won");
    for node in [0, 1] {
        let change = world.change(&[ip(A)], |node| node != left);
        world.apply(node, change);
    }
    world.run(Duration::from_millis(100));
    assert_eq!(world.answering(ip(A)), [1 - left]);
}

#[test]
fn who_was_left_with_an_address_and_is_cordoned_gives_it_back() {
    let mut world = World::new(2, &[ip(A)]);
    world.run(Duration::from_secs(2));
    world.cut.extend([(0, 1), (1, 0)]);
    world.run(Duration::from_secs(2));
    world.cut.clear();
    world.run(Duration::from_secs(1));
    let left = world.answering(ip(A))[0];
    // It was the second candidate before, and still is: the order says nothing new.
    for node in [0, 1] {
        let mut change = world.change(&[ip(A)], |_| true);
        change.claims[0].1.as_mut().unwrap().preferred = 1;
        world.apply(node, change);
        assert!(!world.answering(ip(A)).is_empty(), "never none");
    }
    world.run(Duration::from_millis(100));
    assert_eq!(world.answering(ip(A)), [1 - left]);
    let takes = world.takes;
    world.run(Duration::from_secs(3));
    assert_eq!(world.takes, takes);
}

#[test]
fn views_that_differ_do_not_fight() {
    let mut world = World::new(2, &[ip(A)]);
    world.run(Duration::from_secs(2));
    let owner = world.first(ip(A));
    let other = 1 - owner;
    // The other believes that the owner is excluded, and the owner never learns of it.
    let change = world.change(&[ip(A)], |node| node != owner);
    world.apply(other, change);
    world.run(Duration::from_millis(200));
    assert_eq!(world.answering(ip(A)), [other], "the newer claim wins");
    let announced = world.nodes.iter().map(|node| node.announced.len()).sum::<usize>();
    world.run(Duration::from_secs(5));
    assert_eq!(world.answering(ip(A)), [other]);
    let later = world.nodes.iter().map(|node| node.announced.len()).sum::<usize>();
    assert!(later - announced <= ANNOUNCED_AT.len(), "no ping-pong");
    // And when the other dies, the owner is there.
    world.nodes[other].alive = false;
    assert!(world.until_one(ip(A), Some(other)) <= Duration::from_millis(620));
}

#[test]
fn a_stranger_keeps_the_address_until_it_goes() {
    let mut world = World::new(2, &[ip(A)]);
    world.stranger = Some(ip(A));
    world.run(Duration::from_secs(2));
    assert_eq!(world.answering(ip(A)), [0; 0]);
    let owner = world.first(ip(A));
    assert_eq!(world.nodes[owner].said, [(ip(A), Saying::Conflict(STRANGER))]);
    world.stranger = None;
    world.run(Duration::from_secs(6));
    assert_eq!(world.answering(ip(A)), [owner]);
}

#[test]
fn a_stranger_who_comes_later_is_not_fought_and_a_lone_frame_changes_nothing() {
    let mut world = World::new(2, &[ip(A)]);
    world.run(Duration::from_secs(2));
    let owner = world.first(ip(A));
    let (now, wall) = (world.now, world.wall());
    world.nodes[owner].tenures.seen(ip(A), STRANGER, now, wall);
    world.run(Duration::from_secs(1));
    assert_eq!(world.answering(ip(A)), [owner], "a lone frame");
    world.stranger = Some(ip(A));
    world.run(Duration::from_secs(3));
    let (now, wall) = (world.now, world.wall());
    world.nodes[owner].tenures.seen(ip(A), STRANGER, now, wall);
    world.run(Duration::from_millis(50));
    assert_eq!(world.answering(ip(A)), [0; 0]);
    assert_eq!(world.nodes[owner].said.last(), Some(&(ip(A), Saying::Conflict(STRANGER))));
}

#[test]
fn where_nobody_is_heard_leases_decide() {
    let mut world = World::new(3, &[ip(A)]);
    world.cut = (0..3).flat_map(|a| (0..3).map(move |b| (a, b))).collect();
    world.run(Duration::from_secs(2));
    let owner = world.first(ip(A));
    assert_eq!(world.answering(ip(A)), [owner], "not all of them");
    world.nodes[owner].alive = false;
    world.run(Duration::from_secs(2));
    assert_eq!(world.answering(ip(A)), [0; 0], "nobody can know");
    let mut change = world.change(&[ip(A)], |_| true);
    let name: Arc<str> = Arc::from(world.nodes[owner].name.as_str());
    change.announcers.as_mut().unwrap().get_mut(&name).unwrap().fresh = false;
    for i in (0..3).filter(|i| *i != owner) {
        world.apply(i, change.clone());
    }
    world.run(Duration::from_secs(1));
    assert_eq!(world.answering(ip(A)).len(), 1);
}

#[test]
fn a_node_without_a_link_passes_the_address_on() {
    let mut world = World::new(3, &[ip(A)]);
    world.run(Duration::from_secs(2));
    let owner = world.first(ip(A));
    let (now, wall) = (world.now, world.wall());
    world.nodes[owner].tenures.set_unable(HashSet::from([ip(A)]), now, wall);
    world.run(Duration::from_millis(100));
    assert_eq!(world.answering(ip(A)).len(), 1);
    assert_ne!(world.answering(ip(A)), [owner]);
}

#[test]
fn a_node_that_has_its_link_again_is_believed() {
    let mut world = World::new(2, &[ip(A)]);
    world.run(Duration::from_secs(2));
    let owner = world.first(ip(A));
    for unable in [HashSet::from([ip(A)]), HashSet::new()] {
        let (now, wall) = (world.now, world.wall());
        world.nodes[owner].tenures.set_unable(unable, now, wall);
        world.run(Duration::from_secs(1));
    }
    assert_eq!(world.answering(ip(A)), [owner]);
    // There and back, and no war over it.
    assert_eq!(world.takes, 3);
}

#[test]
fn thousands_of_addresses_are_handed_over_at_once() {
    let ips: Vec<IpAddr> =
        (0..3000_u32).map(|n| IpAddr::from(std::net::Ipv4Addr::from(0x0a00_0000 + n))).collect();
    let mut world = World::new(3, &ips);
    world.run(Duration::from_secs(1));
    world.nodes[0].alive = false;
    world.run(Duration::from_millis(700));
    for ip in ips {
        assert_eq!(world.answering(ip).len(), 1, "{ip}");
    }
}
