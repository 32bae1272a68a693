/** What packing makes of a micro-batch's calls, in numbers. */
import { native } from '../../engine/native.js';
import type { PackCall } from '../../engine/native-model.js';

export interface Rows {
  rows: number;
  /** Keys that the rows meet in attention: each its own position and those before it. */
  keys: number;
  /** Trees, and blocks of up to 64 positions that a CPU's attention cuts their unbranched runs into. */
  trees: number;
  blocks: number;
}

/** Positions of a block (native/kernels/cpu/attention.h). */
export const BLOCK = 64;

/** Levels of prefix trees (Kernels::tree_levels in native/kernels): any number on a CPU, on a GPU two. */
export const CPU_LEVELS = 0;
export const GPU_LEVELS = 2;

/** Of a batch whose groups share nothing with each other. */
export function treeRows(calls: readonly PackCall[], levels: number): Rows {
  const groups = 1 + Math.max(0, ...calls.map(({ group }) => group));
  const batch = native().pack([...calls], groups, true, levels);
  try {
    const { rows, keys, trees, nodeRows } = batch;
    return { rows, keys, trees, blocks: nodeRows.reduce((sum, own) => sum + Math.ceil(own / BLOCK), 0) };
  } finally {
    batch.dispose();
  }
}
