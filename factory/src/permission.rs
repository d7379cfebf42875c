//! Who may do what: the nine permissions of the service (DPS service API §5.2), the roles that hold them, and what each command needs.

use std::fmt;

use serde_json::{Value, json};

/// What stands before every name of [`Permission`].
const NAMESPACE: &str = "Microsoft.Devices/provisioningServices";

/// A data action of Azure RBAC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Permission {
    /// Read and list individual enrollments, without keys.
    EnrollmentsRead,
    /// Create and change individual enrollments.
    EnrollmentsWrite,
    /// Delete individual enrollments.
    EnrollmentsDelete,
    /// Read and list enrollment groups, without keys.
    GroupsRead,
    /// Create and change enrollment groups.
    GroupsWrite,
    /// Delete enrollment groups.
    GroupsDelete,
    /// Read the keys of enrollments and of groups.
    AttestationDetails,
    /// Read registration states.
    StatesRead,
    /// Delete registration states.
    StatesDelete,
}

/// All of them, in the order of the documents.
#[cfg(test)]
pub const ALL: [Permission; 9] = [
    Permission::EnrollmentsRead,
    Permission::EnrollmentsWrite,
    Permission::EnrollmentsDelete,
    Permission::GroupsRead,
    Permission::GroupsWrite,
    Permission::GroupsDelete,
    Permission::AttestationDetails,
    Permission::StatesRead,
    Permission::StatesDelete,
];

impl Permission {
    /// The name without what all have in common, such as `enrollments/read`.
    pub fn name(self) -> &'static str {
        match self {
            Self::EnrollmentsRead => "enrollments/read",
            Self::EnrollmentsWrite => "enrollments/write",
            Self::EnrollmentsDelete => "enrollments/delete",
            Self::GroupsRead => "enrollmentGroups/read",
            Self::GroupsWrite => "enrollmentGroups/write",
            Self::GroupsDelete => "enrollmentGroups/delete",
            Self::AttestationDetails => "attestationmechanism/details/action",
            Self::StatesRead => "registrationStates/read",
            Self::StatesDelete => "registrationStates/delete",
        }
    }

    /// The whole name, as a role definition has it.
    pub fn data_action(self) -> String {
        format!("{NAMESPACE}/{}", self.name())
    }

    /// The narrowest of Microsoft's own roles that holds it (DPS service API §5.1).
    pub fn built_in_role(self) -> Role {
        match self {
            Self::EnrollmentsRead | Self::GroupsRead | Self::StatesRead => Role::DataReader,
            Self::EnrollmentsWrite
            | Self::EnrollmentsDelete
            | Self::GroupsWrite
            | Self::GroupsDelete
            | Self::AttestationDetails
            | Self::StatesDelete => Role::DataContributor,
        }
    }

    /// The right that a shared access policy needs instead (DPS service API §4).
    pub fn policy_right(self) -> &'static str {
        match self {
            Self::EnrollmentsRead | Self::GroupsRead => "EnrollmentRead",
            Self::EnrollmentsWrite | Self::EnrollmentsDelete | Self::GroupsWrite | Self::GroupsDelete => "EnrollmentWrite",
            // Which right lets keys be read is UNCONFIRMED; a policy with these two is known to work.
            Self::AttestationDetails => "ServiceConfig and EnrollmentWrite",
            Self::StatesRead => "RegistrationStatusRead",
            Self::StatesDelete => "RegistrationStatusWrite",
        }
    }

    /// Whether who has it can let a device of their own in, or take over one: worth as much as a key.
    pub fn is_key_material(self) -> bool {
        matches!(self, Self::EnrollmentsWrite | Self::GroupsWrite | Self::AttestationDetails)
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.data_action())
    }
}

/// A role that Azure brings along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Everything.
    DataContributor,
    /// Lists and gets, no keys.
    DataReader,
}

impl Role {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::DataContributor => "Device Provisioning Service Data Contributor",
            Self::DataReader => "Device Provisioning Service Data Reader",
        }
    }
}

/// How we proved who we are; it decides what a refusal means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// A token of Microsoft Entra ID.
    Entra,
    /// A key of a shared access policy.
    PolicyKey,
}

/// A permission that the service says we have not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lack {
    /// Which one.
    pub permission: Permission,
    /// With what we asked.
    pub scheme: Scheme,
    /// The instance that was asked.
    pub instance: String,
}

/// What is missing, where it can be given, by what; and what else the same answer can mean.
impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (permission, instance) = (self.permission, &self.instance);
        match self.scheme {
            Scheme::Entra => write!(
                f,
                "missing permission: {permission}\n\
                 where it can be assigned: the DPS instance {instance}, its resource group, its subscription, or a management group; \
                 not a single enrollment\n\
                 what gives it: the built-in role \"{}\", or a custom role (dps-factory permissions --role-definition FILE COMMAND…)\n\
                 if it has just been assigned: that takes some minutes to act\n\
                 if it is there: the token may be of another tenant, or an IP filter of the instance refuses this address, which looks the same",
                permission.built_in_role().name()
            ),
            Scheme::PolicyKey => write!(
                f,
                "missing right: the shared access policy needs {}\n\
                 if it has it: the key may be another one or of another instance than {instance}, this machine's clock may be wrong, \
                 or an IP filter of the instance refuses this address, which looks the same",
                permission.policy_right()
            ),
        }
    }
}

/// A command and what it needs.
#[derive(Debug)]
pub struct Needs {
    /// As it is typed, such as `enrollment list`.
    pub command: &'static str,
    /// What it always needs.
    pub always: &'static [Permission],
    /// What it needs with an option, and which one that is.
    pub with: &'static [(&'static str, Permission)],
}

/// Every command that asks the service.
pub const COMMANDS: &[Needs] = {
    use Permission::{
        AttestationDetails, EnrollmentsDelete, EnrollmentsRead, EnrollmentsWrite, GroupsDelete, GroupsRead, GroupsWrite,
        StatesDelete, StatesRead,
    };
    &[
        Needs {
            command: "enroll",
            always: &[EnrollmentsRead, EnrollmentsWrite],
            with: &[("--check-keys", AttestationDetails), ("--service-keys --update", AttestationDetails)],
        },
        Needs { command: "enrollment list", always: &[EnrollmentsRead], with: &[] },
        Needs { command: "enrollment show", always: &[EnrollmentsRead], with: &[("--show-keys", AttestationDetails)] },
        Needs { command: "enrollment query", always: &[EnrollmentsRead], with: &[] },
        Needs { command: "enrollment create", always: &[EnrollmentsRead, EnrollmentsWrite], with: &[] },
        Needs {
            command: "enrollment update",
            always: &[EnrollmentsRead, EnrollmentsWrite],
            with: &[("an enrollment with symmetric keys that are kept", AttestationDetails)],
        },
        Needs { command: "enrollment delete", always: &[EnrollmentsDelete], with: &[] },
        Needs { command: "enrollment-group list", always: &[GroupsRead], with: &[] },
        Needs { command: "enrollment-group show", always: &[GroupsRead], with: &[("--show-keys", AttestationDetails)] },
        Needs { command: "enrollment-group query", always: &[GroupsRead], with: &[] },
        Needs { command: "enrollment-group create", always: &[GroupsRead, GroupsWrite], with: &[] },
        Needs {
            command: "enrollment-group update",
            always: &[GroupsRead, GroupsWrite],
            with: &[("a group with symmetric keys that are kept", AttestationDetails)],
        },
        Needs { command: "enrollment-group delete", always: &[GroupsDelete], with: &[] },
        Needs { command: "registration show", always: &[StatesRead], with: &[] },
        Needs { command: "registration list", always: &[StatesRead], with: &[] },
        Needs { command: "registration delete", always: &[StatesDelete], with: &[] },
        Needs { command: "attestation show", always: &[AttestationDetails], with: &[] },
        Needs { command: "derive-key", always: &[], with: &[("--enrollment-id", AttestationDetails)] },
        Needs { command: "config", always: &[], with: &[] },
    ]
};

/// A custom role for exactly these permissions, as `az role definition create --role-definition @FILE` takes it.
pub fn role_definition(name: &str, permissions: &[Permission], scope: &str) -> Value {
    let actions: Vec<_> = permissions.iter().map(|permission| permission.data_action()).collect();
    json!({
        "Name": name,
        "IsCustom": true,
        "Description": format!("What dps-factory needs, and nothing else: {}", actions.join(", ")),
        "Actions": [],
        "NotActions": [],
        "DataActions": actions,
        "NotDataActions": [],
        "AssignableScopes": [scope],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_are_those_of_the_documents() {
        let names: Vec<_> = ALL.iter().map(ToString::to_string).collect();
        assert_eq!(
            names,
            [
                "Microsoft.Devices/provisioningServices/enrollments/read",
                "Microsoft.Devices/provisioningServices/enrollments/write",
                "Microsoft.Devices/provisioningServices/enrollments/delete",
                "Microsoft.Devices/provisioningServices/enrollmentGroups/read",
                "Microsoft.Devices/provisioningServices/enrollmentGroups/write",
                "Microsoft.Devices/provisioningServices/enrollmentGroups/delete",
                "Microsoft.Devices/provisioningServices/attestationmechanism/details/action",
                "Microsoft.Devices/provisioningServices/registrationStates/read",
                "Microsoft.Devices/provisioningServices/registrationStates/delete",
            ]
        );
    }

    #[test]
    fn the_reader_role_is_named_for_what_ends_in_read_alone() {
        for permission in ALL {
            let reads = permission.name().ends_with("/read");
            assert_eq!(permission.built_in_role() == Role::DataReader, reads, "{permission}");
        }
    }

    #[test]
    fn a_lack_says_what_is_missing_where_it_is_given_and_by_what() {
        let lack = Lack {
            permission: Permission::EnrollmentsWrite,
            scheme: Scheme::Entra,
            instance: "line7.azure-devices-provisioning.net".to_owned(),
        };
        let text = lack.to_string();
        assert_eq!(
            text.lines().take(3).collect::<Vec<_>>(),
            [
                "missing permission: Microsoft.Devices/provisioningServices/enrollments/write",
                "where it can be assigned: the DPS instance line7.azure-devices-provisioning.net, its resource group, \
                 its subscription, or a management group; not a single enrollment",
                "what gives it: the built-in role \"Device Provisioning Service Data Contributor\", or a custom role \
                 (dps-factory permissions --role-definition FILE COMMAND…)",
            ]
        );
        let key = Lack { scheme: Scheme::PolicyKey, ..lack };
        assert_eq!(key.to_string().lines().next(), Some("missing right: the shared access policy needs EnrollmentWrite"));
    }

    #[test]
    fn a_role_definition_holds_what_was_asked_and_no_wildcard() {
        let role =
            role_definition("Factory line 7", &[Permission::EnrollmentsRead, Permission::EnrollmentsWrite], "/subscriptions/s");
        assert_eq!(
            role["DataActions"],
            json!([
                "Microsoft.Devices/provisioningServices/enrollments/read",
                "Microsoft.Devices/provisioningServices/enrollments/write"
            ])
        );
        assert_eq!((&role["Actions"], &role["AssignableScopes"]), (&json!([]), &json!(["/subscriptions/s"])));
    }
}
