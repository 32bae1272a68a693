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
const SANITIZED = ['-O1', '-g1', '-fsanitize=address,undefined', '-fno-sanitize-recover=all'];

interface Source {
  file: string;
  flags: string[];
}

/** Files of a folder with one of the extensions. */
function files(folder: string, ...extensions: string[]): string[] {
  return readdirSync(folder)
    .filter((name) => extensions.some((extension) => name.endsWith(extension)))
    .map((name) => join(folder, name));
}

/** Compiles the tests and runs them: what they print. */
async function runTests(sources: readonly Source[], linked: string[]): Promise<string> {
  const compiler = process.env.CXX?.split(' ')[0] ?? 'c++';
  const scratch = mkdtempSync(join(tmpdir(), 'troupe-kernels-'));
  try {
    const objects = sources.map(({ file }) => join(scratch, `${basename(file)}.o`));
    const waiting = [...sources.entries()];
    const compile = async () => {
      for (let next = waiting.pop(); next !== undefined; next = waiting.pop()) {
        const [i, { file, flags }] = next;
        const all = ['-std=c++20', '-Inative', ...flags, '-x', 'c++', '-c', file, '-o', objects[i] as string];
        await run(compiler, all);
      }
    };
    await Promise.all(cpus().map(compile));
    const program = join(scratch, 'tests');
    await run(compiler, [...linked, ...objects, '-o', program]);
    const { stdout } = await run(program, [], { maxBuffer: 1 << 26 }).catch((error) => {
      throw new Error(`${error.stdout}\n${error.stderr}`);
    });
    return stdout;
  } finally {
    rmSync(scratch, { recursive: true });
  }
}

it('compute what plain loops compute, within their memory and whatever the order of their threads', async () => {
  const sources = [
    ...files(native, '.cu'),
    join(native, 'paged_plan.cc'),
    join(native, 'emulation', 'emulation.cc'), // the others are of the CUDA backend as a whole
    ...files('test/kernels/cuda', '.cc'),
  ].map((file) => ({ file, flags: SANITIZED }));
  expect(await runTests(sources, SANITIZED)).toMatch(/\n0 of \d+ failed\n$/);
});

it('touch the bytes of their tensors, each once, and as many are counted', async () => {
  const kernels = [
    'elementwise',
    'heads',
    'launches',
    'packed_heads',
    'paged_attention',
    'statistics',
    'weight_gradient',
  ];
  const sources = [
    ...kernels.map((name) => ({ file: join(native, `${name}.cu`), flags: ['-O1', '-fsanitize=thread'] })),
    ...[
      join(native, 'emulation', 'emulation.cc'),
      ...files(join(native, 'emulation/counting'), '.cc'),
      'test/kernels/cuda/main.cc',
      ...files('test/kernels/cuda/accesses', '.cc'),
    ].map((file) => ({ file, flags: ['-O1'] })),
  ];
  expect(await runTests(sources, [])).toMatch(/\n0 of 3 failed\n$/);
});
