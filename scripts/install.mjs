/**
 * What `npm ci` runs: libtorch found or fetched (libtorch.mjs), the addon taken from prebuilds/ or built (native.mjs),
 * TypeScript compiled. `--native-only` leaves the TypeScript; `--prebuild` builds the addon for others and puts it into
 * prebuilds/. Whatever is missing ends in one sentence.
 */
import { copyFileSync, existsSync, mkdirSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { findLibtorch } from './libtorch.mjs';
import { buildAddon, prebuildFolder, usePrebuild } from './native.mjs';
import { Missing, show } from './process.mjs';

const root = dirname(dirname(fileURLToPath(import.meta.url)));

function checkPlatform() {
  if (process.platform === 'linux' && ['x64', 'arm64'].includes(process.arch)) return;
  throw new Missing(
    `Troupe runs on Linux (x64 and arm64), not on ${process.platform} ${process.arch}: use a container or a virtual machine.`,
  );
}

function compileTypeScript() {
  // A package from a registry brings build/js along.
  if (!existsSync(join(root, 'src'))) return;
  const typescript = dirname(createRequire(import.meta.url).resolve('typescript/package.json'));
  if (show(process.execPath, [join(typescript, 'bin', 'tsc'), '-p', join(root, 'tsconfig.json')])) return;
  throw new Missing('The TypeScript sources did not compile: the messages above say why.');
}

function makePrebuild(libtorch) {
  if (libtorch.cuda)
    throw new Missing('Prebuilds are made without CUDA: set LIBTORCH to a CPU build of libtorch.');
  buildAddon(root, libtorch, { prebuild: true });
  const folder = join(prebuildFolder(root, libtorch), 'prebuilds', `${process.platform}-${process.arch}`);
  mkdirSync(folder, { recursive: true });
  copyFileSync(join(root, 'build', 'Release', 'troupe.node'), join(folder, 'troupe.glibc.node'));
  console.log(`Wrote ${folder}.`);
}

function main(flags) {
  checkPlatform();
  const libtorch = findLibtorch(root);
  console.log(`libtorch ${libtorch.version}${libtorch.cuda ? ' with CUDA' : ''}: ${libtorch.folder}`);
  if (flags.includes('--prebuild')) makePrebuild(libtorch);
  else if (!usePrebuild(root, libtorch)) buildAddon(root, libtorch);
  if (!flags.includes('--native-only') && !flags.includes('--prebuild')) compileTypeScript();
}

try {
  main(process.argv.slice(2));
} catch (error) {
  console.error(error instanceof Missing ? error.message : error);
  process.exitCode = 1;
}
