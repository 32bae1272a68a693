/** The addon: a prebuild that fits, else built by cmake-js. */
import { existsSync, mkdirSync, readFileSync, rmSync, symlinkSync } from 'node:fs';
import { createRequire } from 'node:module';
import { cpus, totalmem } from 'node:os';
import { dirname, join } from 'node:path';
import { firstThatRuns, Missing, run, show } from './process.mjs';

/** A folder that node-gyp-build searches, one for each minor version of torch. */
export function prebuildFolder(root, libtorch) {
  return join(root, 'prebuilds', `torch-${libtorch.version.split('.').slice(0, 2).join('.')}`);
}

/**
 * Takes a prebuild, if there is one for this platform and torch's minor version and it can be loaded. Prebuilds look
 * for libtorch in prebuilds/libtorch. They are made without CUDA, so that a CUDA libtorch needs a build.
 */
export function usePrebuild(root, libtorch) {
  const link = join(root, 'prebuilds', 'libtorch');
  rmSync(link, { recursive: true, force: true });
  const folder = prebuildFolder(root, libtorch);
  if (libtorch.cuda || !existsSync(folder)) return false;
  symlinkSync(libtorch.folder, link);
  // In a process of its own: a bad library may crash.
  const code = `require('node-gyp-build')(${JSON.stringify(folder)})`;
  if (run(process.execPath, ['-e', code], { cwd: root }).ok) {
    console.log(`Using the prebuilt addon of ${folder}.`);
    return true;
  }
  rmSync(link);
  return false;
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
  const named = process.env.CXX?.split(' ')[0];
  const compilers = named ? [[named]] : [['c++'], ['g++'], ['clang++']];
  const compiler = firstThatRuns(compilers, ['--version']);
  if (compiler === undefined) {
    const what = named ? `The C++ compiler that CXX names, ${named},` : 'A C++ compiler';
    throw new Missing(`${what} is missing: install GCC 11 or newer (Debian and Ubuntu: apt install g++).`);
  }
  const probe = ['-std=c++20', '-fopenmp', '-fsyntax-only', '-x', 'c++', '-'];
  if (!run(compiler[0], probe, { input: '#include <concepts>\n#include <omp.h>\n#include <span>\n' }).ok) {
    throw new Missing(
      `The C++ compiler ${compiler[0]} lacks C++20 or OpenMP: install GCC 11 or newer (Debian and Ubuntu: apt install g++) and set CXX to it.`,
    );
  }
}

/** A cache of another libtorch or another folder has to go. */
function mustConfigure(root, options) {
  const cache = join(root, 'build', 'CMakeCache.txt');
  if (!existsSync(cache)) return true;
  const entries = readFileSync(cache, 'utf8').matchAll(/^(\w+):\w+=(.*)$/gm);
  const values = new Map([...entries].map(([, key, value]) => [key, value]));
  if (values.get('CMAKE_HOME_DIRECTORY') !== root) {
    rmSync(cache);
    rmSync(join(root, 'build', 'CMakeFiles'), { recursive: true, force: true });
    return true;
  }
  return Object.entries(options).some(([key, value]) => values.get(key) !== value);
}

/** Builds build/Release/troupe.node. @throws {Missing} */
export function buildAddon(root, libtorch, { prebuild = false } = {}) {
  checkTools();
  const require = createRequire(join(root, 'package.json'));
  const folder = (name) => dirname(require.resolve(`${name}/package.json`));
  const options = {
    TROUPE_LIBTORCH: libtorch.folder,
    TROUPE_NODE_ADDON_API: folder('node-addon-api'),
    TROUPE_PREBUILD: prebuild ? 'ON' : 'OFF',
  };
  const cmakeJs = join(folder('cmake-js'), 'bin', 'cmake-js');
  const definitions = Object.entries(options).map(([key, value]) => `--CD${key}=${value}`);
  // A compiler takes up to 1.5 GB on ATen's headers.
  const jobs = Math.max(1, Math.min(cpus().length, Math.floor(totalmem() / 1.5e9)));
  const step = (...args) => show(process.execPath, [cmakeJs, ...args], { cwd: root });
  mkdirSync(join(root, 'build'), { recursive: true });
  const configured = !mustConfigure(root, options) || step('configure', ...definitions);
  if (configured && step('build', '--parallel', String(jobs), ...definitions)) return;
  throw new Missing(
    `The addon could not be built against libtorch ${libtorch.version} in ${libtorch.folder}: the compiler's messages above say why.`,
  );
}
