// A client of the TypeScript SDK that does what it is told, a line of JSON each:
//
//   node remote.mjs
//
//   {"id": 1, "url": "postgresql://...", "method": "getEvent", "args": ["workflow", "key", 5]}
//   {"id": 1, "value": {"text": "hi"}, "at": 1767225600.123}          `at` is when the answer was there, in seconds
//   {"id": 1, "error": {"type": "PortableWorkflowError", "name": ..., "message": ..., "code": ..., "data": ...}}
//
// Each database has one client, made when it is first named. Methods are those of DBOSClient, and those below. Values
// that JSON does not have travel as an object with one key: {"$date": "2025-06-15T10:30:00Z"}, {"$bigint": "12"},
// {"$number": "NaN"}, {"$map": [["k", 1]]}, {"$set": [1]}, {"$undefined": true}.
import readline from 'node:readline';
import { DBOSClient } from '@dbos-inc/dbos-sdk';

const clients = new Map();

const special = {
  $date: (text) => new Date(text),
  $bigint: (text) => BigInt(text),
  $number: (text) => Number(text),
  $map: (pairs) => new Map(pairs),
  $set: (items) => new Set(items),
  $undefined: () => undefined,
};

function revived(value) {
  if (Array.isArray(value)) return value.map(revived);
  if (value === null || typeof value !== 'object') return value;
  const keys = Object.keys(value);
  if (keys.length === 1 && keys[0] in special) return special[keys[0]](revived(value[keys[0]]));
  return Object.fromEntries(keys.map((key) => [key, revived(value[key])]));
}

const now = () => Date.now() / 1000;
const said = (value) => JSON.stringify(value, (_, item) => (typeof item === 'bigint' ? { $bigint: `${item}` } : item));

// What takes a handle or gives more than one value.
const beyond = {
  result: (client, workflowID) => client.retrieveWorkflow(workflowID).getResult(),
  status: (client, workflowID) => client.retrieveWorkflow(workflowID).getStatus(),
  // All values of a stream, each with the time of its arrival.
  readAll: async (client, workflowID, key) => {
    const found = [];
    for await (const value of client.readStream(workflowID, key)) found.push([value, now()]);
    return found;
  },
};

async function done({ url, method, args }) {
  if (!clients.has(url)) clients.set(url, DBOSClient.create({ systemDatabaseUrl: url }));
  const client = await clients.get(url);
  if (method === 'destroy') clients.delete(url);
  const values = revived(args);
  const value = await (method in beyond ? beyond[method](client, ...values) : client[method](...values));
  // A handle stands for its workflow.
  return typeof value?.getResult === 'function' ? value.workflowID : value;
}

async function answer(request) {
  try {
    const value = await done(request);
    return { id: request.id, value: value === undefined ? null : value, at: now() };
  } catch (error) {
    const { name, message, code, data } = error;
    return { id: request.id, error: { type: error.constructor.name, name, message, code, data }, at: now() };
  }
}

const lines = readline.createInterface({ input: process.stdin });
lines.on('line', (line) => answer(JSON.parse(line)).then((reply) => process.stdout.write(`${said(reply)}\n`)));
lines.on('close', () => process.exit(0));
process.stdout.write('"ready"\n');
