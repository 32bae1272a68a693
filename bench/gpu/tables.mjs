/**
 * The rows of a folder that run.sh filled, as Markdown: how its parts ended, the project's targets, rows that there was no time
 * for, then Troupe beside transformers + PEFT, and shares of the device's rates.
 */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

const [folder] = process.argv.slice(2);
const rows = (name) => {
  const file = join(folder, name);
  if (!existsSync(file)) return [];
  return readFileSync(file, 'utf8')
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line));
};
const troupe = rows('troupe.jsonl');
const peers = rows('peer.jsonl');
const rates = troupe.find((row) => row.case === 'rates') ?? {};
const line = (cells) => `| ${cells.join(' | ')} |`;
const fixed = (value, digits = 1) => (value === undefined ? '–' : value.toFixed(digits));
const share = (part, whole) => (part && whole ? `${((100 * part) / whole).toFixed(0)} %` : '–');
const memory = (row) => {
  const bytes = row?.peak_bytes ?? row?.reserved_bytes;
  return bytes ? `${(bytes / 1e9).toFixed(1)} GB${row.peak_bytes ? '' : ' reserved'}` : '–';
};

function table(kind, head, cells) {
  const own = troupe.filter((row) => row.case.startsWith(`${kind}:`));
  if (own.length === 0) return [];
  const body = own.map((row) => {
    if (row.error !== undefined) {
      return line([
        row.case,
        `failed: ${row.error.split('\n').find((text) => /Error|no time/.test(text)) ?? row.error.slice(-120)}`,
      ]);
    }
    return line([row.case.slice(kind.length + 1), ...cells(row)]);
  });
  return ['', line(['case', ...head]), line(['case', ...head].map(() => '---')), ...body];
}

/** The peer's row of the same case; of training, whatever the number of tokens in one of its passes. */
const peerOf = (row) => {
  const of = ({ case: name }) => (name.startsWith('train:') ? name.split(':').slice(0, 3).join(':') : name);
  return peers.find((one) => of(one) === of(row) && one.error === undefined);
};
const milliseconds = (value) => (value === undefined ? '–' : (1000 * value).toFixed(1));
const times = (ours, theirs) => (ours && theirs ? `${(theirs / ours).toFixed(2)} ×` : '–');

/** Per cent that measuring adds to the step without it; undefined without a row, and where the two computed unlike numbers of rows. */
const observed = ({ off, exact } = {}) =>
  off && off.rows === exact.rows ? 100 * (exact.seconds / off.seconds - 1) : undefined;

/** How each part of the run ended (run.sh). */
function partsTable() {
  const parts = rows('parts.jsonl');
  if (parts.length === 0) return [];
  const outcome = ({ status, limit }) => {
    if (status === 0) return 'ended well';
    return status === 124 || status === 137 ? `stopped after ${limit} s` : `**failed**, status ${status}`;
  };
  const body = parts.map((one) => line([one.part, `${one.seconds} s`, outcome(one)]));
  return ['', line(['part', 'time', 'outcome']), line(['---', '---', '---']), ...body];
}

/** The project's targets, set for an H100, each with what was measured or undefined. */
function targets() {
  const of = (name) => troupe.find((row) => row.case === name && row.error === undefined);
  const decoded = of('decode:4b:256');
  const voting = of('voting:4b:r16:4');
  return [
    ['4B LoRA training, tokens/s', '≥', 12500, of('train:4b:r16:8192')?.tokens_per_second],
    ['0.6B full training, tokens/s', '≥', 60000, of('train:0.6b:full:8192')?.tokens_per_second],
    [
      'decoding at 256 sequences, % of the memory roofline (4B)',
      '≥',
      70,
      decoded && rates.copy_bytes && (100 * decoded.bytes_a_step) / decoded.step_seconds / rates.copy_bytes,
    ],
    ['observer, % of the training part (4B LoRA)', '≤', 3, observed(of('observer:4b:r16'))],
    ['observer, % of the training part (0.6B full)', '≤', 3, observed(of('observer:0.6b:full'))],
    [
      'Voting step of 4B LoRA, times transformers + PEFT',
      '≥',
      10,
      voting && peerOf(voting) && peerOf(voting).seconds / voting.seconds,
    ],
  ];
}

function targetsTable() {
  const body = targets().map(([name, sign, wanted, measured]) => {
    if (measured === undefined) return line([name, `${sign} ${wanted}`, '–', 'not measured']);
    const met = sign === '≥' ? measured >= wanted : measured <= wanted;
    return line([name, `${sign} ${wanted}`, fixed(measured), met ? 'met' : '**missed**']);
  });
  return ['', line(['target', 'wanted', 'measured', 'outcome']), line(['---', '---', '---', '---']), ...body];
}

/** What there was no time for, and how it is run. */
function leftOut() {
  const left = (all) => all.filter(({ error }) => error?.includes('no time left')).map((row) => row.case);
  const says = ([name, variable, of]) =>
    of.length > 0
      ? [
          '',
          `No time was left for ${of.length} rows of ${name}: ${variable}="${of.join(' ')}" bench/gpu/run.sh.`,
        ]
      : [];
  return [
    ['Troupe', 'PARTS=troupe CASES', left(troupe)],
    ['the peer', 'PARTS=peer PEER_CASES', left(peers)],
  ].flatMap(says);
}

const lines = [
  ...partsTable(),
  ...targetsTable(),
  ...leftOut(),
  '',
  ...(rates.gemm_flops
    ? [
        `Rates of the device: products ${fixed(rates.gemm_flops / 1e12, 0)} TFLOP/s, copies ${fixed(rates.copy_bytes / 1e12, 2)} TB/s.`,
      ]
    : []),
  ...table(
    'train',
    ['tokens/s', 'TFLOP/s', 'of the products’ rate', 'memory', 'peer tokens/s', 'speed'],
    (row) => [
      fixed(row.tokens_per_second, 0),
      fixed(row.flops_per_second / 1e12, 0),
      share(row.flops_per_second, rates.gemm_flops),
      memory(row),
      fixed(peerOf(row)?.tokens_per_second, 0),
      times(1 / row.tokens_per_second, peerOf(row) && 1 / peerOf(row).tokens_per_second),
    ],
  ),
  ...table(
    'decode',
    ['ms a step', 'tokens/s', 'of the roofline', 'memory', 'peer ms a step', 'speed'],
    (row) => [
      fixed(1000 * row.step_seconds, 2),
      fixed(row.tokens_per_second, 0),
      share(row.bytes_a_step / row.step_seconds, rates.copy_bytes),
      memory(row),
      milliseconds(peerOf(row)?.step_seconds),
      times(row.step_seconds, peerOf(row)?.step_seconds),
    ],
  ),
  ...['grpo', 'voting'].flatMap((kind) =>
    table(
      kind,
      ['s a step', 'generation', 'training', 'tokens seen', 'computed', 'memory', 'peer s', 'speed'],
      (row) => [
        fixed(row.seconds, 2),
        fixed(row.generation, 2),
        fixed(row.training, 2),
        row.tokens_seen,
        row.tokens_computed,
        memory(row),
        fixed(peerOf(row)?.seconds, 2),
        times(row.seconds, peerOf(row)?.seconds),
      ],
    ),
  ),
  ...table('observer', ['rows', 'off s', 'by role and slot s', 'cost', 'sketched s'], (row) => [
    row.exact.rows,
    fixed(row.off.seconds, 3),
    fixed(row.exact.seconds, 3),
    observed(row) === undefined
      ? `**not comparable**: off has ${row.off.rows} rows`
      : `${fixed(observed(row))} %`,
    fixed(row.sketch?.seconds, 3),
  ]),
];
console.log(lines.join('\n'));
