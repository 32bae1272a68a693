/** The addon: a prebuild that fits, else an earlier build of the same sources, else built by cmake-js. */
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { cpus, totalmem } from 'node:os';
import { dirname, join, relative } from 'node:path';
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

/**
 * Takes a prebuild, if there is one for torch's minor version, of these sources, and it can be loaded. Prebuilds look
 * for libtorch in prebuilds/libtorch. One addon serves a libtorch with CUDA and one without; a prebuild that lacks the
 * CUDA kernels is passed over where they can be built and used.
 */
export function usePrebuild(root, libtorch, nvcc = findNvcc) {
  const link = join(root, 'prebuilds', 'libtorch');
  rmSync(link, { recursive: true, force: true });
  const folder = prebuildFolder(root, libtorch);
  if (!existsSync(folder)) return false;
  const hasKernels = existsSync(join(prebuildPlace(root, libtorch), CUDA_LIBRARY));
  if (libtorch.cuda && !hasKernels && nvcc() !== undefined) return false;
  symlinkSync(libtorch.folder, link);
  // In a process of its own: a bad library may crash.
  const code = `console.log(require('node-gyp-build')(${JSON.stringify(folder)}).builtFrom)`;
  const loaded = run(process.execPath, ['-e', code], { cwd: root });
  const fits = loaded.ok && loaded.stdout.trim() === sourcesHash(root);
  if (fits) console.log(`Using the prebuilt addon of ${folder}.`);
  else {
    const why = loaded.ok ? 'is of other sources' : 'cannot be loaded';
    console.log(`The prebuilt addon of ${folder} ${why}: passing it over.`);
    rmSync(link);
  }
  return fits;
}

/** The part of the addon that needs a libtorch with CUDA (native/cuda), beside it. */
export const CUDA_LIBRARY = 'troupe_cuda.so';

const addonFile = (root) => join(root, 'build', 'Release', 'troupe.node');
const fingerprintFile = (root) => join(root, 'build', 'Release', 'troupe.sha256');

/**
 * A hash of the addon, its CUDA part where there is one, and of what they were built from: the sources, libtorch,
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
  const cudaFile = join(dirname(addonFile(root)), CUDA_LIBRARY);
  const built = libtorch.cuda && existsSync(cudaFile) ? [addonFile(root), cudaFile] : [addonFile(root)];
  for (const path of [...built, nodeApi]) hash.update(readFileSync(path));
  return hash.digest('hex');
}

/**
 * Whether the addon was built from these very sources against this libtorch and can be loaded: also in a copy of the
 * checkout, or under another name, where CMake would build everything again.
 */
export function isBuilt(root, libtorch) {
  const noted = fingerprintFile(root);
  if (!existsSync(noted) || !existsSync(addonFile(root))) return false;
  if (readFileSync(noted, 'utf8') !== fingerprint(root, libtorch)) return false;
  return run(process.execPath, ['-e', `require(${JSON.stringify(addonFile(root))})`]).ok;
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

/** nvcc, on the path or where CUDA is usually installed; undefined if there is none. */
export function findNvcc() {
  const folders = [process.env.CUDA_HOME, process.env.CUDA_PATH, '/usr/local/cuda', '/opt/cuda'];
  const candidates = folders.filter((folder) => folder).map((folder) => [join(folder, 'bin', 'nvcc')]);
  return firstThatRuns([['nvcc'], ...candidates], ['--version'])?.[0];
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

/** Configures and builds with cmake-js in the folder `out`. @throws {Missing} */
function buildIn(out, root, libtorch, choices, target = 'all') {
  checkTools();
  const compiler = findCompiler();
  const require = createRequire(join(root, 'package.json'));
  const folder = (name) => dirname(require.resolve(`${name}/package.json`));
  const options = {
    TROUPE_LIBTORCH: libtorch.folder,
    TROUPE_NODE_ADDON_API: folder('node-addon-api'),
    TROUPE_BUILT_FROM: sourcesHash(root),
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
  if (configured && step('build', '--parallel', String(jobs), '--target', target, ...definitions)) return;
  throw new Missing(
    `The addon could not be built against libtorch ${libtorch.version} in ${libtorch.folder}: the compiler's messages above say why.`,
  );
}

/**
 * Builds build/Release/troupe.node and, where libtorch has CUDA, troupe_cuda.so beside it. With `unity` the compiler
 * reads libtorch's headers once for several files, which saves much of a whole build; without, a change in one file
 * compiles that file.
 *
 * @throws {Missing}
 */
export function buildAddon(root, libtorch, { prebuild = false, unity = false } = {}) {
  buildIn(join(root, 'build'), root, libtorch, {
    TROUPE_PREBUILD: prebuild ? 'ON' : 'OFF',
    CMAKE_UNITY_BUILD: unity ? 'ON' : 'OFF',
  });
  writeFileSync(fingerprintFile(root), fingerprint(root, libtorch));
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
