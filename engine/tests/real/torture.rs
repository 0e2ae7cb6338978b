//! A journal in a process of its own, with one thread, that says on stdout what the journal said: to be killed, or
//! refused, at any system call.
//!
//! `torture DIR SEED ACTS`
#![allow(clippy::disallowed_methods, reason = "a program of the tests")]

use std::{env, error, io, io::Write, path::Path};

use thinwire_engine::Error;
use work::{Random, Said, act, open, opened};

#[expect(dead_code, reason = "the tests use more of it")]
mod work;

fn main() -> Result<(), Box<dyn error::Error>> {
    let arguments: Vec<_> = env::args().collect();
    let [_, dir, seed, acts] = &arguments[..] else {
        return Err("three arguments are needed: a folder, a seed and a number of acts".into());
    };
    let (mut random, mut left) = (Random(seed.parse()?), acts.parse::<u32>()?);
    while left > 0 {
        work(Path::new(dir), &mut random, &mut left)?;
    }
    Ok(())
}

/// Works until a failure that only opening the journal anew can mend, or for one life of the journal.
fn work(dir: &Path, random: &mut Random, left: &mut u32) -> Result<(), Error> {
    let (_journal, stream) = open(dir)?;
    tell(opened(&stream));
    for _ in 0..ACTS_A_LIFE.min(*left) {
        *left -= 1;
        match act(&stream, random, &mut tell) {
            Ok(()) | Err(Error::NoSpace { .. }) => {}
            Err(Error::Io { .. } | Error::Poisoned { .. }) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// So few that what a start does is done several times.
const ACTS_A_LIFE: u32 = 50;

/// Says it before anything else is done; who cannot hear it any more has no interest in the rest.
fn tell(said: Said) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{said}").and_then(|()| out.flush());
}
