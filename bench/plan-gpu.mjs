/**
 * The recorded times of a GPU (bench/results/gpu, docs/cuda-measurements.md) beside what `troupe plan` takes for the same work from
 * that card's rates. Needs no GPU.
 *
 *     node bench/plan-gpu.mjs [RESULTS.jsonl [DEVICE]]      by default those of an H100
 */
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { nativeModelConfig } from '../build/js/engine/configuration.js';
import { SHAPES } from '../build/js/engine/shapes.js';
import { noDecoding } from '../build/js/learning/plan/decode-schedule.js';
import { findDevice } from '../build/js/learning/plan/devices.js';
import { ratedPhases } from '../build/js/learning/plan/rated-phases.js';

const folder = join(dirname(fileURLToPath(import.meta.url)), 'results', 'gpu');
const file = process.argv[2] ?? join(folder, '2026-11-28-h100-troupe.jsonl');
const device = findDevice(process.argv[3] ?? 'h100');
const [PROMPT, LENGTH] = [256, 512];

function parametersOf(text) {
  const targets = ['q', 'k', 'v', 'o', 'gate', 'up', 'down'];
  return text === 'full'
    ? { kind: 'full' }
    : { kind: 'lora', rank: Number(text.slice(1)), alpha: 1, targets };
}

/** Sequences of 512 tokens that share nothing, half of them response, in one micro-batch; one update. */
function training([parameters, tokens]) {
  const sequences = Number(tokens) / LENGTH;
  const batch = {
    rows: Number(tokens),
    entries: sequences * (LENGTH - PROMPT),
    keys: (sequences * LENGTH * (LENGTH + 1)) / 2,
  };
  const own = { policy: { name: 'policy' }, parameters: parametersOf(parameters), groups: 1, updates: 1 };
  return { decode: noDecoding(), adapterRows: 0, policies: [{ ...own, batches: [batch] }] };
}

/** A step of sequences that share nothing, in the middle of 54 tokens, all of one adapter. */
function decoding([sequences, prompt = PROMPT, adapter = 'r16']) {
  const rows = Number(sequences);
  const bases = [{ sequences: rows, shared: true }];
  const phase = { steps: 1, sequences: rows, read: rows * (Number(prompt) + 27), bases };
  return {
    decode: { ...noDecoding(), phases: [phase] },
    adapterRows: Number(adapter.slice(1)),
    policies: [],
  };
}

const line = (cells) => console.log(`| ${cells.join(' | ')} |`);
line(['case', 'ms', 'planned', 'off by', 'by products, attention, memory, launches']);
line(['---', '---', '---', '---', '---']);
for (const row of readFileSync(file, 'utf8')
  .trim()
  .split('\n')
  .map((text) => JSON.parse(text))) {
  const [kind, shape, ...rest] = row.case.split(':');
  const measured = { train: row.seconds, decode: row.step_seconds }[kind];
  if (measured === undefined) continue;
  const config = nativeModelConfig(SHAPES[`qwen3-${shape}`], shape);
  const step = { devices: 1, ...(kind === 'train' ? training(rest) : decoding(rest)) };
  const phases = ratedPhases(config, step, device, 'bfloat16');
  const sum = (of) => phases.reduce((total, phase) => total + of(phase), 0);
  const planned = sum(({ seconds }) => seconds);
  const ms = (seconds) => (1000 * seconds).toFixed(1);
  const off = Math.round(100 * (planned / measured - 1));
  const parts = ['products', 'attention', 'memory', 'launches'].map((part) =>
    ms(sum(({ parts }) => parts[part])),
  );
  line([row.case, ms(measured), ms(planned), `${off < 0 ? '−' : '+'}${Math.abs(off)} %`, parts.join(', ')]);
}
