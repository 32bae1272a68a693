/** The addon: a prebuild that fits, else an earlier build of the same sources, else built by cmake-js. */
import { createHash } from 'node:crypto';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { createRequire } from 'node:module';
import { cpus, totalmem } from 'node:os';
import { basename, dirname, join, relative } from 'node:path';
import { CUDA_LIBRARY, partsOf } from './cuda.mjs';
import { firstThatRuns, Missing, run, show } from './process.mjs';
import sources from './sources.cjs';

const { sourcesHash } = sources;

/** A folder that node-gyp-build searches, one for each minor version of torch. */
export function prebuildFolder(root, libtorch) {
  return join(root, 'prebuilds', `torch-${libtorch.version.split('.').slice(0, 2).join('.')}`);
}

/** Where a prebuild for this platform lies: the addon and, where it was made with CUDA, troupe_cuda.so. */
export function prebuildPlace(root, libtorch) {
  return join(prebuildFolder(root, libtorch), 'prebuilds', `${process.platform}-${process.arch}`);
}

const libtorchLink = (root) => join(root, 'prebuilds', 'libtorch');
/** Which prebuild src/engine/load.ts shall load; missing: the one of build/Release. */
const addonLink = (root) => join(root, 'prebuilds', 'addon');

/** From now on build/Release is loaded. */
export function leavePrebuild(root) {
  for (const link of [libtorchLink(root), addonLink(root)]) rmSync(link, { recursive: true, force: true });
}

/**
 * Takes a prebuild, if there is one for torch's minor version, of these sources, and it can be loaded. Prebuilds look
 * for libtorch in prebuilds/libtorch. One addon serves a libtorch with CUDA and one without; a prebuild that lacks the
 * CUDA kernels is passed over where there is an nvcc that can build them.
 *
 * @param {string} root
 * @param {import('./libtorch.mjs').Libtorch} libtorch
 * @param {import('./cuda.mjs').CudaTools} cuda
 */
export function usePrebuild(root, libtorch, { nvcc }) {
  leavePrebuild(root);
  const folder = prebuildFolder(root, libtorch);
  if (!existsSync(folder)) return false;
  const { kernels } = partsOf(join(prebuildPlace(root, libtorch), CUDA_LIBRARY));
  if (nvcc !== undefined && !kernels) return false;
  symlinkSync(libtorch.folder, libtorchLink(root));
  // In a process of its own: a bad library may crash.
  const code = `console.log(require('node-gyp-build')(${JSON.stringify(folder)}).builtFrom)`;
  const loaded = run(process.execPath, ['-e', code], { cwd: root });
  const fits = loaded.ok && loaded.stdout.trim() === sourcesHash(root);
  if (fits) {
    symlinkSync(basename(folder), addonLink(root));
    console.log(`Using the prebuilt addon of ${folder}.`);
  } else {
    const why = loaded.ok ? 'is of other sources' : 'cannot be loaded';
    console.log(`The prebuilt addon of ${folder} ${why}: passing it over.`);
    leavePrebuild(root);
  }
  return fits;
}

const CHANGED_MEANWHILE =
  "The addon's sources changed while it was built, so that it may be of neither state: run 'npm run build:native' again.";

const addonFile = (root) => join(root, 'build', 'Release', 'troupe.node');
const fingerprintFile = (root) => join(root, 'build', 'Release', 'troupe.sha256');

/**
 * A hash of the addon, its CUDA part where there is one, and of what they were built from: the sources, libtorch and
 * Node-API's headers.
 */
export function fingerprint(root, libtorch) {
  const inside = relative(root, libtorch.folder);
  const hash = createHash('sha256');
  const nodeApi = createRequire(join(root, 'package.json')).resolve('node-addon-api/package.json');
  hash.update(JSON.stringify([libtorch.version, libtorch.cuda, process.arch]));
  // A libtorch in the checkout moves with it.
  hash.update(inside.startsWith('..') ? libtorch.folder : inside);
  hash.update(sourcesHash(root));
  const cudaFile = builtLibrary(root);
  const built = libtorch.cuda && existsSync(cudaFile) ? [addonFile(root), cudaFile] : [addonFile(root)];
  for (const path of [...built, nodeApi]) hash.update(readFileSync(path));
  return hash.digest('hex');
}

const builtLibrary = (root) => join(dirname(addonFile(root)), CUDA_LIBRARY);

/** Whether build/Release is of this state of everything. */
function isNoted(root, libtorch) {
  const noted = fingerprintFile(root);
  if (!existsSync(noted) || !existsSync(addonFile(root))) return false;
  return readFileSync(noted, 'utf8') === fingerprint(root, libtorch);
}

/**
 * Whether the addon was built from these very sources against this libtorch and can be loaded: also in a copy of the
 * checkout, or under another name, where CMake would build everything again. One without CUDA kernels, or without NCCL, is
 * not enough where there is by now what builds them.
 *
 * @param {string} root
 * @param {import('./libtorch.mjs').Libtorch} libtorch
 * @param {import('./cuda.mjs').CudaTools} cuda
 */
export function isBuilt(root, libtorch, { nvcc, headers }) {
  if (!isNoted(root, libtorch)) return false;
  const { kernels, nccl } = partsOf(builtLibrary(root));
  if ((nvcc !== undefined && !kernels) || (headers !== undefined && !nccl)) return false;
  return run(process.execPath, ['-e', `require(${JSON.stringify(addonFile(root))})`]).ok;
}

/** The CUDA part of the addon that will be loaded, a prebuild or build/Release; there may be none. */
export function cudaLibrary(root, libtorch) {
  return existsSync(addonLink(root)) ? join(prebuildPlace(root, libtorch), CUDA_LIBRARY) : builtLibrary(root);
}

/** The C++ compiler: what CXX names, else the first on PATH that will do. @throws {Missing} */
function findCompiler() {
  const named = process.env.CXX?.split(' ')[0];
  const compilers = (named ? [named] : ['c++', 'g++']).map((name) => [name]);
  const present = compilers.filter((compiler) => firstThatRuns([compiler], ['--version']));
  if (present.length === 0) {
    const what = named ? `The C++ compiler that CXX names, ${named},` : 'A C++ compiler';
    throw new Missing(`${what} is missing: install GCC 11 or newer (Debian and Ubuntu: apt install g++).`);
  }
  const code = `#include <concepts>
    #include <omp.h>
    #include <span>
    #if defined(__clang__) || __GNUC__ < 11
    #error
    #endif\n`;
  const probe = ['-std=c++20', '-fopenmp', '-fsyntax-only', '-x', 'c++', '-'];
  const fit = present.find(([command]) => run(command, probe, { input: code }).ok);
  if (fit !== undefined) return fit[0];
  throw new Missing(
    `The C++ compiler ${present[0][0]} is not GCC 11 or newer with OpenMP: install one (Debian and Ubuntu: apt install g++) and set CXX to it.`,
  );
}

function checkTools() {
  const cmake = run('cmake', ['--version']);
  const [, major, minor] = /cmake version (\d+)\.(\d+)/.exec(cmake.stdout) ?? [];
  if (!cmake.ok || Number(major) < 3 || (Number(major) === 3 && Number(minor) < 20)) {
    throw new Missing(
      'CMake 3.20 or newer is missing: install it (Debian and Ubuntu: apt install cmake; or pip install cmake).',
    );
  }
  if (firstThatRuns([['ninja'], ['make']], ['--version']) === undefined) {
    throw new Missing('Ninja or make is missing: install one (Debian and Ubuntu: apt install ninja-build).');
  }
}

/** A cache of another libtorch or another folder has to go. */
function mustConfigure(root, out, options) {
  const cache = join(out, 'CMakeCache.txt');
  if (!existsSync(cache)) return true;
  const entries = readFileSync(cache, 'utf8').matchAll(/^(\w+):\w+=(.*)$/gm);
  const values = new Map([...entries].map(([, key, value]) => [key, value]));
  if (values.get('CMAKE_HOME_DIRECTORY') !== root) {
    rmSync(cache);
    rmSync(join(out, 'CMakeFiles'), { recursive: true, force: true });
    return true;
  }
  return Object.entries(options).some(([key, value]) => values.get(key) !== value);
}

/**
 * Configures and builds with cmake-js in the folder `out`. Returns whether what was built is of the sources as they are now:
 * one that is edited meanwhile may have been compiled before or after.
 *
 * @throws {Missing}
 */
function buildIn(out, root, libtorch, choices, target = 'all') {
  checkTools();
  const compiler = findCompiler();
  const require = createRequire(join(root, 'package.json'));
  const folder = (name) => dirname(require.resolve(`${name}/package.json`));
  const builtFrom = sourcesHash(root);
  const options = {
    TROUPE_LIBTORCH: libtorch.folder,
    TROUPE_NODE_ADDON_API: folder('node-addon-api'),
    TROUPE_BUILT_FROM: builtFrom,
    ...choices,
  };
  const cmakeJs = join(folder('cmake-js'), 'bin', 'cmake-js');
  const definitions = Object.entries(options).map(([key, value]) => `--CD${key}=${value}`);
  // A compiler takes up to 1.5 GB on ATen's headers.
  const jobs = Math.max(1, Math.min(cpus().length, Math.floor(totalmem() / 1.5e9)));
  const env = { ...process.env, CXX: process.env.CXX ?? compiler };
  const step = (...args) => show(process.execPath, [cmakeJs, ...args, '--out', out], { cwd: root, env });
  mkdirSync(out, { recursive: true });
  const configured = !mustConfigure(root, out, options) || step('configure', ...definitions);
  if (configured && step('build', '--parallel', String(jobs), '--target', target, ...definitions))
    return sourcesHash(root) === builtFrom;
  throw new Missing(
    `The addon could not be built against libtorch ${libtorch.version} in ${libtorch.folder}: the compiler's messages above say why.`,
  );
}

/**
 * Builds build/Release/troupe.node and, where libtorch has CUDA, troupe_cuda.so beside it. With `unity` the compiler
 * reads libtorch's headers once for several files, which saves much of a whole build; without, a change in one file
 * compiles that file. Where sources changed meanwhile, it does not count as built, and a sentence says so.
 *
 * @throws {Missing}
 */
export function buildAddon(root, libtorch, cuda, { unity = false } = {}) {
  const choices = { ...cudaChoices(cuda), CMAKE_UNITY_BUILD: unity ? 'ON' : 'OFF' };
  if (buildIn(join(root, 'build'), root, libtorch, choices))
    writeFileSync(fingerprintFile(root), fingerprint(root, libtorch));
  else console.log(CHANGED_MEANWHILE);
}

/** What native/cuda/troupe_cuda.cmake takes of what there is. */
export function cudaChoices({ nvcc, headers }) {
  return { TROUPE_NVCC: nvcc ?? 'OFF', TROUPE_NCCL_HEADERS: headers?.join(';') ?? 'OFF' };
}

/**
 * Builds the addon for others into prebuilds/, with troupe_cuda.so where libtorch has CUDA. The build of this checkout stays
 * as it is. Returns the folder.
 *
 * @throws {Missing}
 */
export function buildPrebuild(root, libtorch, cuda) {
  const build = join(root, 'build', 'prebuild');
  const choices = { ...cudaChoices(cuda), TROUPE_PREBUILD: 'ON', CMAKE_UNITY_BUILD: 'ON' };
  if (!buildIn(build, root, libtorch, choices)) throw new Missing(CHANGED_MEANWHILE);
  const folder = prebuildPlace(root, libtorch);
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  copyFileSync(join(build, 'Release', 'troupe.node'), join(folder, 'troupe.glibc.node'));
  if (libtorch.cuda) copyFileSync(join(build, 'Release', CUDA_LIBRARY), join(folder, CUDA_LIBRARY));
  return folder;
}

/**
 * Builds the addon whose emulated CUDA kernels count the bytes that they touch (bench/stages.mjs), of the objects of the
 * addon itself. Returns the folder that node-gyp-build finds it in.
 *
 * @throws {Missing}
 */
export function buildCounting(root, libtorch) {
  buildIn(join(root, 'build'), root, libtorch, {}, 'troupe_counting');
  return join(root, 'build', 'counting');
}

/**
 * Builds the addon with the address and undefined-behaviour sanitizers. Returns the folder that node-gyp-build finds it
 * in.
 *
 * @throws {Missing}
 */
export function buildSanitized(root, libtorch) {
  const folder = join(root, 'build', 'sanitized');
  buildIn(join(folder, 'build'), root, libtorch, { TROUPE_SANITIZE: 'ON', CMAKE_UNITY_BUILD: 'ON' });
  return folder;
}
