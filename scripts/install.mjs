/**
 * What `npm ci` runs: libtorch found or fetched (libtorch.mjs), the addon taken from prebuilds/ or built (native.mjs),
 * TypeScript compiled. `--native-only` leaves the TypeScript; `--prebuild` builds the addon for others and puts it into
 * prebuilds/. Whatever is missing ends in one sentence.
 */
import { createRequire } from 'node:module';
import { dirname, join, sep } from 'node:path';
import { fileURLToPath } from 'node:url';
import { CUDA_LIBRARY, findCudaTools, partsOf, whyNoKernels, whyNoNccl } from './cuda.mjs';
import { findLibtorch, hasNvidiaDriver, TORCH } from './libtorch.mjs';
import { buildAddon, buildPrebuild, cudaLibrary, isBuilt, leavePrebuild, usePrebuild } from './native.mjs';
import { Missing, show } from './process.mjs';

const root = dirname(dirname(fileURLToPath(import.meta.url)));

function checkPlatform() {
  if (process.platform === 'linux' && ['x64', 'arm64'].includes(process.arch)) return;
  throw new Missing(
    `Troupe runs on Linux (x64 and arm64), not on ${process.platform} ${process.arch}: use a container or a virtual machine.`,
  );
}

/** Whether this is a package among others, which brings build/js along, and not what is needed to compile it. */
const isDependency = root.split(sep).includes('node_modules');

function compileTypeScript() {
  if (isDependency) return;
  const typescript = dirname(createRequire(import.meta.url).resolve('typescript/package.json'));
  if (show(process.execPath, [join(typescript, 'bin', 'tsc'), '-p', join(root, 'tsconfig.json')])) return;
  throw new Missing('The TypeScript sources did not compile: the messages above say why.');
}

/** What a CUDA part of the addon lacks, and why it may: a sentence each. */
function lacking(library, libtorch) {
  const { kernels, nccl } = partsOf(library);
  return [...(kernels ? [] : [whyNoKernels(libtorch)]), ...(nccl ? [] : [whyNoNccl(libtorch)])];
}

function makePrebuild(libtorch, cuda) {
  const folder = buildPrebuild(root, libtorch, cuda);
  const missing = libtorch.cuda
    ? lacking(join(folder, CUDA_LIBRARY), libtorch)
    : ['It has neither CUDA kernels nor NCCL: they take a build of libtorch with CUDA (LIBTORCH).'];
  console.log(`Wrote ${folder}${missing.length === 0 ? ', with CUDA kernels and NCCL' : ''}.`);
  for (const sentence of missing) console.log(sentence);
}

/** What GPUs will lack: sentences. */
function lackingHere(libtorch) {
  if (libtorch.cuda) return lacking(cudaLibrary(root, libtorch), libtorch);
  if (!hasNvidiaDriver()) return [];
  return [
    `There is an NVIDIA driver, but this libtorch has no CUDA, so that GPUs are not used: set LIBTORCH to the folder of a libtorch ${TORCH} with CUDA, and run 'npm ci' again.`,
  ];
}

/**
 * Whether this is the first `npx troupe` in a checkout, for which npm runs this file once more and shows nothing of it,
 * not even an error: what `npm ci` has made is there, or bin/troupe.js says that it is not.
 */
function inCheckoutByNpx() {
  return process.env.npm_command === 'exec' && !isDependency;
}

function main(flags) {
  if (inCheckoutByNpx()) return;
  checkPlatform();
  const libtorch = findLibtorch(root);
  console.log(`libtorch ${libtorch.version}${libtorch.cuda ? ' with CUDA' : ''}: ${libtorch.folder}`);
  const cuda = findCudaTools(libtorch);
  if (flags.includes('--prebuild')) return makePrebuild(libtorch, cuda);
  const nativeOnly = flags.includes('--native-only');
  if (isBuilt(root, libtorch, cuda)) {
    leavePrebuild(root);
    console.log('The addon is built.');
  } else if (!usePrebuild(root, libtorch, cuda)) buildAddon(root, libtorch, cuda, { unity: !nativeOnly });
  if (!nativeOnly) compileTypeScript();
  for (const sentence of lackingHere(libtorch)) console.log(sentence);
}

try {
  main(process.argv.slice(2));
} catch (error) {
  console.error(error instanceof Missing ? error.message : error);
  process.exitCode = 1;
}
