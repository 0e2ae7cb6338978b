//! What the fuzz targets do that takes more than a few lines: lives of a journal, damage to one, sessions, and
//! what must hold behind each.

pub mod damage;
pub mod disk;
pub mod life;
pub mod session;
pub mod translation;
