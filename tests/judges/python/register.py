"""Registers with the Python SDK as the JSON file in argv[1] says and prints the outcome as one JSON line."""

import json
import os
import sys

from azure.iot.device import X509, ProvisioningDeviceClient


def client(case):
    with open(case["roots"]) as file:
        roots = file.read()
    common = dict(
        provisioning_host="localhost",
        registration_id=case["registrationId"],
        id_scope=case["idScope"],
        websockets=case["transport"] == "mqtt-ws",
        server_verification_cert=roots,
    )
    if "key" in case:
        return ProvisioningDeviceClient.create_from_symmetric_key(symmetric_key=case["key"], **common)
    certificate = X509(case["certificate"], case["privateKey"])
    return ProvisioningDeviceClient.create_from_x509_certificate(x509=certificate, **common)


def outcome(case):
    try:
        result = client(case).register()
    except Exception as error:
        cause = error.__cause__ or error
        return {"error": f"{type(error).__name__}: {type(cause).__name__}: {cause}"}
    state = result.registration_state
    if result.status != "assigned":
        return {"error": f"status {result.status}"}
    return {"assignedHub": state.assigned_hub, "deviceId": state.device_id}


with open(sys.argv[1]) as file:
    case = json.load(file)
print(json.dumps(outcome(case)), flush=True)
# After a refusal the SDK leaves threads behind that would keep the process for a minute.
os._exit(0)
