// A back end with the Node service SDK, as the JSON file in argv[2] says: "enroll" fills a service, "registered" looks at what a
// device did, "delete" clears up. Prints the outcome as one JSON line.
'use strict';

const fs = require('fs');
const { ProvisioningServiceClient } = require('azure-iot-provisioning-service');

function finish(outcome) {
  fs.writeSync(1, JSON.stringify(outcome) + '\n');
  process.exit(0);
}

function refused(error) {
  const status = error.response && error.response.statusCode;
  finish({ error: `${error.name}: ${error.message}: ${error.responseBody || ''}`, status });
}

// Microsoft's own credentials, which are to find the emulator's identity provider good.
function credential({ kind, tenantId, clientId, authorityHost, secret, certificatePath, tokenFilePath }) {
  const identity = require('@azure/identity');
  const options = { authorityHost, disableInstanceDiscovery: true };
  const credentials = {
    'client-secret': () => new identity.ClientSecretCredential(tenantId, clientId, secret, options),
    'client-certificate': () => new identity.ClientCertificateCredential(tenantId, clientId, { certificatePath }, options),
    'workload-identity': () => new identity.WorkloadIdentityCredential({ tenantId, clientId, tokenFilePath, ...options }),
    'managed-identity': () => new identity.ManagedIdentityCredential(),
  };
  return credentials[kind]();
}

function connect(subject) {
  if (subject.connectionString) {
    return ProvisioningServiceClient.fromConnectionString(subject.connectionString);
  }
  return ProvisioningServiceClient.fromTokenCredential('localhost', credential(subject.credential));
}

async function all(query) {
  const found = [];
  do {
    const page = await result(query.next(query.continuationToken));
    if (page.length > 1) throw new Error(`a page of ${page.length}`);
    found.push(...page);
  } while (query.hasMoreResults);
  return found;
}

// The status of a call that must fail.
async function failure(promise) {
  return promise.then(() => 'none', (error) => error.response ? error.response.statusCode : String(error));
}

const result = async (promise) => (await promise).responseBody;

// The SDK's own promise of a bulk operation never comes true.
const bulkOperation = (client, operation) => new Promise((resolve, reject) => {
  client.runBulkEnrollmentOperation(operation, (error, outcome) => error ? reject(error) : resolve(outcome));
});

const verbs = {
  async enroll(client, { registrationId, groupId, authority }) {
    const wanted = { registrationId, attestation: { type: 'symmetricKey' }, provisioningStatus: 'disabled' };
    const first = await result(client.createOrUpdateIndividualEnrollment(wanted));
    const second = await result(client.createOrUpdateIndividualEnrollment({ ...first, provisioningStatus: 'enabled' }));
    const stale = await failure(client.createOrUpdateIndividualEnrollment(first));
    const keys = await result(client.getIndividualEnrollmentAttestationMechanism(registrationId));
    const x509 = { signingCertificates: { primary: { certificate: fs.readFileSync(authority, 'utf8') } } };
    await client.createOrUpdateEnrollmentGroup({ enrollmentGroupId: groupId, attestation: { type: 'x509', x509 } });
    const enrollments = ['other-1', registrationId].map((id) => ({ registrationId: id, attestation: { type: 'symmetricKey' } }));
    const bulk = await bulkOperation(client, { mode: 'create', enrollments });
    const select = (list) => ({ query: `SELECT * FROM ${list}` });
    const individual = await all(client.createIndividualEnrollmentQuery(select('enrollments'), 1));
    const groups = await all(client.createEnrollmentGroupQuery(select('enrollmentGroups'), 1));
    return {
      key: keys.symmetricKey.primaryKey,
      status: second.provisioningStatus,
      changed: first.etag !== second.etag && first.createdDateTimeUtc === second.createdDateTimeUtc,
      stale,
      bulk: [bulk.isSuccessful, ...bulk.errors.map((error) => error.registrationId)],
      enrollments: individual.map((one) => one.registrationId),
      groups: groups.map((one) => one.enrollmentGroupId),
    };
  },

  async registered(client, { registrationId, groupId, memberId }) {
    const own = await result(client.getDeviceRegistrationState(registrationId));
    const query = client.createEnrollmentGroupDeviceRegistrationStateQuery({ query: 'SELECT * FROM registrations' }, groupId, 1);
    const members = await all(query);
    await client.deleteDeviceRegistrationState(own);
    await client.deleteDeviceRegistrationState(memberId);
    return {
      assigned: [own, ...members].map((state) => `${state.registrationId} ${state.status} ${state.assignedHub} ${state.deviceId}`),
      forgotten: [await failure(client.getDeviceRegistrationState(registrationId)), await failure(client.getDeviceRegistrationState(memberId))],
    };
  },

  async delete(client, { registrationId, groupId }) {
    const enrollment = await result(client.getIndividualEnrollment(registrationId));
    const stale = await failure(client.deleteIndividualEnrollment({ ...enrollment, etag: '"stale"' }));
    await client.deleteIndividualEnrollment(enrollment);
    await client.deleteEnrollmentGroup(groupId);
    return {
      stale,
      gone: [await failure(client.getIndividualEnrollment(registrationId)), await failure(client.getEnrollmentGroup(groupId))],
    };
  },
};

process.on('uncaughtException', refused);
process.on('unhandledRejection', refused);
const subject = JSON.parse(fs.readFileSync(process.argv[2], 'utf8'));
verbs[subject.verb](connect(subject), subject).then(finish, refused);
