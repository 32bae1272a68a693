/** The addon of a checkout: when it counts as built, which prebuild it is taken from, and what is said of its part for CUDA. */
import { spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { beforeEach, describe, expect, it } from 'vitest';
import { CUDA_LIBRARY, findCudaTools, partsOf } from '../../scripts/cuda.mjs';
import { findLibtorch } from '../../scripts/libtorch.mjs';
import {
  cudaLibrary,
  fingerprint,
  isBuilt,
  leavePrebuild,
  prebuildPlace,
  usePrebuild,
} from '../../scripts/native.mjs';
import { bin, fakeLibtorch, install, program, project, root, useCheckout } from './checkout.js';

useCheckout();

describe('an addon', () => {
  const libtorch = { folder: '/torch', version: '2.13.0', cuda: false };
  const sources = ['CMakeLists.txt', 'native/batch/packed.cc', 'native/deep/er/file.h'];

  beforeEach(() => {
    for (const path of [...sources, 'build/Release/troupe.node']) {
      mkdirSync(dirname(join(root, path)), { recursive: true });
      writeFileSync(join(root, path), path);
    }
  });

  it('has the fingerprint of its sources, itself and libtorch, wherever the checkout lies', () => {
    const before = fingerprint(root, libtorch);
    const copy = `${root}-copy`;
    cpSync(root, copy, { recursive: true, verbatimSymlinks: true });
    try {
      expect(fingerprint(copy, libtorch)).toBe(before);
      const inside = (folder: string) => ({ ...libtorch, folder: join(folder, 'libtorch/torch') });
      expect(fingerprint(copy, inside(copy))).toBe(fingerprint(root, inside(root)));
      expect(fingerprint(root, inside(copy))).not.toBe(fingerprint(root, inside(root)));
    } finally {
      rmSync(copy, { recursive: true });
    }
    expect(fingerprint(root, { ...libtorch, version: '2.14.0' })).not.toBe(before);
    for (const path of [...sources, 'build/Release/troupe.node']) {
      writeFileSync(join(root, path), 'changed');
      expect(fingerprint(root, libtorch), path).not.toBe(before);
      writeFileSync(join(root, path), path);
    }
  });

  /** Where a copy of this checkout's addon looks for a libtorch that lies in the checkout: seen from the addon's folder. */
  function linkLibtorch(place: string): void {
    const link = join(place, '../../libtorch');
    if (!existsSync(link)) symlinkSync(dirname(findLibtorch(project).folder), link);
  }

  /** A prebuild of this checkout's addon, which is taken with its own sources only. */
  function prebuild(): string {
    for (const path of ['native', 'CMakeLists.txt']) {
      rmSync(join(root, path), { recursive: true });
      cpSync(join(project, path), join(root, path), { recursive: true });
    }
    const place = prebuildPlace(root, libtorch);
    mkdirSync(place, { recursive: true });
    cpSync(join(project, 'build/Release/troupe.node'), join(place, 'troupe.glibc.node'));
    linkLibtorch(place);
    return place;
  }
  const withCuda = { ...libtorch, cuda: true };
  /** Names that a CUDA part with kernels, and one with NCCL, takes from libraries. */
  const [KERNELS, NCCL] = ['__cudaRegisterFatBinary', '_ZN4c10d16ProcessGroupNCCLC1E'];

  it('is taken from a prebuild, with CUDA or without; one that lacks the CUDA kernels only where they cannot be built', () => {
    const hasKernels = () => partsOf(cudaLibrary(root, withCuda)).kernels;
    expect(usePrebuild(root, libtorch, {})).toBe(false); // there is none
    const place = prebuild();
    expect(usePrebuild(root, libtorch, {})).toBe(true);
    expect(usePrebuild(root, withCuda, {})).toBe(true);
    expect(hasKernels()).toBe(false);
    expect(usePrebuild(root, withCuda, { nvcc: 'nvcc' })).toBe(false);
    expect(readdirSync(join(root, 'prebuilds'))).toEqual(['torch-2.13']);
    writeFileSync(join(place, CUDA_LIBRARY), KERNELS);
    // Without NCCL it is taken: a compiler may be missing.
    expect(usePrebuild(root, withCuda, { nvcc: 'nvcc', headers: ['/cuda'] })).toBe(true);
    expect(hasKernels()).toBe(true);
    expect(readdirSync(join(root, 'prebuilds')).sort()).toEqual(['addon', 'libtorch', 'torch-2.13']);
    leavePrebuild(root);
    expect(readdirSync(join(root, 'prebuilds'))).toEqual(['torch-2.13']);
  });

  it('as a prebuild of a package among others needs no compiler of any kind', () => {
    prebuild();
    for (const [name, text] of [
      ['src/wrong.ts', 'const number: string = 1;'],
      ['tsconfig.json', '{"include": ["src"]}'],
    ] as const) {
      mkdirSync(dirname(join(root, name)), { recursive: true });
      writeFileSync(join(root, name), text);
    }
    const folder = fakeLibtorch('torch');
    const installed = join(root, 'project/node_modules/troupe');
    mkdirSync(installed, { recursive: true });
    for (const name of [
      'scripts',
      'package.json',
      'node_modules',
      'native',
      'CMakeLists.txt',
      'prebuilds',
      'src',
      'tsconfig.json',
    ]) {
      cpSync(join(root, name), join(installed, name), { recursive: true, verbatimSymlinks: true });
    }
    const { status, stdout } = spawnSync(process.execPath, [join(installed, 'scripts/install.mjs')], {
      env: { PATH: bin, LIBTORCH: folder },
      encoding: 'utf8',
    });
    expect({ status, stdout }).toEqual({
      status: 0,
      stdout: expect.stringMatching(/^libtorch 2\.13\.0: .*\nUsing the prebuilt addon of .*\n$/),
    });
  });

  it('without CUDA kernels or NCCL is said to be so, a line each that says what to install', () => {
    const place = prebuild();
    const folder = fakeLibtorch('torch');
    writeFileSync(join(folder, 'lib/libtorch_cuda.so'), '');
    program('readelf', 'echo " 0x0000000000000001 (NEEDED)  Shared library: [libcudart.so.99]"');
    program('nvcc', 'echo "Cuda compilation tools, release 98.0, V98.0.1"');
    const lines = () => install({ LIBTORCH: folder }, '--native-only').output.trim().split('\n').slice(1);
    const used = expect.stringMatching(/^Using the prebuilt addon/);
    const kernels = expect.stringMatching(
      /^Troupe's CUDA kernels were not built, because nvcc is of CUDA 98.* and libtorch of CUDA 99: GPUs use the reference path .*install the toolkit of CUDA 99.*npm run build:native/,
    );
    const nccl = expect.stringMatching(
      /^Troupe was built without NCCL, because headers are missing \(.*nccl\.h\): .*NCCL_HOME.*CUDA_HOME.*npm run build:native/,
    );
    expect(lines()).toEqual([used, kernels, nccl]);
    writeFileSync(join(place, CUDA_LIBRARY), KERNELS);
    expect(lines()).toEqual([used, nccl]);
    writeFileSync(join(place, CUDA_LIBRARY), `${KERNELS} ${NCCL}`);
    expect(lines()).toEqual([used]);
  });

  it("finds NCCL's headers where wheels, CUDA_HOME and the nvcc have them, and takes the wheel's nccl.h", () => {
    const folder = fakeLibtorch('site/torch');
    writeFileSync(join(folder, 'lib/libtorch_cuda.so'), '');
    const header = (path: string) => {
      mkdirSync(dirname(join(root, path)), { recursive: true });
      writeFileSync(join(root, path), '');
    };
    program('readelf', 'echo " 0x0000000000000001 (NEEDED)  Shared library: [libcudart.so.99]"');
    program('nm', 'echo "T _ZN4c10d16ProcessGroupNCCL"');
    // A script that calls one elsewhere: what it says is where its headers are.
    const release = 'echo "release 99.0, V99.0.1"';
    program(
      'nvcc',
      `case $1 in --version) ${release};; *) echo '#$ INCLUDES="-I${root}/toolkit/inc"  ' >&2;; esac`,
    );
    const path = process.env.PATH;
    const found = (environment: Record<string, string> = {}) => {
      Object.assign(process.env, { PATH: bin, ...environment });
      try {
        return findCudaTools({ folder, version: '2.13.0', cuda: true }).headers;
      } finally {
        process.env.PATH = path;
        for (const name of Object.keys(environment)) delete process.env[name];
      }
    };
    header('toolkit/inc/crt/host_config.h');
    header('toolkit/inc/nccl.h');
    const elsewhere = ['/usr/local/cuda', '/opt/cuda', '/usr'].some((home) =>
      existsSync(join(home, 'include/cusparse.h')),
    );
    expect(found() !== undefined).toBe(elsewhere);
    header('site/nvidia/cu99/include/cusparse.h');
    const [toolkit, wheel] = [join(root, 'toolkit/inc'), join(root, 'site/nvidia/cu99/include')];
    expect(found()).toEqual([toolkit, wheel]);
    header('site/nvidia/nccl/include/nccl.h');
    expect(found()).toEqual([toolkit, wheel, join(root, 'site/nvidia/nccl/include')]);
    header('nccl/include/nccl.h');
    header('home/include/crt/host_config.h');
    const homes = { NCCL_HOME: join(root, 'nccl'), CUDA_HOME: join(root, 'home') };
    expect(found(homes)).toEqual([join(root, 'home/include'), wheel, join(root, 'nccl/include')]);
    program('nm', 'exit 0');
    expect(found()).toBeUndefined(); // libtorch has no NCCL
  });

  it('for a libtorch without CUDA is said to leave GPUs alone where there is a driver', () => {
    prebuild();
    program('nvidia-smi', 'exit 0');
    const { output } = install({ LIBTORCH: fakeLibtorch('torch') }, '--native-only');
    expect(output.trim().split('\n').at(-1)).toMatch(/^There is an NVIDIA driver, but .* set LIBTORCH to/);
  });

  it('has the fingerprint of its CUDA part where libtorch has CUDA', () => {
    const before = [libtorch, withCuda].map((found) => fingerprint(root, found));
    writeFileSync(join(root, 'build/Release', CUDA_LIBRARY), 'built');
    const after = [libtorch, withCuda].map((found) => fingerprint(root, found));
    expect(after[0]).toBe(before[0]);
    expect(after[1]).not.toBe(before[1]);
  });

  it('is built where the fingerprint was noted and it can be loaded', () => {
    const built = () => isBuilt(root, libtorch, {});
    expect(built()).toBe(false);
    const note = (found = libtorch) =>
      writeFileSync(join(root, 'build/Release/troupe.sha256'), fingerprint(root, found));
    note();
    expect(built()).toBe(false); // not a library
    const real = join(project, 'build/Release/troupe.node');
    cpSync(real, join(root, 'build/Release/troupe.node'));
    linkLibtorch(join(root, 'build/Release'));
    expect(built()).toBe(false);
    note();
    expect(built()).toBe(true);
    // Without CUDA kernels, or NCCL, until there is what builds them.
    const tools = [{}, { nvcc: 'nvcc' }, { headers: ['/cuda'] }];
    for (const [parts, expected] of [
      ['', [true, false, false]],
      [KERNELS, [true, true, false]],
      [NCCL, [true, false, true]],
      [KERNELS + NCCL, [true, true, true]],
    ] as const) {
      writeFileSync(join(root, 'build/Release', CUDA_LIBRARY), parts);
      note(withCuda);
      expect(tools.map((there) => isBuilt(root, withCuda, there))).toEqual(expected);
    }
  });
});
