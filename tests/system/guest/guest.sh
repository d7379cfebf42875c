#!/bin/sh
# What only a kernel of one's own shows, in an emulated machine with a TPM behind the kernel's resource manager: device policies, file modes of
# the node, a key sealed by the TPM, a restart of the machine. A line of "ok NAME" or "not ok NAME: why" for each test; kernel.rs reads them.
PATH=/usr/sbin:/usr/bin
KEY=YSBrZXkgb2YgdGhlIHRlc3RzLCB0aGlydHktdHdvIGI=

ok() { echo "ok $1"; }
not_ok() {
	echo "not ok $1: $2"
	journalctl --boot --no-pager --lines 60 | sed 's/^/# /'
}

agent() { systemctl show --value --property "$1" dps-agent.service; }
restart() { systemctl daemon-reload; systemctl restart dps-agent.service; }

# NAME COMMAND…: waits until the command ends well.
until_so() {
	name=$1
	shift
	for _ in $(seq 240); do
		if "$@"; then ok "$name"; return; fi
		sleep 0.5
	done
	not_ok "$name" "it never came about; status: $(agent StatusText)"
}

assigned() { [ "$(agent StatusText)" = "assigned to localhost as $1 (proven)" ]; }
told() { agent StatusText | grep -qF "$1" || journalctl --boot --unit dps-agent.service --since "$since" | grep -qF "$1"; }
drop_in() { mkdir -p /etc/systemd/system/dps-agent.service.d; printf '[Service]\n%b' "$1" >/etc/systemd/system/dps-agent.service.d/guest.conf; }
no_drop_in() { rm -f /etc/systemd/system/dps-agent.service.d/guest.conf; }

configure() { # ATTESTATION
	cat >/etc/dps-agent/config.toml <<EOF
[dps]
host = "localhost"
id_scope = "0ne00000000"
transport = "https"
mqtt_port = 48883
https_port = 40443
ca_file = "/run/emulator-ca.pem"
ca_only = true
[attestation]
$1
[hub]
mqtt_port = 48883
https_port = 40443
EOF
}

first_boot() {
	: >/run/emulator-ca.pem
	configure 'method = "tpm"'
	identity=$(setpriv --reuid dps-agent --regid dps-agent --init-groups dps-agent identity --json)
	id=$(printf %s "$identity" | sed -n 's/.*"registrationId":"\([^"]*\)".*/\1/p')
	ek=$(printf %s "$identity" | sed -n 's/.*"endorsementKey":"\([^"]*\)".*/\1/p')
	echo "$id" >/registration-id
	cat >/emulator.toml <<EOF
[service]
id_scope = "0ne00000000"
hubs = ["localhost"]
mqtt_port = 48883
https_port = 40443
ca_out = "/run/emulator-ca.pem"
[[enrollment]]
registration_id = "$id"
endorsement_key = "$ek"
answer = "at-once"
[[enrollment]]
registration_id = "gw-sealed"
primary_key = "$KEY"
answer = "at-once"
EOF
	systemd-run --quiet --unit emulator /usr/bin/dps-emulator serve --config /emulator.toml --json
	until_so there_is_a_service_to_register_with test -s /run/emulator-ca.pem
	restart
	until_so a_tpm_of_the_kernel_registers_under_the_shipped_unit assigned "$id"
	if [ "$(stat --format '%a %G' /dev/tpmrm0)" = "660 tss" ] && [ -z "$(dpkg --verify dps-agent)" ]; then
		ok the_node_is_the_kernels_and_the_unit_the_packages
	else
		not_ok the_node_is_the_kernels_and_the_unit_the_packages "$(stat --format '%a %U %G' /dev/tpmrm0) $(dpkg --verify dps-agent)"
	fi

	for _ in 1 2 3 4 5; do
		systemctl kill --signal KILL dps-agent.service
		restart
		sleep 0.3
	done
	until_so kills_leave_nothing_in_the_tpm_that_hinders assigned "$id"

	forbidden="/dev/tpmrm0 is not open to this user"
	since=$(date '+%F %T')
	drop_in 'DeviceAllow=\n'
	restart
	until_so a_unit_without_device_allow_is_refused_and_says_so told "$forbidden"
	no_drop_in
	since=$(date '+%F %T')
	gpasswd --delete dps-agent tss >/dev/null
	sleep 1
	since=$(date '+%F %T')
	restart
	until_so a_user_outside_the_group_is_refused_and_says_so told "$forbidden"
	gpasswd --add dps-agent tss >/dev/null
	restart
	until_so and_back_in_it_is_served assigned "$id"

	devices
	sealed
	configure 'method = "tpm"'
	no_drop_in
	restart
	until_so a_sealed_credential_and_the_agent_share_the_tpm assigned "$id"
}

# As root, whom no file mode stops: what is refused is refused by the policy.
devices() {
	probe='for device in vda kmsg port mem tpm0 ttyS0 null; do if [ -e /dev/$device ]; then \
if (: <>/dev/$device) 2>/dev/null; then echo $device; fi; fi; done'
	for policy in "" "DevicePolicy=auto\nDeviceAllow=\n"; do
		drop_in "Type=oneshot\nUser=root\nGroup=root\nExecStart=\nExecStart=/bin/sh -c '$probe'\nRestart=no\nStandardOutput=file:/found\n$policy"
		rm -f /found
		restart
		found=$(tr '\n' ' ' </found)
		case $policy in
		"") within=$found ;;
		*) without=$found ;;
		esac
	done
	no_drop_in
	case "$within/$without" in
	"null /vda "*"null ") ok no_other_device_is_open_to_the_unit ;;
	*) not_ok no_other_device_is_open_to_the_unit "within '$within', without '$without'" ;;
	esac
}

sealed() {
	printf %s "$KEY" | systemd-creds encrypt --with-key=tpm2 --name=sealed - /etc/dps-agent/sealed 2>/tmp/sealing || cat /tmp/sealing
	drop_in 'LoadCredentialEncrypted=sealed:/etc/dps-agent/sealed\n'
	configure 'method = "symmetric-key"
registration_id = "gw-sealed"
key_credential = "sealed"'
	restart
	until_so a_key_that_the_tpm_has_sealed_registers assigned gw-sealed
}

second_boot() {
	id=$(cat /registration-id)
	until_so a_restart_without_network_finds_the_identity_again assigned "$id"
	if setpriv --reuid dps-agent --regid dps-agent --init-groups dps-agent token | grep -q '^SharedAccessSignature sr=localhost%2Fdevices%2F'; then
		ok and_the_tpm_signs_for_it
	else
		not_ok and_the_tpm_signs_for_it "no token"
	fi
	if [ "$(systemctl is-system-running)" = running ]; then ok the_machine_is_well; else not_ok the_machine_is_well "$(systemctl --failed)"; fi
}

printf '127.0.0.1 localhost\n' >/etc/hosts
if [ -e /registration-id ]; then
	second_boot
	systemctl --no-block poweroff
else
	first_boot
	systemctl --no-block reboot
fi
