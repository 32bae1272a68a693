/**
 * What `npm ci` runs: libtorch found or fetched (libtorch.mjs), the addon taken from prebuilds/ or built (native.mjs),
 * TypeScript compiled. `--native-only` leaves the TypeScript; `--prebuild` builds the addon for others and puts it into
 * prebuilds/. Whatever is missing ends in one sentence.
 */
import { copyFileSync, existsSync, mkdirSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join, sep } from 'node:path';
import { fileURLToPath } from 'node:url';
import { findLibtorch } from './libtorch.mjs';
import { buildAddon, CUDA_LIBRARY, isBuilt, prebuildPlace, usePrebuild } from './native.mjs';
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
  buildAddon(root, libtorch, { prebuild: true });
  const built = join(root, 'build', 'Release');
  const folder = prebuildPlace(root, libtorch);
  mkdirSync(folder, { recursive: true });
  copyFileSync(join(built, 'troupe.node'), join(folder, 'troupe.glibc.node'));
  rmSync(join(folder, CUDA_LIBRARY), { force: true });
  const hasKernels = libtorch.cuda && existsSync(join(built, CUDA_LIBRARY));
  if (hasKernels) copyFileSync(join(built, CUDA_LIBRARY), join(folder, CUDA_LIBRARY));
  console.log(
    `Wrote ${folder}${hasKernels ? '.' : ', without CUDA kernels: they take a CUDA build of libtorch (LIBTORCH).'}`,
  );
}

/**
 * Whether this is the first `npx troupe` in a checkout, for which npm runs this file once more and shows nothing of it,
 * not even an error: what `npm ci` has made is there, or bin/troupe.js says that it is not.
 */
function inCheckoutByNpx() {
  return process.env.npm_command === 'exec' && !root.split(sep).includes('node_modules');
}

function main(flags) {
  if (inCheckoutByNpx()) return;
  checkPlatform();
  const libtorch = findLibtorch(root);
  console.log(`libtorch ${libtorch.version}${libtorch.cuda ? ' with CUDA' : ''}: ${libtorch.folder}`);
  if (flags.includes('--prebuild')) return makePrebuild(libtorch);
  const nativeOnly = flags.includes('--native-only');
  if (isBuilt(root, libtorch)) console.log('The addon is built.');
  else if (!usePrebuild(root, libtorch)) buildAddon(root, libtorch, { unity: !nativeOnly });
  if (!nativeOnly) compileTypeScript();
}

try {
  main(process.argv.slice(2));
} catch (error) {
  console.error(error instanceof Missing ? error.message : error);
  process.exitCode = 1;
}
