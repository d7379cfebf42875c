# The agent, its units and the user as whom it runs. packaging/README.md says what this was tried with.
SUMMARY = "Azure IoT Hub Device Provisioning Service agent"
DESCRIPTION = "Registers a gateway by symmetric key, X.509 certificate or TPM 2.0, and hands its hub connection to the programs on it"
SECTION = "net"
LICENSE = "MIT | Apache-2.0"
LIC_FILES_CHKSUM = "\
    file://LICENSE-APACHE;md5=3b83ef96387f14655fc854ddc3c6bd57 \
    file://LICENSE-MIT;md5=8f9c291269c2fad1a14045aacd9fc405 \
"

require ${BPN}-crates.inc

# In local.conf, such as "git://git.example.com/dps-agent.git;protocol=https;branch=main", and DPS_AGENT_REV for a certain revision.
DPS_AGENT_URI ??= ""
DPS_AGENT_REV ??= "${AUTOREV}"
SRC_URI:prepend = "${@'%s;destsuffix=dps-agent ' % d.getVar('DPS_AGENT_URI') if d.getVar('DPS_AGENT_URI') else ''}"
PV = "0.1.0+git"
SRCREV = "${DPS_AGENT_REV}"
# Releases before styhead have no UNPACKDIR, later ones accept nothing else.
S = "${@d.getVar('UNPACKDIR') or d.getVar('WORKDIR')}/dps-agent"

inherit cargo systemd useradd

PACKAGECONFIG ??= "tpm"
# Loaded when it runs, by its name: nothing is linked, so nothing has to be there to build. tpm2-tss has the rule of udev that gives
# /dev/tpmrm0 to the group tss.
PACKAGECONFIG[tpm] = ",,,libtss2 libtss2-mu libtss2-tcti-device tpm2-tss"

FILES:${PN} += "\
    ${nonarch_libdir}/sysusers.d \
    ${nonarch_libdir}/tmpfiles.d \
    ${systemd_system_unitdir}/dps-agent.service.d \
    ${systemd_system_unitdir}/dps-provisioned.target \
    ${systemd_unitdir}/catalog \
    ${systemd_unitdir}/system-preset \
"

RRECOMMENDS:${PN} += "ca-certificates"

CARGO_BUILD_FLAGS:append = " --package dps-agent --config ${B}/tss2.toml"
CARGO_BUILD_FLAGS:append = "${@bb.utils.contains('PACKAGECONFIG', 'tpm', '', ' --no-default-features', d)}"

SYSTEMD_SERVICE:${PN} = "dps-agent.service dps-provisioned.path"

# For a root that is read-only: there sysusers.d comes too late. For A/B images set numbers in USERADD_UID_TABLES.
USERADD_PACKAGES = "${PN}"
GROUPADD_PARAM:${PN} = "--system tss; --system dps-clients; --system dps-agent"
USERADD_PARAM:${PN} = "--system --no-create-home --home-dir ${localstatedir}/lib/dps-agent --shell /sbin/nologin \
    --gid dps-agent --groups tss,dps-clients dps-agent"

python () {
    if not d.getVar('DPS_AGENT_URI') and not bb.data.inherits_class('externalsrc', d):
        raise bb.parse.SkipRecipe('say where the sources are: DPS_AGENT_URI, or inherit externalsrc')
}

# Cargo knows this target by a name of its own, so the checkout's .cargo/config.toml does not cover it.
do_configure:append() {
    printf '[target."%s".tss2-esys]\nversion = "3"\n' '${RUST_HOST_SYS}' > ${B}/tss2.toml
}

do_install:append() {
    install -D -m 0644 -t ${D}${systemd_system_unitdir} \
        ${S}/systemd/dps-agent.service ${S}/systemd/dps-provisioned.path ${S}/systemd/dps-provisioned.target
    install -D -m 0644 -t ${D}${systemd_system_unitdir}/dps-agent.service.d ${S}/systemd/254/50-dps-agent.conf
    install -D -m 0644 -t ${D}${systemd_unitdir}/system-preset ${S}/systemd/80-dps-agent.preset
    install -D -m 0644 -t ${D}${systemd_unitdir}/catalog ${S}/systemd/dps-agent.catalog
    install -D -m 0644 ${S}/systemd/dps-agent.sysusers ${D}${nonarch_libdir}/sysusers.d/dps-agent.conf
    install -D -m 0644 ${S}/systemd/dps-agent.tmpfiles ${D}${nonarch_libdir}/tmpfiles.d/dps-agent.conf
    install -d ${D}${sysconfdir}/dps-agent
}
