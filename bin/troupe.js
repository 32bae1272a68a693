#!/usr/bin/env node
/**
 * The command `troupe`. `npx troupe` in a checkout comes here before `npm ci` was run, too, or after an update without it;
 * what stands here runs on any Node.
 */
import { existsSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';

/** Milliseconds by which copying a checkout may shuffle the times of its files. */
const SHUFFLED = 60_000;

const folder = fileURLToPath(new URL('..', import.meta.url));
const main = join(folder, 'build', 'js', 'cli', 'main.js');
const [major] = process.versions.node.split('.');

if (Number(major) < 20) {
  fail(`Troupe needs Node 20 or newer; this is ${process.versions.node} (${process.execPath}).`);
} else if (!existsSync(main)) {
  fail(`Troupe is not installed yet: run 'npm ci' in ${folder}.`);
} else {
  const changed = changedSource(join(folder, 'src'), join(folder, 'build', 'js'));
  if (changed !== undefined) {
    console.error(
      `troupe: ${changed} has changed since build/js was compiled: run 'npm run build:js' (after an update 'npm ci') in ${folder}.`,
    );
  }
  await import(pathToFileURL(main).href).catch((error) => {
    if (error.code !== 'EMFILE') throw error;
    fail('troupe: too many open files. Raise the limit (ulimit -n).');
  });
}

function fail(sentence) {
  console.error(sentence);
  process.exitCode = 1;
}

/** A TypeScript file that is newer than what it was compiled to, or was not compiled. */
function changedSource(sources, compiled) {
  if (!existsSync(sources)) return undefined;
  for (const entry of readdirSync(sources, { withFileTypes: true })) {
    const path = join(sources, entry.name);
    const below = entry.isDirectory() ? changedSource(path, join(compiled, entry.name)) : undefined;
    if (below !== undefined) return below;
    if (!entry.name.endsWith('.ts') || entry.name.endsWith('.d.ts')) continue;
    const made = statSync(join(compiled, entry.name.replace(/ts$/, 'js')), { throwIfNoEntry: false });
    if (made === undefined || statSync(path).mtimeMs > made.mtimeMs + SHUFFLED) return path;
  }
  return undefined;
}
