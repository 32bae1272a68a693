/** A part of a planned step: its time and what takes it. */

export type Bound = 'products' | 'memory' | 'attention' | 'launches' | 'links';

export interface PhasePlan {
  name: string;
  seconds: number;
  /** What takes most of it; measured: the whole was. */
  bound: Bound | 'measured';
  /** Seconds by what they are for; launches where kernels are shorter than the gap between two. Not of measured ones. */
  parts?: Record<Bound, number>;
}
