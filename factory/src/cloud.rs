//! Which cloud: where identities sign in, what instances are called, and for whom tokens are made.

use azure_core::cloud::{CloudConfiguration, CustomConfiguration};
use clap::ValueEnum;

/// What tokens are for in every cloud, unless the command line says otherwise. For sovereign clouds UNCONFIRMED (DPS service API §5).
pub const AUDIENCE: &str = "https://azure-devices-provisioning.net";

/// Microsoft's clouds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Cloud {
    /// login.microsoftonline.com, NAME.azure-devices-provisioning.net
    Public,
    /// login.microsoftonline.us, NAME.azure-devices-provisioning.us
    UsGovernment,
    /// login.chinacloudapi.cn, NAME.azure-devices-provisioning.cn
    China,
}

impl Cloud {
    /// Where identities sign in.
    pub fn authority(self) -> &'static str {
        match self {
            Self::Public => "https://login.microsoftonline.com",
            Self::UsGovernment => "https://login.microsoftonline.us",
            Self::China => "https://login.chinacloudapi.cn",
        }
    }

    fn suffix(self) -> &'static str {
        match self {
            Self::Public => "azure-devices-provisioning.net",
            Self::UsGovernment => "azure-devices-provisioning.us",
            Self::China => "azure-devices-provisioning.cn",
        }
    }

    /// The host of an instance: a name with a dot, or with a port, is a host already, as the Azure CLI has it.
    pub fn host(self, name: &str) -> String {
        if name.contains(['.', ':']) {
            name.to_ascii_lowercase()
        } else {
            format!("{}.{}", name.to_ascii_lowercase(), self.suffix())
        }
    }
}

/// An authority as `azure_identity` takes it.
pub fn configuration(authority: &str) -> CloudConfiguration {
    let mut custom = CustomConfiguration::default();
    custom.authority_host = authority.to_owned();
    CloudConfiguration::Custom(custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_completed_and_a_host_is_not() {
        assert_eq!(Cloud::Public.host("Line7"), "line7.azure-devices-provisioning.net");
        assert_eq!(Cloud::UsGovernment.host("line7"), "line7.azure-devices-provisioning.us");
        assert_eq!(Cloud::China.host("line7"), "line7.azure-devices-provisioning.cn");
        assert_eq!(Cloud::Public.host("dps.example.net"), "dps.example.net");
        assert_eq!(Cloud::Public.host("localhost:8443"), "localhost:8443");
    }
}
