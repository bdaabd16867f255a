//! Names of tests.

/// The name of a test, with the reason if it does not run.
pub(crate) fn named(name: String, runs: bool) -> String {
    if runs {
        name
    } else {
        format!("{name} (for its time: run cargo xtask test vm)")
    }
}
