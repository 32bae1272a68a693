/**
 * Interventions on the gradient of a policy: slot averaging, damping against a gradient average, role balancing and
 * rates by role. Each role's gradient becomes a combination of all roles' gradients and of the averages, with
 * coefficients that follow from their Gram matrix, so none of them costs a backward pass (docs/gradients.md). Pure
 * functions; which of them a run wants is decided in learning/treatment.ts.
 */
import type { InterventionRequest } from './types.js';

/** Rows: the roles' gradients afterwards. Columns: the roles' gradients before, then the roles' averages. */
export type Combination = number[][];

/** [size, size] row-major, symmetric. */
interface Square {
  size: number;
  values: Float64Array;
}

/** ⟨Σ a_i v_i, Σ b_j v_j⟩ given the Gram matrix of v. */
function product(gram: Square, a: readonly number[], b: readonly number[]): number {
  let sum = 0;
  for (const [i, x] of a.entries()) {
    if (x === 0) continue;
    for (const [j, y] of b.entries()) sum += x * y * (gram.values[i * gram.size + j] ?? 0);
  }
  return sum;
}

const norm = (gram: Square, row: readonly number[]) => Math.sqrt(Math.max(0, product(gram, row, row)));
const scaled = (row: readonly number[], factor: number) => row.map((value) => value * factor);
const plus = (a: readonly number[], b: readonly number[], factor: number) =>
  a.map((value, i) => value + factor * (b[i] ?? 0));

/**
 * The combination that a request asks for. `gram`: of the roles' gradients and then of their averages (zero where
 * there is none yet). In order: slots, damping, balance, rate.
 */
export function combinationOf(gram: Square, request: InterventionRequest): Combination {
  const roles = request.roles.length;
  let rows = request.roles.map(({ slotFactor, damping }, r) => {
    const row = new Array<number>(2 * roles).fill(0);
    row[r] = slotFactor;
    return damped(gram, row, roles + r, damping);
  });
  if (request.balance === 'mass') rows = equalMass(gram, rows);
  if (request.balance === 'conflicts') rows = withoutConflicts(gram, rows, request.order);
  return rows.map((row, r) => scaled(row, request.roles[r]?.rate ?? 1));
}

/** Takes the part `damping` of what points along the average out of a gradient, where both point the same way. */
function damped(gram: Square, row: number[], average: number, damping: number): number[] {
  const along = new Array<number>(gram.size).fill(0);
  along[average] = 1;
  const agreement = product(gram, row, along);
  const square = product(gram, along, along);
  return damping === 0 || agreement <= 0 || square === 0
    ? row
    : plus(row, along, (-damping * agreement) / square);
}

/** Every role gets the mean norm; one without a gradient stays so and does not count. */
function equalMass(gram: Square, rows: number[][]): number[][] {
  const norms = rows.map((row) => norm(gram, row));
  const present = norms.filter((value) => value > 0);
  const mean = present.reduce((sum, value) => sum + value, 0) / present.length;
  return rows.map((row, r) => {
    const its = norms[r] ?? 0;
    return its > 0 ? scaled(row, mean / its) : row;
  });
}

/** PCGrad (Yu et al. 2020): each gradient loses its part along every other that it conflicts with, one by one. */
function withoutConflicts(gram: Square, rows: number[][], order: readonly number[]): number[][] {
  return rows.map((row, r) => {
    let changed = row;
    for (const other of order) {
      const against = rows[other];
      if (other === r || against === undefined) continue;
      const inner = product(gram, changed, against);
      const square = product(gram, against, against);
      if (inner < 0 && square > 0) changed = plus(changed, against, -inner / square);
    }
    return changed;
  });
}

/** Sums the rows and columns of a Gram matrix [from, from] that belong together: index i becomes `into[i]`. */
export function mergeGram(
  values: Float64Array,
  start: number,
  into: readonly number[],
  size: number,
): Square {
  const merged = new Float64Array(size * size);
  const from = into.length;
  for (let i = 0; i < from; i++) {
    for (let j = 0; j < from; j++) {
      const cell = (into[i] ?? 0) * size + (into[j] ?? 0);
      merged[cell] = (merged[cell] ?? 0) + (values[start + i * from + j] ?? 0);
    }
  }
  return { size, values: merged };
}

/** Gram matrix of the roles' gradients afterwards, [roles, roles]. */
export function combinedGram(gram: Square, combination: Combination): number[] {
  return combination.flatMap((a) => combination.map((b) => product(gram, a, b)));
}
