//! stub
use crate::blame::Blame;
use crate::config::RegistrationIdSource;
use crate::id::RegistrationId;
use std::path::Path;
#[derive(Debug, thiserror::Error)]
#[error("no")]
pub struct IdentityError;
impl IdentityError {
    pub fn blame(&self) -> Blame {
        Blame::Configuration
    }
}
pub fn registration_id(source: &RegistrationIdSource, _cn: Option<&str>, _root: &Path) -> Result<RegistrationId, IdentityError> {
    match source {
        RegistrationIdSource::Written(id) => Ok(id.clone()),
        _ => Err(IdentityError),
    }
}
