/**
 * Reads one damaged folder after another, in a process that may hang, crash or run out of memory:
 * node test/hostile/child.mjs READER CORPUS SCRATCH SEED... It says each seed before it, and what came of it behind.
 */
import { cpSync, readdirSync, readFileSync, rmSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { mutate, Random } from './mutate.mjs';
import { READERS } from './readers.mjs';

const [name, corpus, scratch, ...seeds] = process.argv.slice(2);
const say = (line) => writeSync(1, `${JSON.stringify(line)}\n`);
// The engine and warnings speak on these.
console.error = () => undefined;

const { TroupeError } = await import(pathToFileURL(join(process.cwd(), 'build/js/config/errors.js')).href);
const read = await READERS[name]();
const names = readdirSync(corpus, { recursive: true, withFileTypes: true })
  .filter((entry) => entry.isFile())
  .map((entry) => join(entry.parentPath, entry.name).slice(corpus.length + 1))
  .sort();

process.on('unhandledRejection', (error) => {
  say({ fault: `rejection nobody holds: ${error?.stack ?? error}` });
  process.exit(3);
});

for (const seed of seeds) {
  const random = new Random(`${name} ${seed}`);
  const mutated = random.one(names);
  rmSync(scratch, { recursive: true, force: true });
  cpSync(corpus, scratch, { recursive: true });
  writeFileSync(join(scratch, mutated), mutate(mutated, readFileSync(join(corpus, mutated)), random));
  say({ seed, mutated });
  try {
    await read(scratch, mutated);
    say({ ok: 'taken' });
  } catch (error) {
    say(error instanceof TroupeError ? refusal(error) : { fault: String(error?.stack ?? error) });
  }
}

/** A refusal is for people: it says where, ends as a sentence does, and carries no stack. */
function refusal({ message, where }) {
  const sound = where !== undefined && /[.!?)]$/m.test(message) && !/^\s+at .*:\d+:\d+/m.test(message);
  return sound && message.length < 4000
    ? { ok: message }
    : { fault: `no sentence: ${message.slice(0, 4000)}` };
}
