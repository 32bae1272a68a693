/**
 * Compiles every CUDA kernel with nvcc for the architectures of a prebuild, the program that times them
 * (bench/gpu/kernel_times) and their tests, and fails where one spills registers or needs a stack (both are slow, and neither
 * is meant), or a program calls on the host what is the device's. Then, where TROUPE_CUDA_LIBTORCH is the folder of a libtorch
 * with CUDA of the version that the addon was built with, builds troupe_cuda.so against it and loads it into that very addon.
 * Needs no GPU and no driver. `node scripts/check-cuda.mjs [90]`
 */

import { spawn } from 'node:child_process';
import { copyFileSync, existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { cpus, tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { CUDA_LIBRARY, findCudaTools, findNvcc, wheelsOf } from './cuda.mjs';
import { inspect } from './libtorch.mjs';
import { cudaChoices } from './native.mjs';
import { run, show } from './process.mjs';
import sources from './sources.cjs';

const root = dirname(dirname(fileURLToPath(import.meta.url)));

/** Files of a folder with the ending. */
const filesOf = (ending, ...folder) =>
  readdirSync(join(root, ...folder))
    .filter((name) => name.endsWith(ending))
    .map((name) => join(root, ...folder, name));

/** Of the addon, nvcc compiles C++17 alone (native/cuda/troupe_cuda.cmake); the tests' own files are C++20. */
function compile(nvcc, file, architectures, object) {
  const targets = architectures.map((a) => `-gencode=arch=compute_${a},code=sm_${a}`);
  const args = [
    isTest(file) ? '-std=c++20' : '-std=c++17',
    '-O3',
    '-Xptxas',
    '-v',
    `-I${join(root, 'native')}`,
    ...targets,
    '-x',
    'cu',
    '-c',
    file,
    '-o',
    object,
  ];
  return new Promise((resolve) => {
    const child = spawn(nvcc, args, { stdio: ['ignore', 'ignore', 'pipe'] });
    let text = '';
    child.stderr.on('data', (data) => {
      text += data;
    });
    child.on('close', (status) => resolve({ status, text }));
  });
}

/** The kernels that ptxas reports a stack frame or spills of, with their architecture. */
function faults(text) {
  const found = [];
  let kernel = '';
  for (const line of text.split('\n')) {
    const name = /Compiling entry function '(\S+)' for '(\S+)'/.exec(line);
    if (name) kernel = `${name[1]} on ${name[2]}`;
    const bytes = /(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads/.exec(line);
    if (bytes?.slice(1).some((number) => number !== '0')) found.push(`${kernel}: ${line.trim()}`);
  }
  return found;
}

const isTest = (file) => file.startsWith(join(root, 'test'));

/**
 * Whether a program's object calls exit: nvcc compiles a call of a __device__ function on the host, where it does not refuse it
 * (in a template), to exit(1) without a word.
 */
function exits(object) {
  return /\bU exit$/m.test(run('nm', [object]).stdout);
}

async function main(architectures) {
  const nvcc = findNvcc();
  if (nvcc === undefined) {
    console.log('No nvcc: the CUDA kernels were not compiled for GPUs.');
    return 0;
  }
  const scratch = mkdtempSync(join(tmpdir(), 'troupe-cuda-'));
  const tests = filesOf('.cc', 'test', 'kernels', 'cuda').filter((file) => !/emulation_test/.test(file));
  const programs = [...filesOf('.cc', 'bench', 'gpu', 'kernel_times'), ...tests];
  const files = [...filesOf('.cu', 'native', 'kernels', 'cuda'), ...programs];
  const waiting = [...files.entries()];
  const failures = [];
  let kernels = 0;
  const work = async () => {
    for (let next = waiting.pop(); next !== undefined; next = waiting.pop()) {
      const [number, file] = next;
      const object = join(scratch, `${number}.o`);
      const { status, text } = await compile(nvcc, file, architectures, object);
      if (programs.includes(file) && exits(object))
        failures.push(`${file} calls a function of the device on the host`);
      if (status !== 0) failures.push(`${file} did not compile:\n${text}`);
      kernels += [...text.matchAll(/Compiling entry function/g)].length;
      failures.push(...faults(text).map((fault) => `${file}: ${fault}`));
    }
  };
  await Promise.all(cpus().map(work));
  rmSync(scratch, { recursive: true });
  for (const failure of failures) console.error(failure);
  console.log(
    `${files.length} files, ${kernels} kernels for sm_${architectures.join(', sm_')}: ${failures.length} that spill, need a stack, do not compile or call the device's functions on the host.`,
  );
  return failures.length;
}

/** Whether cuBLASLt is as native/kernels/cuda/cublaslt.h declares it, by the header of the wheel beside libtorch. */
function checkDeclarations(libtorch) {
  const nvcc = findNvcc();
  const folders = wheelsOf({ folder: libtorch });
  if (nvcc === undefined || !folders.some((folder) => existsSync(join(folder, 'cublasLt.h')))) {
    console.log(`No nvcc, or no cublasLt.h beside ${libtorch}: its declarations were not compared.`);
    return true;
  }
  const includes = [join(root, 'native'), ...folders].map((folder) => `-I${folder}`);
  const file = join(root, 'test', 'kernels', 'cublaslt_declarations.cc');
  return show(nvcc, ['-std=c++20', ...includes, '-c', file, '-o', '/dev/null']);
}

/** One addon for a libtorch with CUDA and one without: the addon of build/Release with CUDA's, beside a fresh troupe_cuda.so. */
function checkLibrary(libtorch) {
  if (libtorch === undefined) {
    console.log(`TROUPE_CUDA_LIBTORCH is not set: ${CUDA_LIBRARY} was not built and loaded.`);
    return 0;
  }
  if (!existsSync(join(libtorch, 'lib', 'libtorch_cuda.so'))) {
    console.error(
      `TROUPE_CUDA_LIBTORCH: ${libtorch} is no libtorch with CUDA, it has no lib/libtorch_cuda.so.`,
    );
    return 1;
  }
  if (!checkDeclarations(libtorch)) return 1;
  const build = join(root, 'build', 'cuda');
  const require = createRequire(join(root, 'package.json'));
  const options = {
    CMAKE_BUILD_TYPE: 'Release',
    TROUPE_LIBTORCH: libtorch,
    ...cudaChoices(findCudaTools(inspect(libtorch))),
    TROUPE_BUILT_FROM: sources.sourcesHash(root),
    TROUPE_NODE_ADDON_API: dirname(require.resolve('node-addon-api/package.json')),
  };
  const definitions = Object.entries(options).map(([key, value]) => `-D${key}=${value}`);
  const jobs = String(cpus().length);
  const built =
    show('cmake', ['-S', root, '-B', build, ...definitions]) &&
    show('cmake', ['--build', build, '--target', 'troupe_cuda', '--parallel', jobs]);
  if (!built) return 1;
  const scratch = mkdtempSync(join(tmpdir(), 'troupe-cuda-'));
  const addon = join(scratch, 'troupe.node');
  copyFileSync(join(root, 'build', 'Release', 'troupe.node'), addon);
  copyFileSync(join(build, CUDA_LIBRARY), join(scratch, CUDA_LIBRARY));
  // A driver that has nothing: without one, CUDA is not loaded at all.
  const driver = ['-shared', '-x', 'c', '/dev/null', '-o', join(scratch, 'libcuda.so.1')];
  const code = `const a = require(${JSON.stringify(addon)});
    console.log(JSON.stringify([a.cudaProblems(), a.cudaDevices(), a.kernels('cuda') !== undefined]))`;
  const env = { ...process.env, LD_LIBRARY_PATH: `${scratch}:${join(libtorch, 'lib')}` };
  const compiled = run('cc', driver);
  const loaded = compiled.ok ? run(process.execPath, ['-e', code], { env }) : compiled;
  rmSync(scratch, { recursive: true });
  const works = loaded.stdout.trim() === '[{},[],true]';
  console.log(`${CUDA_LIBRARY} against ${libtorch}: ${works ? 'loaded by the addon' : 'NOT loaded'}.`);
  if (!works) console.error(`${loaded.stdout}\n${loaded.stderr}`);
  return works ? 0 : 1;
}

const spills = await main(process.argv.length > 2 ? process.argv.slice(2) : ['80', '90', '100']);
process.exitCode = Math.min(spills + checkLibrary(process.env.TROUPE_CUDA_LIBTORCH), 1);
