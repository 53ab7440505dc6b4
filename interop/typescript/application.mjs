// An application of the TypeScript SDK with the workflows of ../portable.py, for clients of both languages.
//
//   node application.mjs <database url>     serve the queue "theirs" until the input ends
//
// The workflows have no serialization of their own: who enqueues them portably gets portable values.
import readline from 'node:readline';
import { DBOS, PortableWorkflowError } from '@dbos-inc/dbos-sdk';

const url = process.argv[2];
const now = () => Date.now() / 1000;

function named(value) {
  if (value === null) return 'null';
  if (Array.isArray(value)) return 'array';
  return value instanceof Date ? 'Date' : typeof value;
}

const workflows = {
  // What arrives, and how it looks from here.
  echo: async (...args) => ({ args, types: args.map(named) }),

  // Publishes and streams the values that are the same texts in all languages; returns another of them.
  golden: async (text, num, ..._rest) => {
    const value = { text, num, flag: true };
    await DBOS.setEvent('golden', value);
    await DBOS.writeStream('golden', value);
    await DBOS.writeStream('golden', null);
    await DBOS.closeStream('golden');
    return `${text}-${num}`;
  },

  fail: async (kind) => {
    if (kind === 'portable') throw new PortableWorkflowError('it failed', 'Failed', 17, { a: [1, null] });
    throw new TypeError(`not ${kind}`);
  },

  // Two messages under a topic, one that does not come, and one without a topic.
  inbox: async () => [
    await DBOS.recv('topic', 30),
    await DBOS.recv('topic', 30),
    await DBOS.recv('topic', 0.1),
    await DBOS.recv(undefined, 30),
  ],

  // A step before and a step behind a message.
  held: async (text) => {
    const before = await DBOS.runStep(async () => `before ${text}`, { name: 'before' });
    await DBOS.setEvent('stage', 1);
    const message = await DBOS.recv('go', 60);
    return [before, message, await DBOS.runStep(async () => `after ${text}`, { name: 'after' })];
  },

  // Publishes the time, which readers compare with theirs, whenever a message says so.
  clock: async () => {
    await DBOS.recv('go', 60);
    await DBOS.setEvent('at', now());
    while ((await DBOS.recv('go', 60)) === 'tick') await DBOS.writeStream('times', now());
    await DBOS.closeStream('times');
    return 'stopped';
  },

  // How long after its making each value of a `clock` arrives; says in an event how many it has seen.
  watch: async (workflowID) => {
    await DBOS.setEvent('seen', 0);
    const published = await DBOS.getEvent(workflowID, 'at', 60);
    const lags = [now() - published];
    await DBOS.setEvent('seen', 1);
    for await (const at of DBOS.readStream(workflowID, 'times')) {
      lags.push(now() - at);
      await DBOS.setEvent('seen', lags.length);
    }
    return lags;
  },
};

for (const [name, body] of Object.entries(workflows)) DBOS.registerWorkflow(body, { name });

DBOS.setConfig({
  name: 'theirs',
  systemDatabaseUrl: url,
  applicationVersion: 't1',
  executorID: 'theirs',
  runAdminServer: false,
  logLevel: 'error',
});
await DBOS.launch();
await DBOS.registerQueue('theirs');
process.stdout.write('ready\n');
readline.createInterface({ input: process.stdin }).on('close', () => process.exit(0));
