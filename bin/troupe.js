#!/usr/bin/env node
/** The command `troupe`. `npx troupe` in a checkout comes here before `npm ci` was run, too. */
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const main = new URL('../build/js/cli/main.js', import.meta.url);
if (existsSync(main)) {
  await import(main.href);
} else {
  const folder = fileURLToPath(new URL('..', import.meta.url));
  console.error(`Troupe is not installed yet: run 'npm ci' in ${folder}.`);
  process.exitCode = 1;
}
