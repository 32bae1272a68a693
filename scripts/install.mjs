/**
 * What `npm ci` runs: libtorch found or fetched (libtorch.mjs), the addon taken from prebuilds/ or built (native.mjs),
 * TypeScript compiled. `--native-only` leaves the TypeScript; `--prebuild` builds the addon for others and puts it into
 * prebuilds/. Whatever is missing ends in one sentence.
 */
import { createRequire } from 'node:module';
import { dirname, join, sep } from 'node:path';
import { fileURLToPath } from 'node:url';
import { cudaMajor, findLibtorch, hasNvidiaDriver, TORCH } from './libtorch.mjs';
import {
  buildAddon,
  buildPrebuild,
  findNvcc,
  hasKernels,
  isBuilt,
  leavePrebuild,
  usePrebuild,
  whyNoKernels,
} from './native.mjs';
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

function makePrebuild(libtorch, nvcc) {
  const folder = buildPrebuild(root, libtorch, nvcc);
  const without = libtorch.cuda
    ? whyNoKernels(cudaMajor(libtorch))
    : 'It has no CUDA kernels: they take a build of libtorch with CUDA (LIBTORCH).';
  console.log(`Wrote ${folder}.${libtorch.cuda && nvcc !== undefined ? '' : ` ${without}`}`);
}

/** What GPUs will lack: a sentence, or undefined. */
function lacking(libtorch) {
  if (libtorch.cuda) return hasKernels(root, libtorch) ? undefined : whyNoKernels(cudaMajor(libtorch));
  if (!hasNvidiaDriver()) return undefined;
  return `There is an NVIDIA driver, but this libtorch has no CUDA, so that GPUs are not used: set LIBTORCH to the folder of a libtorch ${TORCH} with CUDA, and run 'npm ci' again.`;
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
  const nvcc = libtorch.cuda ? findNvcc(cudaMajor(libtorch)) : undefined;
  if (flags.includes('--prebuild')) return makePrebuild(libtorch, nvcc);
  const nativeOnly = flags.includes('--native-only');
  if (isBuilt(root, libtorch, nvcc)) {
    leavePrebuild(root);
    console.log('The addon is built.');
  } else if (!usePrebuild(root, libtorch, nvcc)) buildAddon(root, libtorch, nvcc, { unity: !nativeOnly });
  if (!nativeOnly) compileTypeScript();
  const sentence = lacking(libtorch);
  if (sentence !== undefined) console.log(sentence);
}

try {
  main(process.argv.slice(2));
} catch (error) {
  console.error(error instanceof Missing ? error.message : error);
  process.exitCode = 1;
}
