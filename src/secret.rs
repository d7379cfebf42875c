//! Secrets that cannot be printed or copied by accident, and are wiped when dropped.

use std::fmt;

use zeroize::Zeroize;

/// A value that is wiped from memory when dropped. No `Display`, no `Clone`; `Debug` shows its length only.
pub struct Secret<T: Zeroize + AsRef<[u8]>>(T);

impl<T: Zeroize + AsRef<[u8]>> Secret<T> {
    /// Takes ownership: from here on this is the only copy.
    pub fn new(value: T) -> Self {
        Self(value)
    }

    /// The secret itself, for the moment of its use.
    pub fn expose(&self) -> &T {
        &self.0
    }
}

impl<T: Zeroize + AsRef<[u8]>> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({} bytes)", self.0.as_ref().len())
    }
}

impl<T: Zeroize + AsRef<[u8]>> Drop for Secret<T> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_a_length_and_no_more() {
        assert_eq!(format!("{:?}", Secret::new("hunter2".to_owned())), "Secret(7 bytes)");
        assert_eq!(format!("{:?}", Secret::new(vec![1, 2, 3])), "Secret(3 bytes)");
    }
}
