/**
 * Fails if an alarm is missed or cried too soon, if it depends on what comes after it, or if false alarms are
 * counted wrongly. Histories are written as stream tables, as a run writes them.
 */
import { Table } from 'apache-arrow';
import { describe, expect, it } from 'vitest';
import { type AlarmConfig, runSchema } from '../../src/config/schema.js';
import { alarmRates } from '../../src/judgement/alarm-rates.js';
import { crossings, findAlarms, segmentsOf } from '../../src/judgement/alarms.js';
import { History, type Point } from '../../src/judgement/history.js';
import { type Verdict, verdict } from '../../src/judgement/verdict.js';
import { randomStream } from '../../src/learning/random.js';
import { batchOf } from '../../src/streams/batch.js';
import { TABLES, type TableName } from '../../src/streams/tables.js';
import { filled } from '../runs/rows.js';

const words = { roles: ['generator', 'evaluator'], policies: ['shared'] };

function alarmConfig(alarms: object = {}): AlarmConfig {
  const trends = { perplexity: { factor: 2 }, entropy: { factor: 3 }, amplification: { factor: 1.3 } };
  return runSchema.parse({ alarms: { trends, ...alarms } }).alarms;
}
const config = alarmConfig();

type Row = Record<string, string | number | boolean | null>;

/** Rows of a table; columns that are not given are null, 0, "" or the first word. */
function add(history: History, table: TableName, rows: Row[]): void {
  const whole = rows.map((row) => filled(table, row, words));
  history.add(table, new Table([batchOf(TABLES[table], whole, words)]));
}

/** One step of a shared policy of two roles. */
interface Step {
  perplexity?: number;
  /** Mass share of the generator, at least a half. */
  dominance?: number;
  /** The evaluator's readable share, and the generator's. */
  format?: number;
  leaderFormat?: number;
  /** How often the evaluator's pick is right where a random one is in half of the cases. */
  pick?: number;
  /** How much the generator's slots agree. */
  overlap?: number;
  /** Problems of 50 that are right after the step. */
  right?: number;
}

function historyOf(steps: readonly Step[]): History {
  const rows: Partial<Record<TableName, Row[]>> = { roles: [], gradients: [], signals: [], evaluations: [] };
  for (const [step, { perplexity = 2, dominance = 0.6, right, ...texts }] of steps.entries()) {
    const shares = { generator: dominance, evaluator: 1 - dominance };
    const row = { step, policy: 'shared', method: 'exact', scope: 'total', norm: 1 };
    rows.gradients?.push({ ...row, grouping: 'policy', role: null, dominance });
    for (const [role, mass_share] of Object.entries(shares)) {
      rows.roles?.push({ step, role, policy: 'shared', perplexity, kl_k3: 0, entropy: 1 });
      rows.gradients?.push({ ...row, grouping: 'role', role, mass_share });
    }
    rows.signals?.push(...signalRows(step, texts));
    if (right !== undefined) rows.evaluations?.push(...evaluation(step + 1, right));
  }
  const history = new History();
  for (const [table, all] of Object.entries(rows)) {
    if (all.length > 0) add(history, table as TableName, all);
  }
  return history;
}

function signalRows(step: number, { format = 1, leaderFormat = 1, pick = 0.7, overlap = 0.3 }: Step): Row[] {
  return [
    { role: 'evaluator', signal: 'format_share', value: format },
    { role: 'generator', signal: 'format_share', value: leaderFormat },
    { role: 'evaluator', signal: 'pick_right_share', value: pick },
    { role: 'evaluator', signal: 'random_right_share', value: 0.5 },
    { role: 'generator', signal: 'slot_overlap', value: overlap },
  ].map((row) => ({ step, phase: 'train', ...row }));
}

function evaluation(step: number, right: number): Row[] {
  return Array.from({ length: 50 }, (_, i) => {
    const row = { step, sample: 0, reward: 0, reason: '', broken: false, calls: 1, response_tokens: 1 };
    return { ...row, problem: `p${i}`, correct: i < right, answer: null };
  });
}

const points = (...values: number[]): Point[] => values.map((value, step) => ({ step, value }));
const steady = (value: number, length: number) => new Array<number>(length).fill(value);

describe('trends', () => {
  it('begin when the window has moved beyond the threshold, and not while it overlaps the baseline', () => {
    const found = crossings(points(...steady(2, 12), ...steady(6, 8)), 'perplexity', config);
    // Four of five values are 6 when the mean first exceeds twice the baseline: step 14 closes the first window.
    expect(found).toEqual([{ step: 14, value: 4.4, threshold: 4, baseline: 2 }]);
    expect(crossings(points(...steady(2, 10), ...steady(6, 4)), 'perplexity', config)).toEqual([]);
  });

  it('come again only after they have ceased', () => {
    const values = [...steady(2, 10), ...steady(9, 10), ...steady(2, 10), ...steady(9, 10)];
    expect(crossings(points(...values), 'perplexity', config)).toHaveLength(2);
  });

  it('fall as well as rise, and need their level', () => {
    const falling = points(...steady(3, 10), ...steady(0.5, 10));
    expect(crossings(falling, 'entropy', config)).toHaveLength(1);
    expect(crossings(falling, 'perplexity', config)).toEqual([]);
    expect(crossings(points(...steady(1e-4, 10), ...steady(5e-3, 10)), 'kl', config)).toEqual([]);
    expect(crossings(points(...steady(1e-4, 10), ...steady(5e-2, 10)), 'kl', config)).toHaveLength(1);
  });

  it('are silent where the rule is off, in noise, and in no data', () => {
    const values = points(...steady(2, 10), ...steady(6, 10));
    expect(crossings(values, 'perplexity', alarmConfig({ trends: { perplexity: null } }))).toEqual([]);
    expect(crossings([], 'perplexity', config)).toEqual([]);
    const random = randomStream(7);
    const noise = Array.from({ length: 300 }, () =>
      crossings(points(...Array.from({ length: 60 }, () => 1 + 4 * random())), 'amplification', config),
    );
    expect(noise.filter((found) => found.length > 0).length).toBeLessThan(15);
  });
});

const sound: Step[] = Array.from({ length: 40 }, (_, i) => ({
  right: i % 10 === 9 ? 20 + i / 2 : undefined,
})).map(({ right }) => (right === undefined ? {} : { right: Math.round(right) }));
const failing: Step[] = sound.map((step, i) => ({
  ...step,
  ...(i >= 15 ? { perplexity: 9 } : {}),
  ...(i >= 20 ? { dominance: 0.95, format: 0.1 } : {}),
  ...(step.right === undefined || i < 25 ? {} : { right: 3 }),
}));

describe('alarms of a run', () => {
  const history = historyOf(failing);
  const config = alarmConfig({ patience: 1 });
  const all = findAlarms(history, config);

  it('are about mismatch, capture and accuracy, in the order of their steps', () => {
    // Windows of five: two steps at 9 lift the perplexity's mean to 4.8 (step 16, so 17 done), two at 0.1 bring the
    // format's to 0.64; dominance wants 0.9, so all five. Capture waits for the evaluation that has fallen.
    expect(all.map(({ rule, role, policy, step }) => `${step} ${rule} ${role ?? policy ?? 'run'}`)).toEqual([
      '17 perplexity generator',
      '17 perplexity evaluator',
      '22 format evaluator',
      '25 dominance shared',
      '30 accuracy run',
      '30 capture shared',
    ]);
  });

  it('of accuracy wait until it has stayed down for as many evaluations as one has patience for', () => {
    const steps = (patience: number, run = failing) =>
      findAlarms(historyOf(run), alarmConfig({ patience }))
        .filter(({ rule }) => rule === 'accuracy')
        .map(({ step }) => step);
    expect([1, 2, 3].map((patience) => steps(patience))).toEqual([[30], [40], []]);
    const dip = failing.map((step, i) =>
      i > 35 && step.right !== undefined ? { ...step, right: 40 } : step,
    );
    expect([1, 2].map((patience) => steps(patience, dip))).toEqual([[30], []]);
  });

  it('depend on nothing that comes later: as found step by step', () => {
    const live = failing.flatMap((_, i) =>
      findAlarms(historyOf(failing.slice(0, i + 1)), config, { since: 0 }, i + 1),
    );
    const names = (alarms: typeof all) =>
      alarms.map(({ step, rule, role }) => `${step} ${rule} ${role}`).sort();
    expect(names(live)).toEqual(names(all));
  });

  it('make a capture of one that fell, with what changed', () => {
    const found = verdict(history, config);
    expect(found.label).toBe('capture');
    expect(found.captures).toMatchObject([
      {
        ...{ policy: 'shared', role: 'generator' },
        signatures: [{ role: 'evaluator', signal: 'format', before: 1, after: 0.1 }],
      },
    ]);
    expect(found.captures[0]?.massShare).toBeCloseTo(0.95);
    expect(found.trouble).toBe(30);
  });

  it('call a run captured whose lesser role lost its function while accuracy fell, and no other', () => {
    // Windows of two steps, so that picks are compared over twelve.
    const short = alarmConfig({ patience: 1, window: 2 });
    const late = (change: Step, base: readonly Step[] = failing) =>
      verdict(
        historyOf(base.map(({ format: _, ...step }, i) => (i < 20 ? step : { ...step, ...change }))),
        short,
      );
    const signals = (change: Step) => late(change).captures.flatMap(({ signatures }) => signatures);
    expect(signals({ format: 0.1 })).toMatchObject([{ role: 'evaluator', signal: 'format' }]);
    // Picks that are no better than random ones any more; voters who agree more.
    expect(signals({ pick: 0.5 })).toMatchObject([{ role: 'evaluator', signal: 'pick_right', after: 0 }]);
    expect(signals({ pick: 0.55 })).toEqual([]);
    expect(signals({ overlap: 0.9 })).toEqual([]);
    // Where the leading role loses its form too nobody has taken over.
    expect(signals({ leaderFormat: 0.1 })).toEqual([]);
    expect(late({ format: 0.1, leaderFormat: 0.1 })).toMatchObject({ label: 'cliff', captures: [] });
    // A role that is left behind while the others learn.
    const improved = late({ format: 0.1, dominance: 0.95 }, sound);
    expect(improved).toMatchObject({ label: 'improved', captures: [], trouble: null });
    expect(improved.alarms.map(({ rule }) => rule)).not.toContain('capture');
  });

  it('count the prompts that did not continue what was sampled, of all phases', () => {
    const broken = historyOf(sound);
    for (const [phase, value] of [
      ['train', 3],
      ['evaluation', 4],
    ] as const)
      add(broken, 'signals', [{ step: 1, phase, role: null, signal: 'prefix.broken', value }]);
    expect(verdict(broken, config).brokenPrefixes).toBe(7);
    expect(verdict(historyOf(sound), config).brokenPrefixes).toBe(0);
  });

  it('are none in a sound run, in an empty one, and in one that was never evaluated', () => {
    expect(verdict(historyOf(sound), config)).toMatchObject({ label: 'improved', alarms: [], trouble: null });
    expect(verdict(new History(), config)).toMatchObject({ label: null, cliff: null, alarms: [] });
    expect(verdict(historyOf([{}, {}]), config)).toMatchObject({ label: null, alarms: [] });
  });

  it('compare with nothing from before a rollback', () => {
    const rolled = historyOf(failing);
    const alarm = { rule: 'accuracy', role: null, policy: null, value: 0, threshold: 0, baseline: null };
    add(rolled, 'alarms', [{ ...alarm, step: 30, action: 'rollback', restored_step: 20, rate_factor: 0.5 }]);
    expect(segmentsOf(rolled)).toEqual([{ since: 0, until: 30 }, { since: 30 }]);
    expect(findAlarms(rolled, config, { since: 30 })).toEqual([]);
  });
});

describe('false alarms', () => {
  const run = (label: Verdict['label'], trouble: number | null, ...at: number[]): Verdict => ({
    label,
    cliff: null,
    captures: [],
    roles: [],
    brokenPrefixes: 0,
    trouble,
    alarms: at.map((step) => {
      const about = { role: null, policy: 'shared', value: 1, threshold: 1, baseline: 1 };
      return { step, rule: 'gradient_norm' as const, ...about };
    }),
  });

  it('are alarms in runs where nothing went wrong; in the others what counts is the time before', () => {
    const rates = alarmRates([
      run('improved', null),
      run('flat', null, 10, 20),
      run('cliff', 50, 30),
      run('cliff', 50, 40, 60),
      run('cliff', 50, 60),
      run(null, null, 5),
    ]);
    expect(rates.find(({ rule }) => rule === 'gradient_norm')).toEqual({
      rule: 'gradient_norm',
      sound: 2,
      falseAlarms: 1,
      failed: 3,
      warned: 2,
      medianLead: 15,
    });
    expect(alarmRates([])[0]).toMatchObject({ sound: 0, falseAlarms: 0, warned: 0, medianLead: null });
  });
});
