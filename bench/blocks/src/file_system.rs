//! The file systems that a device can have: how each is made and mounted.

use std::{
    fs::File,
    io,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

use crate::{Image, program};

/// A file system, with what matters of how it is mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileSystem {
    /// ext4 as it comes: data is written before the metadata that names it.
    Ext4,
    /// ext4 with data in its journal too.
    Ext4DataJournal,
    /// ext4 on a disk of 16 MiB, to fill up.
    Ext4Small,
    /// XFS.
    Xfs,
    /// btrfs.
    Btrfs,
}

impl FileSystem {
    /// What it is called in a report.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Ext4DataJournal => "ext4 data=journal",
            Self::Ext4Small => "small ext4",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
        }
    }

    /// The program that makes it.
    pub(crate) fn maker(self) -> &'static str {
        match self {
            Self::Ext4 | Self::Ext4DataJournal | Self::Ext4Small => "mkfs.ext4",
            Self::Xfs => "mkfs.xfs",
            Self::Btrfs => "mkfs.btrfs",
        }
    }

    /// The size of its disk, in bytes: near the smallest that its maker accepts.
    pub(crate) fn size(self) -> u64 {
        match self {
            Self::Ext4 | Self::Ext4DataJournal => 64 << 20,
            Self::Ext4Small => 16 << 20,
            Self::Xfs => 300 << 20,
            Self::Btrfs => 128 << 20,
        }
    }

    /// Where its superblocks stand, which it writes in place, longer than a sector and without a second copy that it
    /// would mount from: it trusts that they are not torn.
    pub(crate) fn whole(self) -> &'static [u64] {
        match self {
            Self::Ext4 | Self::Ext4DataJournal | Self::Ext4Small => &[0],
            Self::Xfs => &[],
            Self::Btrfs => &[64 << 10, 64 << 20],
        }
    }

    pub(crate) fn kind(self) -> &'static str {
        match self {
            Self::Ext4 | Self::Ext4DataJournal | Self::Ext4Small => "ext4",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
        }
    }

    pub(crate) fn mount_options(self) -> &'static str {
        match self {
            Self::Ext4 | Self::Ext4Small => "noatime,data=ordered",
            Self::Ext4DataJournal => "noatime,data=journal",
            Self::Xfs => "noatime",
            Self::Btrfs => "noatime,nodiscard",
        }
    }

    /// An empty one, made in a temporary file in `folder`.
    pub(crate) fn make(self, folder: &Path) -> io::Result<Image> {
        static MADE: AtomicU64 = AtomicU64::new(0);
        let path = folder.join(format!("fresh-{}", MADE.fetch_add(1, Ordering::Relaxed)));
        File::create_new(&path)?.set_len(self.size())?;
        let text = path.to_string_lossy();
        let mut arguments = match self.kind() {
            "ext4" => {
                // Nothing is left for the kernel to initialise later, so that a test sees its own writes only.
                let lazy = "nodiscard,lazy_itable_init=0,lazy_journal_init=0";
                vec!["-q", "-F", "-b", "4096", "-J", "size=4", "-E", lazy]
            }
            _ => vec!["-q", "-f", "-K"],
        };
        arguments.push(&text);
        let made = program::run(self.maker(), &arguments).and_then(|_| Image::of_file(&path));
        std::fs::remove_file(&path)?;
        made
    }
}
