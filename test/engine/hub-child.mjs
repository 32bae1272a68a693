/** Fetches org/name from the hub of HF_ENDPOINT in a process of its own, on a host of the name TEST_HOST where it is set. */
import { syncBuiltinESMExports } from 'node:module';
import os from 'node:os';

const host = process.env.TEST_HOST;
if (host !== undefined) {
  os.hostname = () => host;
  syncBuiltinESMExports();
}
const { modelFromHub } = await import('../../build/js/engine/hub-download.js');
await modelFromHub({ type: 'model', name: 'org/name', revision: 'main', path: '' });
