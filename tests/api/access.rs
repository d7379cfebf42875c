//! Who may use the sockets: users, groups, user namespaces, and containers that have mounted the directory.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use dps_agent::api::Limits;
use dps_agent::blame::Blame;

use crate::agent::{GROUP, Machine};
use crate::client::Client;

/// Some user who is neither root nor the agent's.
const USER: &str = "4712";

/// curl(1): the connection is refused to it.
const NOT_CONNECTED: i32 = 7;

/// Whether we are root, and so can become anybody. Else the test of this name is run by root in our place.
pub fn is_root(test: &str) -> bool {
    if rustix::process::geteuid().is_root() {
        return true;
    }
    let ourselves = std::env::current_exe().unwrap();
    let status = Command::new("sudo").arg("-n").arg(ourselves).args(["--exact", test]).status().unwrap();
    assert!(status.success(), "{test}, run by root: {status}");
    false
}

/// What a shell says, run by another user with this additional group.
fn as_user(group: Option<u32>, script: &str) -> Output {
    let groups = group.map_or("--clear-groups".to_owned(), |group| format!("--groups={group}"));
    let mut command = Command::new("setpriv");
    command.args([&format!("--reuid={USER}"), &format!("--regid={USER}"), groups.as_str(), "sh", "-c", script]);
    command.env_clear().env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin").current_dir("/").output().unwrap()
}

fn curl(socket: &Path) -> String {
    format!("curl --silent --show-error --max-time 60 --unix-socket '{}' http://localhost/v1/status", socket.display())
}

fn is_status(output: &Output) -> bool {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).contains("\"state\":\"provisioned\"")
}

fn mode(path: impl AsRef<Path>) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn modes_and_group_are_those_of_the_manual() {
    if !is_root("access::modes_and_group_are_those_of_the_manual") {
        return;
    }
    let machine = Machine::new();
    let _agent = machine.start();
    let (client, admin) = (machine.client(), machine.admin());
    let modes = [&machine.runtime(), client.parent().unwrap(), &client, admin.parent().unwrap(), &admin].map(mode);
    assert_eq!(modes.map(|mode| format!("{mode:o}")), ["755", "755", "660", "750", "600"]);
    assert_eq!(fs::metadata(client).unwrap().gid(), GROUP);
    assert_ne!(fs::metadata(admin).unwrap().gid(), GROUP);
}

#[test]
fn members_of_the_group_may_use_the_client_socket_and_others_may_not() {
    if !is_root("access::members_of_the_group_may_use_the_client_socket_and_others_may_not") {
        return;
    }
    let machine = Machine::new();
    let agent = machine.provisioned();
    assert!(is_status(&as_user(Some(GROUP), &curl(&machine.client()))));
    assert_eq!(as_user(None, &curl(&machine.client())).status.code(), Some(NOT_CONNECTED));
    assert_eq!(as_user(Some(GROUP), &curl(&machine.admin())).status.code(), Some(NOT_CONNECTED));
    let connection = curl(&machine.client()).replace("v1/status", "v1/connection") + " --request POST";
    assert!(as_user(Some(GROUP), &connection).status.success());
    assert_eq!(agent.desk.last_given().unwrap().uid.map(|uid| uid.to_string()).as_deref(), Some(USER));
}

/// What rootless podman and docker do: a user namespace, a mount namespace, and the directory bound into it.
#[test]
fn a_user_namespace_that_has_mounted_the_directory_gets_in_as_its_user_does() {
    if !is_root("access::a_user_namespace_that_has_mounted_the_directory_gets_in_as_its_user_does") {
        return;
    }
    let machine = Machine::new();
    let _agent = machine.provisioned();
    let place = machine.directory.join("container");
    fs::create_dir(&place).unwrap();
    let directory = machine.client();
    let mount = format!("mount --bind '{}' '{}'", directory.parent().unwrap().display(), place.display());
    let script = format!("unshare --user --mount --map-root-user sh -c \"{mount} && {}\"", curl(&place.join("api.sock")));
    assert!(is_status(&as_user(Some(GROUP), &script)));
    // Root in there is the user out here.
    assert_eq!(as_user(None, &script).status.code(), Some(NOT_CONNECTED));
}

#[test]
fn a_container_that_has_mounted_the_directory_finds_the_next_agent_in_it() {
    let machine = Machine::new();
    let agent = machine.provisioned();
    let place = machine.directory.join("container");
    fs::create_dir(&place).unwrap();
    let ask = curl(&place.join("api.sock"));
    let directory = machine.client().parent().unwrap().to_owned();
    let script = format!("mount --bind '{}' '{}' && {ask} && read next && {ask}", directory.display(), place.display());
    let mut container = Command::new("unshare");
    container.args(["--user", "--map-root-user", "--mount", "sh", "-c", &script]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut container = container.spawn().unwrap();
    let mut said = BufReader::new(container.stdout.take().unwrap()).lines();
    let mut next_line = || said.next().unwrap().unwrap();
    assert!(next_line().contains("\"generation\":3"));
    agent.stop();
    let agent = machine.start();
    agent.desk.serve(Some(machine.served(4)));
    container.stdin.take().unwrap().write_all(b"\n").unwrap();
    assert!(next_line().contains("\"generation\":4"));
    assert!(container.wait().unwrap().success());
}

#[test]
fn what_a_killed_agent_has_left_is_replaced_and_a_living_one_is_not() {
    let machine = Machine::new();
    fs::create_dir_all(machine.client().parent().unwrap()).unwrap();
    drop(UnixListener::bind(machine.client()).unwrap());
    fs::create_dir_all(machine.admin().parent().unwrap()).unwrap();
    fs::write(machine.admin().with_extension("new"), "half").unwrap();
    let agent = machine.provisioned();
    let Err(second) = machine.try_start(Limits::USUAL) else { panic!("there are two") };
    let expected = format!(
        "another dps-agent runs here: it has {}; stop it, or name another [runtime] directory",
        machine.runtime().display()
    );
    assert_eq!((second.blame, second.message), (Blame::Busy, expected));
    assert_eq!(Client::to(&machine.client()).get("/v1/status").status, 200, "the first one serves on");
    agent.stop();
    let _third = machine.start();
    assert_eq!(Client::to(&machine.admin()).get("/v1/status").status, 200);
}

#[test]
fn what_is_in_the_way_is_named_and_left_alone() {
    let machine = Machine::new();
    let (client, runtime) = (machine.client(), machine.runtime());
    fs::create_dir_all(client.parent().unwrap()).unwrap();
    fs::write(&client, "precious").unwrap();
    let failed = |machine: &Machine| machine.try_start(Limits::USUAL).err().map(|failure| (failure.blame, failure.message));
    let expected = format!("{} is no socket, and has the name of one of ours: remove it", client.display());
    assert_eq!(failed(&machine), Some((Blame::Unwritable, expected)));
    assert_eq!(fs::read_to_string(&client).unwrap(), "precious");
    fs::remove_dir_all(&runtime).unwrap();
    fs::write(&runtime, "").unwrap();
    let expected = format!("{} is not a directory: remove it, or name another one in the configuration", runtime.display());
    assert_eq!(failed(&machine), Some((Blame::Unwritable, expected)));
}

#[test]
fn without_the_group_the_agent_serves_its_own_user() {
    let machine = Machine::new();
    fs::write(machine.directory.join("etc/group"), "root:x:0:\ndps-clients-of-others:x:4711:\n").unwrap();
    let _agent = machine.provisioned();
    assert_ne!(fs::metadata(machine.client()).unwrap().gid(), GROUP);
    assert_eq!(mode(machine.client()), 0o660);
    assert_eq!(Client::to(&machine.client()).get("/v1/status").status, 200);
}
