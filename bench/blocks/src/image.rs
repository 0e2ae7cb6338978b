//! What a disk holds, as blocks that copies share; those that were never written are zeros and take no memory.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read},
    path::Path,
    sync::Arc,
};

/// The content of a disk. Copies are cheap.
#[derive(Clone, Debug, Default)]
pub struct Image {
    blocks: BTreeMap<u64, Arc<[u8; BLOCK]>>,
}

impl Image {
    /// The content of a file, which may be sparse.
    pub(crate) fn of_file(path: &Path) -> io::Result<Self> {
        let (mut file, mut image, mut at) = (File::open(path)?, Self::default(), 0);
        let mut chunk = vec![0; CHUNK];
        loop {
            let read = file.read(&mut chunk)?;
            if read == 0 {
                return Ok(image);
            }
            image.write(at, &chunk[..read]);
            at += read as u64;
        }
    }

    /// Fills `out` with what stands at `at`.
    pub(crate) fn read(&self, at: u64, out: &mut [u8]) {
        each_block(at, out.len(), |block, inside, part| match self.blocks.get(&block) {
            Some(bytes) => out[part].copy_from_slice(&bytes[inside]),
            None => out[part].fill(0),
        });
    }

    /// Puts `bytes` at `at`.
    pub(crate) fn write(&mut self, at: u64, bytes: &[u8]) {
        each_block(at, bytes.len(), |block, inside, part| {
            let bytes = &bytes[part];
            if let Some(held) = self.blocks.get_mut(&block) {
                Arc::make_mut(held)[inside].copy_from_slice(bytes);
            } else if bytes.iter().any(|&byte| byte != 0) {
                let mut fresh = [0; BLOCK];
                fresh[inside].copy_from_slice(bytes);
                self.blocks.insert(block, Arc::new(fresh));
            }
        });
    }
}

/// Calls with each block that a range touches, the range inside it, and the range of the whole.
fn each_block(
    at: u64,
    len: usize,
    mut visit: impl FnMut(u64, std::ops::Range<usize>, std::ops::Range<usize>),
) {
    let mut done = 0;
    while done < len {
        let here = at + done as u64;
        let inside = usize::try_from(here % BLOCK as u64).expect("less than a block");
        let size = (BLOCK - inside).min(len - done);
        visit(here / BLOCK as u64, inside..inside + size, done..done + size);
        done += size;
    }
}

/// What file systems write at least, mostly; smaller writes are held all the same.
const BLOCK: usize = 4096;
/// How much of a file is read at a time.
const CHUNK: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_the_rest_is_zeros() {
        let mut image = Image::default();
        image.write(4096 - 512, &[7; 1024]);
        let copy = image.clone();
        image.write(4096, &[8; 512]);
        let mut out = [1; 2048];
        image.read(4096 - 1024, &mut out);
        assert_eq!(out[..512], [0; 512]);
        assert_eq!(out[512..1024], [7; 512]);
        assert_eq!(out[1024..1536], [8; 512]);
        copy.read(4096 - 1024, &mut out);
        assert_eq!(out[1024..1536], [7; 512]);
        assert_eq!(out[1536..], [0; 512]);
    }
}
