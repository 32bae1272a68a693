/**
 * Builds the addon once more with the address and undefined-behaviour sanitizers, in build/sanitized, and runs tests over
 * it: on the reference path (ATEN_CPU_CAPABILITY=default), then the kernels of each instruction set that this processor
 * has. The first wrong access or undefined operation ends a test file, and its report is shown at the end. libtorch is not
 * instrumented: of its own accesses only those in functions like memcpy and those inlined from its headers are seen. Nor are
 * AVX-512's masked loads and stores, which are the compiler's own: the same lines for AVX2 copy, and are seen.
 * `node scripts/check-sanitizers.mjs [--default | --avx2 | --avx512] [TEST…]`
 */
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { findLibtorch } from './libtorch.mjs';
import { buildSanitized } from './native.mjs';
import { Missing, run, show } from './process.mjs';

const root = dirname(dirname(fileURLToPath(import.meta.url)));

/** What the kernels of each instruction set are run by. */
const KERNEL_TESTS = ['test/kernels', 'test/model', 'test/rollout'];
/** What calls the addon from other sides, on the reference path. */
const ENGINE_TESTS = [
  ...[
    'adapters',
    'extreme-numbers',
    'gguf',
    'method',
    'micro-batches',
    'native',
    'optimizer',
    'out-of-memory',
  ],
  ...['policies', 'random-model', 'safetensors', 'sharded', 'tensor', 'weights'],
].map((name) => `test/engine/${name}.test.ts`);

/** A library of the compiler; it has to be loaded before whatever it watches. */
function library(name) {
  const compiler = process.env.CXX?.split(' ')[0] ?? 'c++';
  return run(compiler, [`-print-file-name=${name}`]).stdout.trim();
}

/** Whether the processor has the instructions, as /proc/cpuinfo calls them. */
function has(flag) {
  return existsSync('/proc/cpuinfo') && readFileSync('/proc/cpuinfo', 'utf8').includes(` ${flag} `);
}

/** Runs tests over the addon in `folder` on the kernels of `capability`, as ATen names it. Returns whether all passed. */
function test(folder, capability, files) {
  const reports = join(folder, 'reports');
  rmSync(reports, { recursive: true, force: true });
  mkdirSync(reports, { recursive: true });
  const log = `log_path=${join(reports, 'report')}`;
  console.log(`With the sanitizers, ATEN_CPU_CAPABILITY=${capability}: ${files.join(' ')}`);
  const vitest = join(root, 'node_modules', 'vitest', 'vitest.mjs');
  const env = {
    ...process.env,
    ATEN_CPU_CAPABILITY: capability,
    // Where node-gyp-build looks for build/Release/troupe.node.
    TROUPE_PREBUILD: folder,
    LD_PRELOAD: `${library('libasan.so')} ${library('libubsan.so')}`,
    // Node and libtorch leave memory to the end of the process; a size that no system has is an error as without; less
    // freed memory is kept back than a test of memory allows. Reports go to files, also those of a process whose end a
    // test takes for granted. (UBSan beside ASan writes to standard error; its exit code is nobody else's.)
    ASAN_OPTIONS: ['detect_leaks=0', 'allocator_may_return_null=1', 'quarantine_size_mb=32', log].join(':'),
    UBSAN_OPTIONS: 'print_stacktrace=1:exitcode=99',
  };
  const passed = show(
    process.execPath,
    [vitest, 'run', '--project', 'fast', '--testTimeout=600000', '--teardownTimeout=60000', ...files],
    {
      cwd: root,
      env,
    },
  );
  // Allocations that were refused are warnings.
  const found = readdirSync(reports)
    .map((name) => readFileSync(join(reports, name), 'utf8'))
    .filter((text) => text.includes('ERROR: '));
  for (const text of found) console.error(text);
  return passed && found.length === 0;
}

function main(args) {
  const folder = buildSanitized(root, findLibtorch(root));
  const named = args.filter((argument) => !argument.startsWith('--'));
  const capabilities = args.filter((argument) => argument.startsWith('--')).map((flag) => flag.slice(2));
  const present = ['default', ...(has('avx2') ? ['avx2'] : []), ...(has('avx512bw') ? ['avx512'] : [])];
  const passed = (capabilities.length > 0 ? capabilities : present).map((capability) => {
    const files = capability === 'default' ? [...KERNEL_TESTS, ...ENGINE_TESTS] : KERNEL_TESTS;
    return test(folder, capability, named.length > 0 ? named : files);
  });
  return passed.every(Boolean);
}

try {
  process.exitCode = main(process.argv.slice(2)) ? 0 : 1;
} catch (error) {
  console.error(error instanceof Missing ? error.message : error);
  process.exitCode = 1;
}
