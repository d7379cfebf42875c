// Registers with the Node SDK as the JSON file in argv[2] says and prints the outcome as one JSON line.
'use strict';

const fs = require('fs');
const { ProvisioningDeviceClient } = require('azure-iot-provisioning-device');

const transports = {
  'mqtt': () => new (require('azure-iot-provisioning-device-mqtt').Mqtt)(),
  'mqtt-ws': () => new (require('azure-iot-provisioning-device-mqtt').MqttWs)(),
  'https': () => new (require('azure-iot-provisioning-device-http').Http)(),
};

function security(subject) {
  if (subject.key) {
    const { SymmetricKeySecurityClient } = require('azure-iot-security-symmetric-key');
    return new SymmetricKeySecurityClient(subject.registrationId, subject.key);
  }
  const { X509Security } = require('azure-iot-security-x509');
  const pem = { cert: fs.readFileSync(subject.certificate, 'utf8'), key: fs.readFileSync(subject.privateKey, 'utf8') };
  return new X509Security(subject.registrationId, pem);
}

function finish(outcome) {
  fs.writeSync(1, JSON.stringify(outcome) + '\n');
  process.exit(0);
}

function refused(error) {
  const body = error.responseBody || (error.result && error.result.response && error.result.response.statusCode);
  finish({ error: `${error.name}: ${error.message}${body ? ': ' + JSON.stringify(body) : ''}` });
}

process.on('uncaughtException', refused);
const subject = JSON.parse(fs.readFileSync(process.argv[2], 'utf8'));
const client = ProvisioningDeviceClient.create('localhost', subject.idScope, transports[subject.transport](), security(subject));
client.register().then(
  (result) => finish({ assignedHub: result.assignedHub, deviceId: result.deviceId }),
  refused,
);
