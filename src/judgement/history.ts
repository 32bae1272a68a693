/**
 * What a run has measured so far, as series over its steps: the part of the streams that cliffs, capture and
 * alarms are found in. It is filled from stream tables only, as they are written or from the files later, so
 * that a resumed run and an analysis afterwards see what the running one saw.
 */
import type { Table } from 'apache-arrow';
import type { TableName } from '../streams/tables.js';

export interface Point {
  step: number;
  value: number;
}

/** One evaluation: outcomes by problem, each the list of its samples. */
export interface EvaluationPoint {
  /** Steps that the parameters had been trained for. */
  step: number;
  correct: Map<string, boolean[]>;
}

interface MeasureSpec {
  table: TableName;
  column: string;
  /** Columns that say whom a series is about: a role, a policy, or two roles ("a × b"). */
  subject: 'role' | 'policy' | readonly ['role_a', 'role_b'];
  /** Rows that count: these columns have these values. */
  where: Readonly<Record<string, string | number | null>>;
}

const byRole = { grouping: 'role', scope: 'total' };
const whole = { grouping: 'policy', scope: 'total' };
function rolePair(column: string): MeasureSpec {
  return { table: 'gradient_pairs', column, subject: ['role_a', 'role_b'], where: byRole };
}
const role = (column: string): MeasureSpec => ({ table: 'roles', column, subject: 'role', where: {} });
const signature = (signal: string): MeasureSpec => {
  return { table: 'signals', column: 'value', subject: 'role', where: { phase: 'train', signal } };
};

/** Series by name. Several values of one step (several updates) are averaged. */
export const MEASURES = {
  kl: role('kl_k3'),
  perplexity: role('perplexity'),
  entropy: role('entropy'),
  gradient_norm: { table: 'updates', column: 'gradient_norm', subject: 'policy', where: {} },
  amplification: { table: 'gradients', column: 'amplification', subject: 'role', where: byRole },
  coherence: { table: 'gradients', column: 'coherence', subject: 'policy', where: whole },
  dominance: { table: 'gradients', column: 'dominance', subject: 'policy', where: whole },
  mass_share: { table: 'gradients', column: 'mass_share', subject: 'role', where: byRole },
  role_norm: { table: 'gradients', column: 'norm', subject: 'role', where: byRole },
  projection_share: { table: 'gradients', column: 'projection_share', subject: 'role', where: byRole },
  optimizer_share: { table: 'gradients', column: 'optimizer_share', subject: 'role', where: byRole },
  applied_share: { table: 'gradients', column: 'applied_share', subject: 'role', where: byRole },
  role_cosine: rolePair('cosine'),
  split_half: { table: 'gradients', column: 'split_half', subject: 'role', where: byRole },
  corrected_cosine: rolePair('corrected_cosine'),
  corrected_low: rolePair('corrected_low'),
  corrected_high: rolePair('corrected_high'),
  effective_roles: { table: 'gradients', column: 'effective_roles', subject: 'policy', where: whole },
  format: signature('format_share'),
  pick_right: signature('pick_right_share'),
  random_right: signature('random_right_share'),
  code: signature('code_share'),
  terse: signature('terse_share'),
  truncation: signature('truncated_share'),
  overlap: signature('slot_overlap'),
  length: signature('length_drift'),
} satisfies Record<string, MeasureSpec>;
/** A series that a run's streams give. */
export type Measure = keyof typeof MEASURES;

const TABLES_READ = new Set<TableName>([
  'roles',
  'updates',
  'gradients',
  'gradient_pairs',
  'signals',
  'evaluations',
  'greedy_evaluations',
  'alarms',
]);

/** Series by measure and subject. */
export interface Measurements {
  /** Roles or policies that a measure has values of, in the order of their first one. */
  subjects(measure: Measure): string[];
  /** Values of a measure, one for each step that has one. */
  series(measure: Measure, subject: string): Point[];
}

/** The part of some series from step `from` on and before step `to`. */
export function between(all: Measurements, from: number, to = Number.POSITIVE_INFINITY): Measurements {
  return {
    subjects: (measure) => all.subjects(measure),
    series: (measure, subject) => {
      return all.series(measure, subject).filter(({ step }) => step >= from && step < to);
    },
  };
}

interface Sum {
  step: number;
  sum: number;
  count: number;
}

export class History implements Measurements {
  readonly #series = new Map<Measure, Map<string, Sum[]>>();
  readonly #evaluations: EvaluationPoint[] = [];
  readonly #greedy: EvaluationPoint[] = [];
  readonly #rollbacks: number[] = [];
  readonly #rolesOf = new Map<string, string[]>();
  readonly #firstLengths = new Map<string, number>();
  #lastStep: number | undefined;
  #brokenPrefixes = 0;

  /** Whether it has use for a table. */
  static reads(name: TableName): boolean {
    return TABLES_READ.has(name);
  }

  /** Takes rows of a table of the streams, in the order of the stream; tables that it has no use for are ignored. */
  add(name: TableName, table: Table): void {
    if (!History.reads(name) || table.numRows === 0) return;
    if (name === 'evaluations') this.#addEvaluations(table, this.#evaluations);
    if (name === 'greedy_evaluations') this.#addEvaluations(table, this.#greedy);
    if (name === 'roles') this.#addRoles(table);
    if (name === 'alarms') this.#addRollbacks(table);
    if (name === 'signals') {
      this.#addLengths(table);
      this.#addBrokenPrefixes(table);
    }
    for (const [measure, spec] of Object.entries(MEASURES) as [Measure, MeasureSpec][]) {
      if (spec.table === name) this.#addSeries(measure, spec, table);
    }
  }

  /** The last step that has rows; undefined in a run without one. */
  get lastStep(): number | undefined {
    return this.#lastStep;
  }

  /** Prompts, of training and evaluations, that did not continue what was sampled: the chat template changed it. */
  get brokenPrefixes(): number {
    return this.#brokenPrefixes;
  }

  /** The roles that each policy plays. */
  get rolesOf(): ReadonlyMap<string, readonly string[]> {
    return this.#rolesOf;
  }

  /** Steps that were done when the run was rolled back, each once. */
  get rollbacks(): readonly number[] {
    return this.#rollbacks;
  }

  /** Sampled ones: those that cliffs, labels and alarms are about. */
  get evaluations(): readonly EvaluationPoint[] {
    return this.#evaluations;
  }

  /** The same at temperature 0, where they were made. */
  get greedyEvaluations(): readonly EvaluationPoint[] {
    return this.#greedy;
  }

  subjects(measure: Measure): string[] {
    return [...(this.#series.get(measure)?.keys() ?? [])];
  }

  series(measure: Measure, subject: string): Point[] {
    const sums = this.#series.get(measure)?.get(subject) ?? [];
    return sums.map(({ step, sum, count }) => ({ step, value: sum / count }));
  }

  /** The first mean response length of a role, of training or of evaluations. */
  firstLength(phase: 'train' | 'evaluation', role: string): number | undefined {
    return this.#firstLengths.get(`${phase} ${role}`);
  }

  #addSeries(measure: Measure, spec: MeasureSpec, table: Table): void {
    const series = this.#series.get(measure) ?? new Map<string, Sum[]>();
    this.#series.set(measure, series);
    const conditions = Object.entries(spec.where).map(([column, value]) => {
      return { values: table.getChild(column), value };
    });
    const steps = table.getChild('step');
    const subjects = [spec.subject].flat().map((column) => table.getChild(column));
    const values = table.getChild(spec.column);
    for (let row = 0, rows = table.numRows; row < rows; row++) {
      if (conditions.some(({ values: column, value }) => column?.get(row) !== value)) continue;
      const value: unknown = values?.get(row);
      const names = subjects.map((column): unknown => column?.get(row));
      if (typeof value !== 'number' || !Number.isFinite(value) || names.includes(null)) continue;
      // A role beside itself says nothing.
      if (new Set(names).size === names.length)
        addValue(series, names.join(' × '), Number(steps?.get(row)), value);
    }
  }

  #addRoles(table: Table): void {
    const [steps, roles, policies] = ['step', 'role', 'policy'].map((column) => table.getChild(column));
    for (let row = 0, rows = table.numRows; row < rows; row++) {
      this.#lastStep = Number(steps?.get(row));
      const policy = String(policies?.get(row));
      const role = String(roles?.get(row));
      const known = this.#rolesOf.get(policy) ?? [];
      if (!known.includes(role)) this.#rolesOf.set(policy, [...known, role]);
    }
  }

  #addRollbacks(table: Table): void {
    const [steps, actions] = ['step', 'action'].map((column) => table.getChild(column));
    for (let row = 0, rows = table.numRows; row < rows; row++) {
      const step = Number(steps?.get(row));
      if (actions?.get(row) === 'rollback' && this.#rollbacks.at(-1) !== step) this.#rollbacks.push(step);
    }
  }

  #addLengths(table: Table): void {
    const [phases, roles, names, values] = ['phase', 'role', 'signal', 'value'].map((column) =>
      table.getChild(column),
    );
    for (let row = 0, rows = table.numRows; row < rows; row++) {
      if (names?.get(row) !== 'length_mean') continue;
      const value: unknown = values?.get(row);
      const key = `${phases?.get(row)} ${roles?.get(row)}`;
      if (typeof value === 'number' && !this.#firstLengths.has(key)) this.#firstLengths.set(key, value);
    }
  }

  #addBrokenPrefixes(table: Table): void {
    const [names, values] = ['signal', 'value'].map((column) => table.getChild(column));
    for (let row = 0, rows = table.numRows; row < rows; row++) {
      if (names?.get(row) === 'prefix.broken') this.#brokenPrefixes += Number(values?.get(row));
    }
  }

  #addEvaluations(table: Table, points: EvaluationPoint[]): void {
    const [steps, problems, outcomes] = ['step', 'problem', 'correct'].map((column) =>
      table.getChild(column),
    );
    for (let row = 0, rows = table.numRows; row < rows; row++) {
      const step = Number(steps?.get(row));
      let point = points.at(-1);
      if (point?.step !== step) {
        point = { step, correct: new Map() };
        points.push(point);
      }
      const problem = String(problems?.get(row));
      point.correct.set(problem, [...(point.correct.get(problem) ?? []), outcomes?.get(row) === true]);
    }
  }
}

function addValue(series: Map<string, Sum[]>, subject: string, step: number, value: number): void {
  const points = series.get(subject) ?? [];
  series.set(subject, points);
  const last = points.at(-1);
  if (last?.step === step) {
    last.sum += value;
    last.count += 1;
  } else points.push({ step, sum: value, count: 1 });
}
