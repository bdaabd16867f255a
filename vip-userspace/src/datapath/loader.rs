//! aya's loader of objects. To make one takes tens of milliseconds, since it reads the kernel's
//! BTF, by which no program here is relocated. So a start makes one for all objects, and in a
//! thread of its own.

use std::fmt;
use std::io;
use std::thread::{self, JoinHandle};

use aya::EbpfLoader;

/// A loader without options.
pub struct Loader(pub(super) EbpfLoader<'static>);

impl Default for Loader {
    fn default() -> Self {
        Self(EbpfLoader::new())
    }
}

impl fmt::Debug for Loader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Loader")
    }
}

impl Loader {
    /// Begins to make one.
    ///
    /// # Errors
    /// The kernel gives no thread.
    pub fn begin() -> io::Result<Begun> {
        let thread = thread::Builder::new().name("vip-loader".to_owned());
        thread.spawn(Self::default).map(Begun)
    }
}

/// A loader that is being made.
#[derive(Debug)]
pub struct Begun(JoinHandle<Loader>);

impl Begun {
    /// Waits for it.
    #[must_use]
    pub fn end(self) -> Loader {
        self.0.join().unwrap_or_default()
    }
}
