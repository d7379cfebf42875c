"""A program on a gateway: sends telemetry for as long as it lives, whatever the device proves its identity with.

    telemetry.py --socket PATH [--life SECONDS]   asks the agent for each connection, and tells it when the hub refuses one
    telemetry.py --environment [--life SECONDS]   takes what stands in hub.env, and ends when that is no good any more

It knows no key, no certificate and no hub. Each thing that happens to it is a JSON line on stdout.
"""

import argparse
import http.client
import itertools
import json
import os
import socket
import sys
import time

from azure.iot.device import X509, IoTHubDeviceClient, Message
from azure.iot.device.exceptions import ClientError, CredentialError

PAUSE = 0.2


class Socket(http.client.HTTPConnection):
    """HTTP over the Unix socket of the agent."""

    def __init__(self, path):
        super().__init__("dps-agent", timeout=90)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class FromSocket:
    """Connections that the agent makes for us."""

    def __init__(self, path, life):
        self.path, self.life, self.generation = path, life, None

    def call(self, method, target, body=None):
        agent = Socket(self.path)
        try:
            headers = {} if body is None else {"Content-Type": "application/json"}
            agent.request(method, target, None if body is None else json.dumps(body), headers)
            answer = agent.getresponse()
            return answer.status, answer.read()
        finally:
            agent.close()

    def client(self):
        """A client with fresh credentials; waits until there is an assignment."""
        while True:
            wish = {} if self.life is None else {"expiresIn": self.life}
            status, text = self.call("POST", "/v1/connection", wish)
            if status == 200:
                break
            say("waiting", status=status)
            self.call("GET", "/v1/assignment?wait=60")
        connection = json.loads(text)
        self.generation = connection["generation"]
        common = options(connection["caFile"])
        if connection["password"] is not None:
            return IoTHubDeviceClient.create_from_sastoken(connection["password"], **common)
        certificate = X509(connection["certificateFile"], connection["privateKeyFile"])
        return IoTHubDeviceClient.create_from_x509_certificate(
            certificate, hostname=connection["hub"], device_id=connection["deviceId"], **common
        )

    def refused(self):
        """The agent looks whether it is so, and what follows; we wait for the next assignment."""
        self.call("POST", "/v1/report", {"generation": self.generation, "trouble": "refused"})
        self.call("GET", f"/v1/assignment?after={self.generation}&wait=60")


class FromEnvironment:
    """What systemd, or a shell, made of hub.env."""

    def __init__(self, life):
        self.life, self.generation = life, int(os.environ["IOTHUB_GENERATION"])

    def client(self):
        common = options(os.environ["IOTHUB_CA_FILE"])
        if "X509_CERT_FILE" in os.environ:
            certificate = X509(os.environ["X509_CERT_FILE"], os.environ["X509_KEY_FILE"])
            return IoTHubDeviceClient.create_from_x509_certificate(
                certificate, hostname=os.environ["IOTHUB_HOSTNAME"], device_id=os.environ["IOTHUB_DEVICE_ID"], **common
            )
        if "IOTHUB_DEVICE_CONNECTION_STRING" in os.environ:
            if self.life is not None:
                common["sastoken_ttl"] = self.life
            text = os.environ["IOTHUB_DEVICE_CONNECTION_STRING"]
            return IoTHubDeviceClient.create_from_connection_string(text, **common)
        return IoTHubDeviceClient.create_from_sastoken(os.environ["IOTHUB_SAS"], **common)

    def refused(self):
        """There will be another file, and another process of us."""
        sys.exit(75)


def options(roots):
    with open(roots) as file:
        return {"server_verification_cert": file.read(), "connection_retry": False, "auto_connect": False}


def say(event, **more):
    print(json.dumps({"event": event, **more}), flush=True)


def send(source, numbers):
    """Sends until the connection ends."""
    client = source.client()
    try:
        client.connect()
        say("connected", generation=source.generation)
        while True:
            client.send_message(Message(json.dumps({"number": next(numbers)})))
            time.sleep(PAUSE)
    finally:
        client.shutdown()


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--socket")
    arguments.add_argument("--environment", action="store_true")
    arguments.add_argument("--life", type=int)
    given = arguments.parse_args()
    source = FromEnvironment(given.life) if given.environment else FromSocket(given.socket, given.life)
    numbers = itertools.count(1)
    while True:
        try:
            send(source, numbers)
        except CredentialError as error:
            say("refused", generation=source.generation, error=str(error))
            source.refused()
        except (ClientError, OSError) as error:
            say("lost", generation=source.generation, error=f"{type(error).__name__}: {error}")
        time.sleep(PAUSE)


main()
