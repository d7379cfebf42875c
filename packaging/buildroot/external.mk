# Buildroot reads this from a BR2_EXTERNAL tree.
include $(sort $(wildcard $(BR2_EXTERNAL_DPS_AGENT_PATH)/package/*/*.mk))
