//! Block devices that remember every write and barrier, for tests of what must survive a power cut on a real file system.
//!
//! A [`Disk`] in memory is shown as a file through FUSE, the file becomes a loop device, and an unchanged kernel
//! puts ext4, XFS or btrfs on it. [`Disk::cut`] makes what a power cut at any moment would have left;
//! [`Disk::fail_writes`] makes chosen writes fail, with the kernel's page cache in between as in life.
//!
//! It needs root, `/dev/fuse`, loop devices and the programs that make file systems; [`missing()`] says what is not
//! there. Nothing stays behind: not when a test fails, and not when it is killed.
//!
//! ```no_run
//! use thinwire_blocks::{Device, FileSystem};
//!
//! # fn main() -> std::io::Result<()> {
//! let device = Device::attach(FileSystem::Ext4)?;
//! let mounted = device.mount()?;
//! std::fs::write(mounted.path().join("file"), "content")?;
//! let here = device.disk().position();
//! drop(mounted);
//! let image = device.disk().cut(here, &mut |n| n / 2);
//! device.disk().load(image);
//! let _what_was_left = device.mount()?;
//! # Ok(())
//! # }
//! ```
#![cfg_attr(not(test), deny(clippy::unwrap_used))]

mod device;
mod disk;
mod file;
mod file_system;
mod image;
mod missing;
mod program;
mod warden;

pub use device::{Device, Mounted};
pub use disk::Disk;
pub use file_system::FileSystem;
pub use image::Image;
pub use missing::missing;
