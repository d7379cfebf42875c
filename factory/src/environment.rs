//! The one door through which the environment comes in. Secrets are read here; what may be seen in `ps` is an option, too.

/// The value of a variable, if it is set and not empty.
#[expect(clippy::disallowed_methods, reason = "this is the door")]
pub fn var(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
