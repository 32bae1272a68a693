/**
 * Microbenchmark of the fused kernels at the shape of a 135M-parameter model (hidden 576, 9/3 heads of 64,
 * intermediate 1536, vocabulary 49152) over 4,352 rows: 4 prompts of 64 tokens with 8 responses of 128 each.
 * Prints the best time of each kernel, its rate, and the time of the reference implementation.
 *
 *   OMP_NUM_THREADS=2 node bench/kernels.mjs [bfloat16|float32] [--no-reference] [--tiny]
 *
 * Needs the built addon. Whole training steps are another benchmark's subject.
 */
import { createRequire } from 'node:module';

const addon = createRequire(import.meta.url)('../build/Release/troupe.node');
const fast = addon.kernels('cpu');
const reference = addon.kernels('reference');
const dtype = process.argv.includes('float32') ? 'float32' : 'bfloat16';
const withReference = !process.argv.includes('--no-reference');
const bytes = dtype === 'float32' ? 4 : 2;

// --tiny: to try the benchmark out.
const tiny = process.argv.includes('--tiny');
const [HIDDEN, INTERMEDIATE, VOCABULARY] = tiny ? [64, 128, 512] : [576, 1536, 49152];
const [HEADS, KEY_HEADS, SIZE] = tiny ? [3, 1, 32] : [9, 3, 64];
const [PROMPTS, SAMPLES, PROMPT, RESPONSE] = tiny ? [2, 2, 8, 16] : [4, 8, 64, 128];
const ROWS = PROMPTS * (PROMPT + SAMPLES * RESPONSE);
const ENTRIES = tiny ? 32 : 2048;

const call = (name, overload, ...args) => addon.call(`aten::${name}`, overload, args);
const random = (shape, type = dtype) => call('to', 'dtype', call('randn', '', shape), type);
const narrow = (x, dim, start, length) => call('narrow', '', x, dim, start, length);
const zeros = (shape) => call('zeros', '', shape);
const int64 = (values) => addon.tensor(BigInt64Array.from(values, BigInt), [values.length], 'int64', 'cpu');

/** Best of the runs that fit into a second (of three with --tiny), in seconds. */
function best(run) {
  dispose(run());
  let least = Number.POSITIVE_INFINITY;
  const end = performance.now() + 1000;
  for (let i = 0; i < 3 || (!tiny && i < 200 && performance.now() < end); i++) {
    const start = performance.now();
    const result = run();
    least = Math.min(least, performance.now() - start);
    dispose(result);
  }
  return least / 1000;
}

function dispose(result) {
  if (!result) return;
  if (typeof result.dispose === 'function') result.dispose();
  else for (const tensor of Object.values(result)) tensor?.dispose();
}

/** `work`: bytes moved (GB/s) or floating-point operations (GFLOP/s). */
function report(name, run, work, unit) {
  const seconds = best(() => run(fast));
  const plain = withReference ? best(() => run(reference)) : undefined;
  console.log(
    [
      name.padEnd(26),
      `${(seconds * 1e6).toFixed(0).padStart(8)} µs`,
      `${(work / seconds / 1e9).toFixed(1).padStart(8)} ${unit}`,
      plain ? `   ATen ${(plain * 1e6).toFixed(0).padStart(8)} µs` : '',
    ].join(' '),
  );
}

console.log(`${dtype}, ${addon.threads()} threads, ${ROWS} rows`);
const whole = [0, ROWS];
const x = random([ROWS, HIDDEN]);
const residual = random([ROWS, HIDDEN]);
const norm = random([HIDDEN]);
const { rstd } = fast.rmsNorm(x, norm, 1e-6);
const normSum = [zeros([HIDDEN])];
const rowBytes = ROWS * HIDDEN * bytes;
report('rmsNorm', (k) => k.rmsNorm(x, norm, 1e-6), 2 * rowBytes, 'GB/s');
report('addRmsNorm', (k) => k.addRmsNorm(x, residual, norm, 1e-6), 4 * rowBytes, 'GB/s');
report(
  'rmsNormBackward',
  (k) => k.rmsNormBackward(residual, x, norm, rstd, whole, normSum, residual),
  4 * rowBytes,
  'GB/s',
);

const gateUp = random([ROWS, 2 * INTERMEDIATE]);
const gradGated = random([ROWS, INTERMEDIATE]);
report('swiglu', (k) => k.swiglu(gateUp), 3 * ROWS * INTERMEDIATE * bytes, 'GB/s');
report('swigluBackward', (k) => k.swigluBackward(gradGated, gateUp), 5 * ROWS * INTERMEDIATE * bytes, 'GB/s');

const table = zeros([VOCABULARY, HIDDEN]);
const tokens = int64(Array.from({ length: ROWS }, (_, i) => (i * 7919) % VOCABULARY));
report(
  'embeddingBackward',
  (k) => k.embeddingBackward(residual, tokens, whole, [table]),
  ROWS * HIDDEN * (bytes + 8),
  'GB/s',
);

const nodes = [];
let start = 0;
let pairs = 0;
for (let prompt = 0; prompt < PROMPTS; prompt++) {
  const root = nodes.length / 3;
  nodes.push(start, PROMPT, -1);
  start += PROMPT;
  pairs += (PROMPT * PROMPT) / 2;
  for (let sample = 0; sample < SAMPLES; sample++) {
    nodes.push(start, RESPONSE, root);
    start += RESPONSE;
    pairs += (RESPONSE * RESPONSE) / 2 + RESPONSE * PROMPT;
  }
}
const qkv = random([ROWS, (HEADS + 2 * KEY_HEADS) * SIZE]);
const positions = Array.from({ length: ROWS }, (_, i) => i % (PROMPT + RESPONSE));
const [cos, sin] = [0, 0].map(() => random([PROMPT + RESPONSE, SIZE / 2], 'float32'));
const gradOut = random([ROWS, HEADS, SIZE]);
const [qNorm, kNorm] = [0, 0].map(() => random([SIZE]));
const layer = {
  qkv,
  layout: { queryHeads: HEADS, keyHeads: KEY_HEADS, dim: SIZE },
  cos,
  sin,
  nodes,
  positions,
  scale: 0.125,
};
// From the raw product on: split, head norms, rotation, attention.
const flops = 4 * pairs * HEADS * SIZE;
const norms = { qNorm, kNorm };
const back = { grad: gradOut, groups: whole, gradQNorm: [zeros([SIZE])], gradKNorm: [zeros([SIZE])] };
report('attention', (k) => k.attention({ ...layer, ...norms }), flops, 'GFLOP/s');
report('attention and back', (k) => k.attention({ ...layer, ...norms, ...back }), 3.5 * flops, 'GFLOP/s');

const weightSum = zeros([2 * INTERMEDIATE, HIDDEN]);
report(
  'accumulateWeightGradient',
  (k) => k.accumulateWeightGradient([weightSum], gateUp, x, whole),
  4 * ROWS * INTERMEDIATE * HIDDEN,
  'GFLOP/s',
);

const head = call('mul', 'Scalar', random([VOCABULARY, HIDDEN]), 0.05);
const entries = {
  rows: Array.from({ length: ENTRIES }, (_, i) => 2 * i),
  targets: Array.from({ length: ENTRIES }, (_, i) => (i * 7919) % VOCABULARY),
  temperatures: new Float64Array(ENTRIES).fill(1),
};
const forward = fast.tokenLogprobs(x, head, entries);
const gradEntries = random([ENTRIES], 'float32');
const gradHidden = zeros([ROWS, HIDDEN]);
const projection = 2 * ENTRIES * VOCABULARY * HIDDEN;
report('tokenLogprobs', (k) => k.tokenLogprobs(x, head, entries), projection, 'GFLOP/s');
report(
  'tokenLogprobsBackward',
  (k) =>
    k.tokenLogprobsBackward({
      gradLogprobs: gradEntries,
      ...forward,
      hidden: x,
      weight: head,
      entries,
      groups: whole,
      gradHidden,
      gradWeight: [table],
    }),
  3 * projection,
  'GFLOP/s',
);

for (const rows of [1, 8, 32]) {
  const batch = random([rows, HIDDEN]);
  const weight = narrow(head, 0, 0, 2 * INTERMEDIATE);
  report(
    `linear (packs too), ${rows} rows`,
    (k) => k.linear(batch, weight),
    2 * rows * 2 * INTERMEDIATE * HIDDEN,
    'GFLOP/s',
  );
}

const plain = best(() => call('linear', '', x, narrow(head, 0, 0, 2 * INTERMEDIATE)));
console.log(
  `for comparison: ATen linear ${HIDDEN} → ${2 * INTERMEDIATE} takes ${(plain * 1e6).toFixed(0)} µs, ` +
    `${((4 * ROWS * INTERMEDIATE * HIDDEN) / plain / 1e9).toFixed(0)} GFLOP/s`,
);
