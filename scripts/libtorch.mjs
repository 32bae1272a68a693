/**
 * Finds libtorch, or fetches it with pip into libtorch/. In this order: LIBTORCH, CMAKE_PREFIX_PATH, the torch of
 * the python3 on PATH, libtorch/ from an earlier install, pip. Only the files are used: no Python runs later.
 */
import { existsSync, readdirSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { delimiter, join, resolve } from 'node:path';
import { firstThatRuns, Missing, run } from './process.mjs';

export const TORCH = '2.13.0';
/** Minor versions whose C++ interface this code is written for. */
const OLDEST_MINOR = 11;
const NEWEST_MINOR = 14;
const CPU_INDEX = 'https://download.pytorch.org/whl/cpu';

/**
 * @typedef {object} Libtorch
 * @property {string} folder with include/ and lib/
 * @property {string} version e.g. "2.13.0"
 * @property {boolean} cuda
 */

/** Version that the headers state, or undefined where there are none. */
function headerVersion(folder) {
  for (const header of ['torch/headeronly/version.h', 'torch/csrc/api/include/torch/version.h']) {
    const path = join(folder, 'include', header);
    if (!existsSync(path)) continue;
    const text = readFileSync(path, 'utf8');
    const part = (name) => new RegExp(`#define TORCH_VERSION_${name} (\\d+)`).exec(text)?.[1];
    if (part('MAJOR') !== undefined) return `${part('MAJOR')}.${part('MINOR')}.${part('PATCH')}`;
  }
  return undefined;
}

/** The libtorch in `folder`, or undefined if there is none. @returns {Libtorch | undefined} */
export function inspect(folder) {
  const version = headerVersion(folder);
  if (version === undefined || !existsSync(join(folder, 'lib', 'libtorch_cpu.so'))) return undefined;
  return { folder: resolve(folder), version, cuda: existsSync(join(folder, 'lib', 'libtorch_cuda.so')) };
}

/**
 * Major version of the CUDA that a libtorch was made with, as libtorch_cuda names the runtime that it needs; undefined
 * where it has none, or binutils' readelf is missing.
 *
 * @returns {string | undefined} e.g. "13"
 */
export function cudaMajor({ folder, cuda }) {
  if (!cuda) return undefined;
  const { stdout } = run('readelf', ['-d', join(folder, 'lib', 'libtorch_cuda.so')]);
  return /NEEDED.*\[libcudart[^\]]*\.so\.(\d+)/.exec(stdout)?.[1];
}

export function isSupported(version) {
  const [major, minor] = version.split('.').map(Number);
  return major === 2 && minor >= OLDEST_MINOR && minor <= NEWEST_MINOR;
}

const RANGE = `2.${OLDEST_MINOR} to 2.${NEWEST_MINOR}`;

function fromLibtorchVariable(environment) {
  const folder = environment.LIBTORCH;
  if (!folder) return undefined;
  const found = inspect(folder);
  if (found === undefined) {
    throw new Missing(
      `LIBTORCH is ${folder}, which has no libtorch (lib/libtorch_cpu.so and include/): unset it or set it to the folder of libtorch ${TORCH}.`,
    );
  }
  if (!isSupported(found.version)) {
    throw new Missing(
      `LIBTORCH is ${folder}, which has libtorch ${found.version}, but Troupe needs ${RANGE}: unset it or set it to another one.`,
    );
  }
  return found;
}

/** A prefix may be libtorch's own folder or, as torch.utils.cmake_prefix_path gives it, share/cmake below it. */
function fromPrefixPath(environment) {
  const prefixes = (environment.CMAKE_PREFIX_PATH ?? '').split(new RegExp(`[;${delimiter}]`)).filter(Boolean);
  return prefixes
    .flatMap((prefix) => [prefix, join(prefix, '..', '..'), join(prefix, '..', '..', '..')])
    .map(inspect)
    .find((found) => found !== undefined && isSupported(found.version));
}

function fromPython() {
  // find_spec, because importing torch takes seconds.
  const code = `import importlib.util as u; s = u.find_spec('torch'); print(s.submodule_search_locations[0] if s else '')`;
  const folder = run('python3', ['-c', code]).stdout.trim();
  const found = folder === '' ? undefined : inspect(folder);
  if (found !== undefined && !isSupported(found.version)) {
    console.log(`Passing over the torch ${found.version} of python3: Troupe needs ${RANGE}.`);
    return undefined;
  }
  return found;
}

export function hasNvidiaDriver() {
  return existsSync('/proc/driver/nvidia/version') || run('nvidia-smi', ['-L']).ok;
}

/** @returns {string[]} the command that runs pip */
function findPip() {
  const pip = firstThatRuns([['python3', '-m', 'pip'], ['pip3'], ['pip']], ['--version']);
  if (pip !== undefined) return pip;
  throw new Missing(
    `No libtorch was found and pip, which would fetch it, is missing: install pip (Debian and Ubuntu: apt install python3-pip), or set LIBTORCH to the folder of libtorch ${TORCH}.`,
  );
}

/**
 * The ways to get torch, each the arguments of one pip call, best first. A Python that torch has no wheel for can
 * still fetch the wheel of another, since nothing of it is run.
 */
export function attempts(cuda, architecture = process.arch) {
  const platform = `manylinux_2_28_${architecture === 'arm64' ? 'aarch64' : 'x86_64'}`;
  const otherPython = [
    '--only-binary=:all:',
    '--python-version=3.12',
    '--implementation=cp',
    `--platform=${platform}`,
  ];
  const fromIndex = ['--index-url', CPU_INDEX];
  const cpu = `torch==${TORCH}+cpu`;
  // Three equal signs: the release without "+cpu", which PyPI has with CUDA.
  const withCuda = `torch===${TORCH}`;
  const ways = [[cpu], [...fromIndex, cpu], [...otherPython, ...fromIndex, cpu]];
  if (cuda) ways.unshift([withCuda], [...otherPython, withCuda]);
  return ways.map((way) => ['--no-deps', ...way]);
}

/**
 * What libtorch's CUDA libraries need of what torch asks for: CUDA's own, without Triton and Python's packages, which are
 * as large as torch itself. They are the same for every Python.
 *
 * @param {string} site folder in which torch was installed
 * @returns {string[]} requirements as pip takes them
 */
export function cudaRequirements(site) {
  const lines = readdirSync(site)
    .filter((name) => /^torch-.*\.dist-info$/.test(name))
    .flatMap((name) => readFileSync(join(site, name, 'METADATA'), 'utf8').split('\n'));
  return lines
    .map((line) => /^Requires-Dist: ((?:nvidia-|cuda-toolkit\b).*)$/.exec(line)?.[1])
    .filter((requirement) => requirement !== undefined && !/\bextra\s*==/.test(requirement));
}

/** What went wrong, in the words of pip. */
export function explain(messages) {
  const text = messages.join('\n');
  const remedy = `get online and run 'npm ci' again, or set LIBTORCH to the folder of libtorch ${TORCH}.`;
  if (/No space left on device/.test(text)) {
    return `libtorch does not fit on the disk: free 3 GB (10 GB with CUDA), then run 'npm ci' again.`;
  }
  if (
    /Retrying \(Retry|NewConnectionError|Temporary failure in name resolution|Network is unreachable/.test(
      text,
    )
  ) {
    return `libtorch could not be fetched, because the network cannot be reached: ${remedy}`;
  }
  const last = text
    .trim()
    .split('\n')
    .filter((line) => line.startsWith('ERROR'))
    .at(-1);
  return `pip could not fetch torch ${TORCH} (${last ?? 'it gave no reason'}): ${remedy}`;
}

/** @returns {Libtorch} */
function fetchLibtorch(root) {
  const [command, ...first] = findPip();
  const cuda = hasNvidiaDriver();
  const partial = join(root, 'libtorch.partial');
  const target = join(root, 'libtorch');
  const common = [
    '--target',
    partial,
    '--no-compile',
    '--retries=2',
    '--timeout=30',
    '--no-input',
    '--quiet',
  ];
  const messages = [];
  const pip = (...args) => {
    console.log(`Fetching libtorch: ${[command, ...first, 'install', ...args].join(' ')}`);
    const stdio = ['ignore', 'inherit', 'pipe'];
    const { ok, stderr } = run(command, [...first, 'install', ...common, ...args], { stdio });
    if (!ok) messages.push(stderr);
    return ok;
  };
  for (const args of attempts(cuda)) {
    rmSync(partial, { recursive: true, force: true });
    const found = pip(...args) ? inspect(join(partial, 'torch')) : undefined;
    if (found === undefined) continue;
    const libraries = found.cuda ? cudaRequirements(partial) : [];
    if (libraries.length > 0 && !pip(...libraries)) continue;
    if (cuda && !found.cuda && messages.length > 0)
      console.log(`There is no libtorch with CUDA: ${explain(messages)}`);
    rmSync(target, { recursive: true, force: true });
    renameSync(partial, target);
    return inspect(join(target, 'torch'));
  }
  rmSync(partial, { recursive: true, force: true });
  throw new Missing(explain(messages));
}

/**
 * @param {string} root Troupe's folder
 * @returns {Libtorch}
 * @throws {Missing}
 */
export function findLibtorch(root, environment = process.env) {
  const own = inspect(join(root, 'libtorch', 'torch'));
  return (
    fromLibtorchVariable(environment) ??
    fromPrefixPath(environment) ??
    fromPython() ??
    (own !== undefined && isSupported(own.version) ? own : undefined) ??
    fetchLibtorch(root)
  );
}
