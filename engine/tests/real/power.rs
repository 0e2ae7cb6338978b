//! Power cuts at any moment of a journal's life on real file systems, its recovery included: nothing acknowledged is
//! lost, nothing else appears, and no stream halts.
//!
//! `THINWIRE_REAL_POWER_CUTS` sets how many cuts each file system sees.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::Instant,
};

use thinwire_blocks::{Device, FileSystem, Image};

use crate::{
    model::Model,
    possible, say, setting,
    work::{Random, act, open, opened},
};

#[test]
fn a_power_cut_on_ext4_loses_nothing_that_was_acknowledged() {
    cut(FileSystem::Ext4);
}

#[test]
fn a_power_cut_on_ext4_with_data_in_its_journal_loses_nothing_that_was_acknowledged() {
    cut(FileSystem::Ext4DataJournal);
}

#[test]
fn a_power_cut_on_xfs_loses_nothing_that_was_acknowledged() {
    cut(FileSystem::Xfs);
}

#[test]
fn a_power_cut_on_btrfs_loses_nothing_that_was_acknowledged() {
    cut(FileSystem::Btrfs);
}

/// What was seen on the way.
#[derive(Default)]
struct Seen {
    cuts: u64,
    in_recovery: u64,
    acked: u64,
}

fn cut(file_system: FileSystem) {
    if !possible("power cuts", file_system) {
        return;
    }
    let (wanted, started) = (setting("THINWIRE_REAL_POWER_CUTS", 60), Instant::now());
    let mut seen = Seen::default();
    for seed in 0..wanted.div_ceil(CUTS_PER_DEVICE) {
        let lives = catch_unwind(AssertUnwindSafe(|| lives(file_system, seed, &mut seen)));
        assert!(lives.is_ok(), "{}, seed {seed}, cut {}", file_system.name(), seen.cuts);
    }
    let Seen { cuts, in_recovery, acked } = seen;
    say(format!(
        "power cuts on {}: {cuts}, {in_recovery} of them during recovery; {acked} records acknowledged, lost: 0; \
         false halts: 0; {:.1} s",
        file_system.name(),
        started.elapsed().as_secs_f64()
    ));
}

/// One life after another on what the last power cut left.
fn lives(file_system: FileSystem, seed: u64, seen: &mut Seen) {
    let device = Device::attach(file_system).unwrap();
    let mut random = Random(seed);
    let (mut image, mut model) = (device.disk().cut(0, &mut |_| 0), Model::default());
    for _ in 0..CUTS_PER_DEVICE {
        let life = Life::live(&device, image, model, &mut random);
        seen.acked += life.acked();
        let moment = life.moment(&mut random);
        seen.in_recovery += u64::from(moment < life.opened);
        seen.cuts += 1;
        model = life.at(moment);
        image = device.disk().cut(moment, &mut |n| random.below(n));
    }
    Life::live(&device, image, model, &mut random);
}

/// What was true from which moment of the disk on.
struct Life {
    states: Vec<(usize, Model)>,
    /// When recovery was over.
    opened: usize,
    end: usize,
}

impl Life {
    /// Mounts, opens, checks, and works for a while.
    fn live(device: &Device, image: Image, model: Model, random: &mut Random) -> Self {
        let disk = device.disk();
        disk.load(image);
        let mounted = device.mount().expect("a file system survives a power cut");
        let mut states = vec![(0, model.clone())];
        let (journal, stream) = open(mounted.path()).expect("a power cut alone halts no stream");
        model.check(&stream);
        let mut model = model;
        model.hear(opened(&stream));
        let opened = disk.position();
        states.push((opened, model.clone()));
        for _ in 0..random.below(ACTS_MAX) {
            act(&stream, random, &mut |said| {
                model.hear(said);
                states.push((disk.position(), model.clone()));
            })
            .unwrap();
        }
        let end = disk.position();
        drop((journal, stream));
        Self { states, opened, end }
    }

    /// When to cut: often while the file system and the journal recover.
    fn moment(&self, random: &mut Random) -> usize {
        match random.below(3) {
            0 => random.below(self.opened + 1),
            1 => random.below(self.end + 1),
            _ => self.opened + random.below(self.end - self.opened + 1),
        }
    }

    /// What must be held after a cut at this moment.
    fn at(&self, moment: usize) -> Model {
        let count = self.states.partition_point(|(from, _)| *from <= moment);
        let (_, model) = &self.states[count - 1];
        match (count, self.states.last()) {
            // Recovery may have cut off what was taken in an earlier life, or not yet.
            (1, _) | (_, None) => model.clone(),
            (_, Some((_, last))) => model.but_taken(last),
        }
    }

    fn acked(&self) -> u64 {
        let (Some((_, first)), Some((_, last))) = (self.states.get(1), self.states.last()) else {
            return 0;
        };
        last.acked() - first.acked()
    }
}

/// A fresh file system after as many cuts, so that a failure is found again soon.
const CUTS_PER_DEVICE: u64 = 30;
const ACTS_MAX: usize = 40;
