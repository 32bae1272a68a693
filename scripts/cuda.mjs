/**
 * The part of the addon that needs a libtorch with CUDA, troupe_cuda.so (native/cuda): what it can be built with here, an nvcc
 * for kernels and headers for NCCL, and which of them one that is built has.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { cudaMajor } from './libtorch.mjs';
import { run } from './process.mjs';

export const CUDA_LIBRARY = 'troupe_cuda.so';

/** Every nvcc on the path or where CUDA is usually installed, with the major version of its CUDA. */
function everyNvcc() {
  const folders = [
    ...(process.env.PATH ?? '').split(delimiter),
    ...[...cudaHomes(), ...USUAL_HOMES].map((folder) => join(folder, 'bin')),
  ];
  return folders.flatMap((folder) => {
    const path = join(folder, 'nvcc');
    const version = existsSync(path) ? run(path, ['--version']).stdout : '';
    const major = /release (\d+)\./.exec(version)?.[1];
    return major === undefined ? [] : [{ path, major }];
  });
}

const cudaHomes = () => [process.env.CUDA_HOME, process.env.CUDA_PATH].filter(Boolean);
const USUAL_HOMES = ['/usr/local/cuda', '/opt/cuda'];

/**
 * The first nvcc of CUDA `major`, or of any; undefined if there is none. What an nvcc compiles calls the runtime of its own
 * version, and libtorch brings its own.
 */
export function findNvcc(major) {
  return everyNvcc().find((nvcc) => major === undefined || nvcc.major === major)?.path;
}

/** Folders in which an nvcc looks for headers. It may be a script that calls one elsewhere, which alone knows them. */
function foldersOf(nvcc) {
  const { stdout, stderr } = run(nvcc, ['--dryrun', 'none.cu']);
  const line = /INCLUDES=(.*)/.exec(stdout + stderr)?.[1] ?? '';
  return [...line.matchAll(/-I([^"\s]+)/g)].map(([, folder]) => folder);
}

/** The folders of the wheels beside libtorch that have headers. */
export function wheelsOf(libtorch) {
  const site = join(libtorch.folder, '..', 'nvidia');
  if (!existsSync(site)) return [];
  return readdirSync(site).map((name) => join(site, name, 'include'));
}

/** For each header that libtorch's ProcessGroupNCCL.hpp takes, the folder that has it; undefined where none does. */
function ncclHeaders(libtorch, nvcc) {
  const under = (folders) => folders.map((folder) => join(folder, 'include'));
  const own = nvcc === undefined ? [] : foldersOf(nvcc);
  const toolkit = [...under(cudaHomes()), ...own];
  const wheels = wheelsOf(libtorch);
  const usual = [...under(USUAL_HOMES), '/usr/include'];
  // The wheel's is of the NCCL that libtorch was built with, a toolkit's need not be (nccl_problem() in native/cuda looks).
  const nccl = [...under([process.env.NCCL_HOME].filter(Boolean)), ...wheels, ...toolkit, ...usual];
  const rest = [...toolkit, ...wheels, ...usual];
  const find = (header, folders) => folders.find((folder) => existsSync(join(folder, header)));
  return {
    'crt/host_config.h': find('crt/host_config.h', rest),
    'cusparse.h': find('cusparse.h', rest),
    'nccl.h': find('nccl.h', nccl),
  };
}

/** Whether libtorch itself has NCCL. Binutils' nm reads its symbols. */
function libtorchHasNccl({ folder }) {
  const library = join(folder, 'lib', 'libtorch_cuda.so');
  return run('nm', ['-D', '--defined-only', library]).stdout.includes('ProcessGroupNCCL');
}

/**
 * What troupe_cuda.so can be built with for a libtorch.
 *
 * @typedef {object} CudaTools
 * @property {string | undefined} [nvcc] undefined: without kernels
 * @property {string[] | undefined} [headers] folders; undefined: without NCCL
 *
 * @returns {CudaTools}
 */
export function findCudaTools(libtorch) {
  if (!libtorch.cuda) return {};
  const nvcc = findNvcc(cudaMajor(libtorch));
  const folders = Object.values(ncclHeaders(libtorch, nvcc));
  const complete = !folders.includes(undefined) && libtorchHasNccl(libtorch);
  return { nvcc, headers: complete ? [...new Set(folders)] : undefined };
}

/**
 * What a troupe_cuda.so has, by the names that it takes from elsewhere: of what registers kernels, and of libtorch's class.
 *
 * @returns {{ kernels: boolean, nccl: boolean }}
 */
export function partsOf(library) {
  const bytes = existsSync(library) ? readFileSync(library) : Buffer.alloc(0);
  return { kernels: bytes.includes('__cudaRegisterFatBinary'), nccl: bytes.includes('ProcessGroupNCCL') };
}

/** Why there are no CUDA kernels for a libtorch, and what to do: a sentence. */
export function whyNoKernels(libtorch) {
  const major = cudaMajor(libtorch);
  const others = [...new Set(everyNvcc().map((nvcc) => nvcc.major))];
  const cuda = major === undefined ? 'CUDA' : `CUDA ${major}`;
  const why =
    others.length > 0 ? `nvcc is of CUDA ${others.join(' and ')} and libtorch of ${cuda}` : 'nvcc is missing';
  return `Troupe's CUDA kernels were not built, because ${why}: GPUs use the reference path (ATen's operators), which is many times slower; install the toolkit of ${cuda}, or set CUDA_HOME to it, and run 'npm run build:native'.`;
}

/** Why a troupe_cuda.so for a libtorch has no NCCL, and what to do: a sentence. */
export function whyNoNccl(libtorch) {
  const without = "ranks on GPUs exchange by way of the CPUs' memory, and TROUPE_NCCL=1 is an error";
  const found = ncclHeaders(libtorch, findNvcc(cudaMajor(libtorch)));
  const missing = Object.keys(found).filter((header) => found[header] === undefined);
  if (missing.length > 0)
    return `Troupe was built without NCCL, because headers are missing (${missing.join(', ')}): ${without}; nccl.h is in the wheel nvidia-nccl of libtorch's own version, beside torch or under NCCL_HOME, the others are in the CUDA toolkit, under CUDA_HOME: install them and run 'npm run build:native'.`;
  if (!libtorchHasNccl(libtorch)) return `This libtorch has no NCCL: ${without}.`;
  return `The prebuilt addon was made without NCCL: ${without}; remove the folder prebuilds and run 'npm run build:native'.`;
}
