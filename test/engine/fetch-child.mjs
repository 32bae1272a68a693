/** Fetches the model that its argument names in a process of its own, on a host of the name TEST_HOST where it is set. */
import { syncBuiltinESMExports } from 'node:module';
import os from 'node:os';

const host = process.env.TEST_HOST;
if (host !== undefined) {
  os.hostname = () => host;
  syncBuiltinESMExports();
}
const { resolveModel } = await import('../../build/js/engine/model-catalogue.js');
await resolveModel(process.argv[2]);
