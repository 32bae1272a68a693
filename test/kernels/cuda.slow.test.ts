/**
 * The CUDA kernels on the CPU: every .cu file compiled by the host compiler over native/kernels/cuda/emulation, with the
 * address and undefined-behaviour sanitizers, against plain loops (test/kernels/cuda). What they compute; not races
 * between threads, and not speed.
 */
import { execFile } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { cpus, tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { promisify } from 'node:util';
import { expect, it } from 'vitest';

const run = promisify(execFile);
const native = 'native/kernels/cuda';
const flags = [
  '-std=c++20',
  '-O1',
  '-g',
  '-fsanitize=address,undefined',
  '-fno-sanitize-recover=all',
  '-Inative',
];

/** Files of a folder with one of the extensions. */
function files(folder: string, ...extensions: string[]): string[] {
  return readdirSync(folder)
    .filter((name) => extensions.some((extension) => name.endsWith(extension)))
    .map((name) => join(folder, name));
}

it('compute what plain loops compute, within their memory and whatever the order of their threads', async () => {
  const compiler = process.env.CXX?.split(' ')[0] ?? 'c++';
  const scratch = mkdtempSync(join(tmpdir(), 'troupe-kernels-'));
  try {
    const sources = [
      ...files(native, '.cu'),
      join(native, 'paged_plan.cc'),
      ...files(join(native, 'emulation'), '.cc'),
      ...files('test/kernels/cuda', '.cc'),
    ];
    const objects = sources.map((source) => join(scratch, `${basename(source)}.o`));
    const waiting = [...sources.keys()];
    const compile = async () => {
      for (let i = waiting.pop(); i !== undefined; i = waiting.pop())
        await run(compiler, [...flags, '-x', 'c++', '-c', sources[i] as string, '-o', objects[i] as string]);
    };
    await Promise.all(cpus().map(compile));
    const program = join(scratch, 'tests');
    await run(compiler, [...flags, ...objects, '-o', program]);
    const { stdout } = await run(program, [], { maxBuffer: 1 << 26 }).catch((error) => {
      throw new Error(`${error.stdout}\n${error.stderr}`);
    });
    expect(stdout).toMatch(/\n0 of \d+ failed\n$/);
  } finally {
    rmSync(scratch, { recursive: true });
  }
});
