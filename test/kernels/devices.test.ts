/**
 * `kernels_for` (native/kernels/select.cc) is the only place that chooses how something is computed on a device, and
 * native/memory/device_memory.cc the only one that says what memory it has. Whoever asks for a device's kind elsewhere stands
 * here, with the reason; so does who catches what libtorch throws, since a fault of the device must not pass for a refusal.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { packageRoot } from '../../src/config/package.js';

/** Lines of a file that may, and why. */
type Places = Record<string, [lines: number, reason: string]>;

const NATIVE: Places = {
  'native/kernels/select.cc': [2, 'the choice'],
  'native/memory/device_memory.cc': [2, 'the other one: whose memory, and its allocator'],
  'native/memory/caching_allocator.cc': [1, "is the CPU's allocator"],
  'native/binding/addon.cc': [1, 'releaseMemory gives back that of every device'],
  'native/binding/convert.cc': [1, 'a device is named by JavaScript'],
  'native/binding/kernels.cc': [1, 'a plan that tests look at is on the CPU'],
  'native/binding/kernel_tests.cc': [1, 'the same'],
  'native/distributed/process_group.cc': [2, 'whether gloo reads the memory, or NCCL'],
  'native/kernels/kv_store.h': [1, 'the default'],
  'native/kernels/waits.cc': [7, 'a wait for a device, an event: the CPU has none; copies go to it'],
  'native/kernels/upload.cc': [
    1,
    'what goes to another device goes from pinned memory, what stays is not copied',
  ],
  'native/kernels/cuda/cuda_support.cc': [
    4,
    'the CUDA backend, which the emulation runs on the CPU: streams, products',
  ],
  'native/kernels/cuda/cuda_recording.cc': [1, 'the CUDA backend: a workspace for the stream of recordings'],
  'native/kernels/cuda/flash.cc': [1, 'the CUDA backend: the emulation has no flash attention'],
};

const TYPESCRIPT: Places = {
  'src/engine/loaded-model.ts': [5, 'what a configuration calls a device, and which one it is'],
  'src/engine/deterministic.ts': [1, 'no GPU repeats its bits'],
  'src/engine/session.ts': [
    3,
    'sentences to a person: bf16 that this processor emulates, a GPU without kernels, NCCL without a GPU',
  ],
  'src/engine/gpu-exchange.ts': [1, 'NCCL is for GPUs'],
  'src/engine/random-model.ts': [2, 'weights that go to a file'],
  'src/engine/tensor.ts': [2, 'the default'],
  'src/cli/doctor.ts': [1, 'a list of the devices'],
  'src/cli/plan.ts': [3, 'a plan for this processor is measured'],
  'src/learning/setup.ts': [1, 'a deterministic run is for the CPU'],
  'src/learning/export-policy.ts': [1, 'weights that go to a file'],
  'src/learning/plan/measured-cpu.ts': [1, 'measures this processor'],
  'src/learning/plan/step-probe.ts': [1, 'measures this processor'],
};

const CATCHES: Places = {
  'native/binding/guard.h': [4, 'where exceptions become errors of JavaScript'],
  'native/binding/convert.cc': [1, "the parser's, of a device's name"],
  'native/rollout/engine.cc': [
    3,
    'memory that ran out: fewer rows, or no step ahead, counted; a destructor waits for a device that may have failed',
  ],
  'native/rollout/kv_pages.cc': [1, 'memory that ran out: a smaller slab, counted'],
  'native/rollout/recorded_steps.cc': [1, 'memory that ran out for a recording: launched plainly, counted'],
  'native/distributed/process_group.cc': [1, 'memory that ran out: says so to the other ranks'],
  'native/kernels/cuda/cuda_recording.cc': [
    2,
    'ends a recording that failed, the first error is thrown on; a destructor gives memory back',
  ],
  'native/kernels/cuda/measured_products.cc': [
    1,
    "what fails while products are measured leaves them to ATen's, and says so; a device that has failed says so again",
  ],
  'native/kernels/cuda/cuda_support.cc': [
    1,
    "libtorch's refusal of a product in place; others are thrown on, and it is said",
  ],
};

function found(folder: string, pattern: RegExp): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const name of readdirSync(join(packageRoot(), folder), { recursive: true, encoding: 'utf8' })) {
    const file = `${folder}/${name}`;
    if (!/\.(cc|h|cu|ts)$/.test(file) || file.includes('/emulation/')) continue;
    const lines = readFileSync(join(packageRoot(), file), 'utf8').split('\n');
    const hits = lines.filter((line) => !/^\s*(\/\/|\*|\/\*)/.test(line) && pattern.test(line)).length;
    if (hits > 0) counts[file] = hits;
  }
  return counts;
}

const counts = (places: Places) => Object.fromEntries(Object.entries(places).map(([file, [n]]) => [file, n]));

it.each<[string, string, RegExp, Places]>([
  [
    'native code that asks for the kind of a device',
    'native',
    /\bis_cpu\(\)|\bis_cuda\(\)|\bkCPU\b|\bkCUDA\b|\bDeviceType\b|\bdevice(\(\))?\.type\(\)/,
    NATIVE,
  ],
  ['TypeScript that does', 'src', /['"`](cpu|cuda)\b(?!['"`] \||['"`]\])|\^cuda/, TYPESCRIPT],
  ['native code that catches what libtorch throws', 'native', /catch \(const c10::/, CATCHES],
])('%s', (_, folder, pattern, places) => {
  expect(found(folder, pattern)).toEqual(counts(places));
});
