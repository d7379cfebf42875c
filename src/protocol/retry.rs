//! When to try again: placeholder until the registration steps are in.
