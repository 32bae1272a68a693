/** Programs of C++ that tests compile and run: the CUDA kernels with their tests, by the host compiler. */
import { execFile } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { cpus, tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);

export interface Source {
  file: string;
  flags: string[];
}

/** Files of a folder with one of the extensions. */
export function files(folder: string, ...extensions: string[]): string[] {
  return readdirSync(folder)
    .filter((name) => extensions.some((extension) => name.endsWith(extension)))
    .map((name) => join(folder, name));
}

/** Does `work` for each item, as many at a time as there are processors. */
async function forAll<T>(items: readonly T[], work: (item: T) => Promise<unknown>): Promise<void> {
  const waiting = [...items];
  await Promise.all(
    cpus().map(async () => {
      for (let next = waiting.pop(); next !== undefined; next = waiting.pop()) await work(next);
    }),
  );
}

/** A folder that is there while `use` runs. */
export async function withScratch<T>(use: (folder: string) => Promise<T>): Promise<T> {
  const scratch = mkdtempSync(join(tmpdir(), 'troupe-kernels-'));
  try {
    return await use(scratch);
  } finally {
    rmSync(scratch, { recursive: true });
  }
}

/** What nvcc makes of .cu files for sm_90, as PTX: NAME.ptx in the folder. */
export async function compileToPtx(nvcc: string, sources: readonly string[], folder: string): Promise<void> {
  // As native/cuda/troupe_cuda.cmake compiles them.
  const flags = ['-std=c++17', '-O3', '-arch=sm_90', '-Inative', '-ptx'];
  await forAll(sources, (file) =>
    run(nvcc, [...flags, file, '-o', join(folder, `${basename(file, '.cu')}.ptx`)]),
  );
}

/** Compiles the tests and runs them, with more in their environment: what they print. */
export async function runTests(
  sources: readonly Source[],
  linked: string[],
  environment: Record<string, string> = {},
): Promise<string> {
  const compiler = process.env.CXX?.split(' ')[0] ?? 'c++';
  return withScratch(async (scratch) => {
    const object = (file: string) => join(scratch, `${basename(file)}.o`);
    await forAll(sources, ({ file, flags }) =>
      run(compiler, ['-std=c++20', '-Inative', ...flags, '-x', 'c++', '-c', file, '-o', object(file)]),
    );
    const program = join(scratch, 'tests');
    await run(compiler, [...linked, ...sources.map(({ file }) => object(file)), '-o', program]);
    const env = { ...process.env, ...environment };
    const { stdout } = await run(program, [], { maxBuffer: 1 << 26, env }).catch((error) => {
      throw new Error(`${error.stdout}\n${error.stderr}`);
    });
    return stdout;
  });
}
