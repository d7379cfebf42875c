################################################################################
#
# dps-agent
#
################################################################################

DPS_AGENT_VERSION = $(call qstrip,$(BR2_PACKAGE_DPS_AGENT_VERSION))
DPS_AGENT_SITE = $(call qstrip,$(BR2_PACKAGE_DPS_AGENT_SITE))
DPS_AGENT_SITE_METHOD = git
DPS_AGENT_LICENSE = Apache-2.0 or MIT
DPS_AGENT_LICENSE_FILES = LICENSE-APACHE LICENSE-MIT

# The revision is the user's choice, so nobody knows the archive's hash.
BR_NO_CHECK_HASH_FOR += $(DPS_AGENT_SOURCE)

# libtss2 is loaded when the agent runs: the build must not look for it, whatever the name of the target.
DPS_AGENT_TSS2 = --config 'target."$(RUSTC_TARGET_NAME)".tss2-esys.version="3"'
DPS_AGENT_CARGO_BUILD_OPTS = --package dps-agent $(DPS_AGENT_TSS2)
DPS_AGENT_CARGO_INSTALL_OPTS = $(DPS_AGENT_TSS2)

ifneq ($(BR2_PACKAGE_DPS_AGENT_TPM),y)
DPS_AGENT_CARGO_BUILD_OPTS += --no-default-features
DPS_AGENT_CARGO_INSTALL_OPTS += --no-default-features
endif

# Members of the last group may ask the agent for the device's connection.
define DPS_AGENT_USERS
	dps-agent -1 dps-agent -1 * /var/lib/dps-agent - tss,dps-clients Azure DPS agent
	- -1 tss -1 - - - - TPM
	- -1 dps-clients -1 - - - - Clients of the Azure DPS agent
endef

define DPS_AGENT_PERMISSIONS
	/var/lib/dps-agent d 0700 dps-agent dps-agent - - - - -
endef

define DPS_AGENT_INSTALL_DIRECTORIES
	$(INSTALL) -d -m 0755 $(TARGET_DIR)/etc/dps-agent
	$(INSTALL) -d -m 0700 $(TARGET_DIR)/var/lib/dps-agent
endef
DPS_AGENT_POST_INSTALL_TARGET_HOOKS += DPS_AGENT_INSTALL_DIRECTORIES

define DPS_AGENT_INSTALL_INIT_SYSTEMD
	for unit in dps-agent.service dps-provisioned.path dps-provisioned.target; do \
		$(INSTALL) -D -m 0644 $(@D)/systemd/$$unit $(TARGET_DIR)/usr/lib/systemd/system/$$unit || exit 1; \
	done
	$(INSTALL) -D -m 0644 $(@D)/systemd/254/50-dps-agent.conf \
		$(TARGET_DIR)/usr/lib/systemd/system/dps-agent.service.d/50-dps-agent.conf
	$(INSTALL) -D -m 0644 $(@D)/systemd/80-dps-agent.preset $(TARGET_DIR)/usr/lib/systemd/system-preset/80-dps-agent.preset
	$(INSTALL) -D -m 0644 $(@D)/systemd/dps-agent.catalog $(TARGET_DIR)/usr/lib/systemd/catalog/dps-agent.catalog
	$(INSTALL) -D -m 0644 $(@D)/systemd/dps-agent.sysusers $(TARGET_DIR)/usr/lib/sysusers.d/dps-agent.conf
	$(INSTALL) -D -m 0644 $(@D)/systemd/dps-agent.tmpfiles $(TARGET_DIR)/usr/lib/tmpfiles.d/dps-agent.conf
endef

define DPS_AGENT_INSTALL_INIT_SYSV
	$(INSTALL) -D -m 0755 $(@D)/packaging/buildroot/package/dps-agent/S85dps-agent $(TARGET_DIR)/etc/init.d/S85dps-agent
endef

$(eval $(cargo-package))
