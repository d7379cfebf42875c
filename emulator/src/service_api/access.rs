//! Who may do what with the service API: the rights of a policy, and the permissions of a role at a scope (service API §4, §5).

use serde::Deserialize;

/// What enrollments there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Individual,
    Group,
}

/// What a call does, as far as rights and permissions tell calls apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Read(Kind),
    Write(Kind),
    Delete(Kind),
    /// The attestation with its keys.
    ReadDetails,
    ReadState,
    DeleteState,
}

/// What every permission begins with.
const PROVIDER: &str = "Microsoft.Devices/provisioningServices/";

impl Operation {
    const ALL: [Self; 9] = [
        Self::Read(Kind::Individual),
        Self::Write(Kind::Individual),
        Self::Delete(Kind::Individual),
        Self::Read(Kind::Group),
        Self::Write(Kind::Group),
        Self::Delete(Kind::Group),
        Self::ReadDetails,
        Self::ReadState,
        Self::DeleteState,
    ];

    /// The data action that a role must hold (service API §5.2), without [`PROVIDER`].
    pub(crate) fn permission(self) -> &'static str {
        match self {
            Self::Read(Kind::Individual) => "enrollments/read",
            Self::Write(Kind::Individual) => "enrollments/write",
            Self::Delete(Kind::Individual) => "enrollments/delete",
            Self::Read(Kind::Group) => "enrollmentGroups/read",
            Self::Write(Kind::Group) => "enrollmentGroups/write",
            Self::Delete(Kind::Group) => "enrollmentGroups/delete",
            Self::ReadDetails => "attestationmechanism/details/action",
            Self::ReadState => "registrationStates/read",
            Self::DeleteState => "registrationStates/delete",
        }
    }

    /// The rights that a policy must hold, all of them (service API §4). For the details it is UNCONFIRMED: these two are known
    /// to do.
    pub(crate) fn rights(self) -> &'static [Right] {
        match self {
            Self::Read(_) => &[Right::EnrollmentRead],
            Self::Write(_) | Self::Delete(_) => &[Right::EnrollmentWrite],
            Self::ReadDetails => &[Right::ServiceConfig, Right::EnrollmentWrite],
            Self::ReadState => &[Right::RegistrationStatusRead],
            Self::DeleteState => &[Right::RegistrationStatusWrite],
        }
    }
}

/// What a shared access policy may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(crate) enum Right {
    ServiceConfig,
    EnrollmentRead,
    EnrollmentWrite,
    RegistrationStatusRead,
    RegistrationStatusWrite,
    /// It is there in the management model; what it is for is UNCONFIRMED. Here it opens nothing.
    DeviceConnect,
}

impl Right {
    /// What `provisioningserviceowner` holds.
    pub(crate) const ALL: [Self; 6] = [
        Self::ServiceConfig,
        Self::EnrollmentRead,
        Self::EnrollmentWrite,
        Self::RegistrationStatusRead,
        Self::RegistrationStatusWrite,
        Self::DeviceConnect,
    ];
}

/// A role: data actions with `*` for any text, less those that are taken away.
#[derive(Debug, Clone)]
pub(crate) struct Role {
    pub(crate) name: String,
    data_actions: Vec<String>,
    not_data_actions: Vec<String>,
}

impl Role {
    /// The built-in ones (service API §5.1).
    pub(crate) fn built_in() -> Vec<Self> {
        let role = |name: &str, actions: &str| Self {
            name: name.to_owned(),
            data_actions: vec![format!("{PROVIDER}{actions}")],
            not_data_actions: Vec::new(),
        };
        vec![role("Device Provisioning Service Data Contributor", "*"), role("Device Provisioning Service Data Reader", "*/read")]
    }

    /// A custom role; the error names an action that gives or takes nothing here.
    pub(crate) fn new(name: String, data_actions: Vec<String>, not_data_actions: Vec<String>) -> Result<Self, String> {
        let idle =
            data_actions.iter().chain(&not_data_actions).find(|action| !Operation::ALL.iter().any(|one| covers(action, *one)));
        match idle {
            Some(action) => Err(format!("data action \"{action}\" is none of the Device Provisioning Service")),
            None => Ok(Self { name, data_actions, not_data_actions }),
        }
    }

    fn allows(&self, operation: Operation) -> bool {
        let any = |actions: &[String]| actions.iter().any(|action| covers(action, operation));
        any(&self.data_actions) && !any(&self.not_data_actions)
    }
}

fn covers(action: &str, operation: Operation) -> bool {
    fits(&action.to_lowercase(), &format!("{PROVIDER}{}", operation.permission()).to_lowercase())
}

/// Whether `text` has the form of `pattern`, in which `*` is any text, slashes included.
fn fits(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((start, rest)) => {
            let left = text.strip_prefix(start);
            left.is_some_and(|left| (0..=left.len()).any(|skipped| left.get(skipped..).is_some_and(|left| fits(rest, left))))
        }
    }
}

/// A role that a principal holds at a scope.
#[derive(Debug, Clone)]
pub(crate) struct Assignment {
    pub(crate) role: Role,
    pub(crate) scope: String,
}

/// Where this service stands among the resources of its tenant: what scopes hold for it.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// `/subscriptions/…/resourceGroups/…/providers/Microsoft.Devices/provisioningServices/…`
    pub(crate) resource_id: String,
    /// The names of the management groups above the subscription.
    pub(crate) management_groups: Vec<String>,
}

impl Place {
    /// Whether one of `assignments` allows `operation` here.
    pub(crate) fn allows(&self, assignments: &[Assignment], operation: Operation) -> bool {
        assignments.iter().any(|assignment| self.is_in(&assignment.scope) && assignment.role.allows(operation))
    }

    /// Whether a role at `scope` holds for this service: it is the service, its resource group, its subscription, or a management
    /// group above that.
    fn is_in(&self, scope: &str) -> bool {
        let (scope, own) = (scope.trim_end_matches('/').to_lowercase(), self.resource_id.to_lowercase());
        if let Some(group) = scope.strip_prefix(MANAGEMENT_GROUP) {
            return self.management_groups.iter().any(|name| name.eq_ignore_ascii_case(group));
        }
        own.strip_prefix(&scope).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

const MANAGEMENT_GROUP: &str = "/providers/microsoft.management/managementgroups/";

/// Whether a role can be assigned at `scope` at all: it has one of the four forms.
pub(crate) fn is_scope(scope: &str) -> bool {
    let scope = scope.to_lowercase();
    let parts: Vec<&str> = scope.split('/').collect();
    let named = parts.iter().skip(1).all(|part| !part.is_empty());
    let fits = matches!(
        parts.as_slice(),
        ["", "subscriptions", _]
            | ["", "subscriptions", _, "resourcegroups", _]
            | ["", "subscriptions", _, "resourcegroups", _, "providers", "microsoft.devices", "provisioningservices", _]
            | ["", "providers", "microsoft.management", "managementgroups", _]
    );
    named && fits
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &str = "/subscriptions/1/resourceGroups/factory/providers/Microsoft.Devices/provisioningServices/dps";

    fn place() -> Place {
        Place { resource_id: OWN.to_owned(), management_groups: vec!["Plants".to_owned()] }
    }

    fn allowed(role: &Role) -> Vec<&'static str> {
        Operation::ALL.iter().filter(|one| role.allows(**one)).map(|one| one.permission()).collect()
    }

    #[test]
    fn the_built_in_roles() {
        let [contributor, reader] = &Role::built_in()[..] else { panic!() };
        assert_eq!(allowed(contributor).len(), 9);
        assert_eq!(allowed(reader), ["enrollments/read", "enrollmentGroups/read", "registrationStates/read"]);
    }

    #[test]
    fn custom_roles_give_and_take() {
        let own = |actions: &[&str]| actions.iter().map(|action| format!("{PROVIDER}{action}")).collect::<Vec<_>>();
        let role = Role::new("station".to_owned(), own(&["enrollments/*"]), own(&["enrollments/DELETE"])).unwrap();
        assert_eq!(allowed(&role), ["enrollments/read", "enrollments/write"]);
        let wrong = Role::new("x".to_owned(), own(&["registrationStates/write"]), Vec::new()).unwrap_err();
        assert_eq!(
            wrong,
            "data action \"Microsoft.Devices/provisioningServices/registrationStates/write\" is none of the Device Provisioning Service"
        );
    }

    #[test]
    fn scopes_hold_for_what_is_below_them() {
        let group = "/providers/Microsoft.Management/managementGroups/plants";
        for scope in [OWN, &OWN.to_uppercase(), "/subscriptions/1", "/subscriptions/1/resourceGroups/factory", group] {
            assert!(is_scope(scope) && place().is_in(scope), "{scope}");
        }
        for scope in [
            "/subscriptions/11",
            "/subscriptions/1/resourceGroups/fact",
            "/providers/Microsoft.Management/managementGroups/other",
            &format!("{OWN}2"),
        ] {
            assert!(is_scope(scope) && !place().is_in(scope), "{scope}");
        }
        for scope in ["", "/", "subscriptions/1", "/subscriptions/", &format!("{OWN}/enrollments/gw")] {
            assert!(!is_scope(scope), "{scope}");
        }
    }
}
