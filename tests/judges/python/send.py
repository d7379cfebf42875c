"""Sends one telemetry message with the Python device client, as the JSON file in argv[1] says, and prints the outcome as one JSON line."""

import json
import os
import sys

from azure.iot.device import X509, IoTHubDeviceClient, Message


def client(case):
    with open(case["roots"]) as file:
        roots = file.read()
    common = dict(
        hostname=case["assignedHub"],
        device_id=case["deviceId"],
        websockets=case["transport"] == "mqtt-ws",
        server_verification_cert=roots,
        connection_retry=False,
    )
    if "key" in case:
        return IoTHubDeviceClient.create_from_symmetric_key(symmetric_key=case["key"], **common)
    certificate = X509(case["certificate"], case["privateKey"])
    return IoTHubDeviceClient.create_from_x509_certificate(x509=certificate, **common)


def outcome(case):
    device = client(case)
    try:
        device.connect()
        device.send_message(Message("hello"))
        device.disconnect()
    except Exception as error:
        cause = error.__cause__ or error
        return {"error": f"{type(error).__name__}: {type(cause).__name__}: {cause}"}
    return {"sent": True}


with open(sys.argv[1]) as file:
    case = json.load(file)
print(json.dumps(outcome(case)), flush=True)
os._exit(0)
