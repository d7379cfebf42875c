// The Node SDK with a TPM, as the JSON file in argv[2] says: "keys" makes the endorsement and storage keys, "register" registers,
// "send" connects to the hub with a token that the TPM signs and sends a message. Prints the outcome as one JSON line.
'use strict';

const fs = require('fs');
const { Tpm } = require('tss.js');
const { TpmSecurityClient, TpmAuthenticationProvider } = require('azure-iot-security-tpm');

function finish(outcome) {
  fs.writeSync(1, JSON.stringify(outcome) + '\n');
  process.exit(0);
}

function refused(error) {
  const body = error.responseBody || (error.result && error.result.response && error.result.response.statusCode);
  finish({ error: `${error.name}: ${error.message}${body ? ': ' + JSON.stringify(body) : ''}` });
}

const verbs = {
  keys(subject, security) {
    security.getEndorsementKey((error, key) => error ? refused(error) : finish({ endorsementKey: key.toString('base64') }));
  },
  register(subject, security) {
    const { ProvisioningDeviceClient } = require('azure-iot-provisioning-device');
    const { Http } = require('azure-iot-provisioning-device-http');
    const client = ProvisioningDeviceClient.create('localhost', subject.idScope, new Http(), security);
    client.register((error, result) => {
      if (error) return refused(error);
      // Unlike other attestations, a TPM's gets the whole answer.
      const { assignedHub, deviceId } = result.registrationState;
      finish({ assignedHub, deviceId });
    });
  },
  send(subject, security) {
    const { Client, Message } = require('azure-iot-device');
    const { Mqtt } = require('azure-iot-device-mqtt');
    const token = TpmAuthenticationProvider.fromTpmSecurityClient(subject.deviceId, subject.assignedHub, security);
    const client = Client.fromAuthenticationProvider(token, Mqtt);
    client.sendEvent(new Message('hello'), (error) => error ? refused(error) : finish({ sent: true }));
  },
};

process.on('uncaughtException', refused);
process.on('unhandledRejection', refused);
const subject = JSON.parse(fs.readFileSync(process.argv[2], 'utf8'));
verbs[subject.verb](subject, new TpmSecurityClient(subject.registrationId, new Tpm(true, '127.0.0.1', subject.tpmPort)));
