/**
 * A policy's training state on disk: master weights, the optimizer's moments and averages, whole and exact to the bit,
 * whatever number of ranks wrote it. Rank 0 writes and reads the file; its parts come from and go to all ranks, piece by
 * piece. Which tensors there are, and what becomes of them, is in policy-state.ts.
 */
import { TroupeError } from '../config/errors.js';
import { type NativeSafetensors, type NativeSafetensorsWriter, native } from './native.js';
import type { DType } from './native-model.js';
import { forPeople, openSafetensors } from './safetensors.js';
import type { Range, Sharding } from './sharding.js';
import { Tensor } from './tensor.js';

/** One tensor of the state. */
export interface StatePart {
  /** What of the whole vector it is; undefined: a scalar, the same on all ranks. */
  range: Range | undefined;
  tensor: Tensor;
}

const STEPS = 'optimizer_steps';

/** A collective. Nothing is left of a file that could not be written whole. */
export function writeState(
  file: string,
  sharding: Sharding,
  parts: ReadonlyMap<string, StatePart>,
  steps: number,
): void {
  const { group } = sharding;
  const entries = [...parts].map(([name, { range, tensor }]) => {
    return { name, dtype: tensor.dtype, shape: range === undefined ? [] : [range.to - range.from] };
  });
  // Larger elements first: then every tensor is aligned to its element size.
  entries.sort((a, b) => bytesOf(b.dtype) - bytesOf(a.dtype));
  let writer: NativeSafetensorsWriter | undefined;
  group.fromFirst(file, () => {
    const metadata = { [STEPS]: String(steps) };
    writer = forPeople(file, () => native().createSafetensors(file, entries, metadata));
  });
  // A disk that is full now is heard of when all have sent what they have.
  let failure: unknown;
  const write = (piece: Tensor) => {
    if (failure !== undefined) return;
    try {
      forPeople(file, () => writer?.write(piece.native));
    } catch (error) {
      failure = error;
    }
  };
  try {
    for (const { name } of entries) {
      const { range, tensor } = parts.get(name) as StatePart;
      if (range === undefined) write(tensor);
      else sharding.forPieces(name, range, tensor, write);
    }
    group.fromFirst(file, () => {
      if (failure !== undefined) throw failure;
      forPeople(file, () => writer?.finish());
    });
  } finally {
    writer?.dispose();
  }
}

const bytesOf = (dtype: DType) => (dtype === 'float64' ? 8 : 4);

/** The tensors of a file, as all ranks know them. */
export interface StateHeader {
  tensors: { name: string; shape: number[] }[];
  steps: number;
}

export interface ReadableState extends StateHeader {
  /** This rank's part of a tensor. A collective. */
  read(name: string, range: Range | undefined, like: Tensor): Tensor;
}

/** Gives `use` what `writeState` wrote, on all ranks; only rank 0 needs the file. `check`: what does not fit throws. */
export function readState(
  file: string,
  sharding: Sharding,
  check: (header: StateHeader) => void,
  use: (state: ReadableState) => void,
): void {
  let saved: NativeSafetensors | undefined;
  try {
    const header = sharding.group.fromFirst(file, () => {
      saved = openSafetensors(file);
      const found = headerOf(saved, file);
      check(found);
      return found;
    });
    const read = (name: string, range: Range | undefined, like: Tensor) => {
      const source = saved && Tensor.wrap(saved.tensor(name));
      if (range !== undefined) return sharding.scattered(name, range, source, like);
      const scalar = source ?? Tensor.zeros([], { dtype: 'float32' });
      sharding.group.broadcast(name, [scalar]);
      return scalar;
    };
    use({ ...header, read });
  } finally {
    saved?.dispose();
  }
}

function headerOf(saved: NativeSafetensors, file: string): StateHeader {
  const steps = Number(saved.metadata[STEPS] ?? 0);
  if (!saved.names.includes('master') || !Number.isInteger(steps) || steps < 0) {
    throw new TroupeError('is no training state of a policy.', { where: file });
  }
  return { tensors: saved.names.map((name) => ({ name, shape: saved.info(name).shape })), steps };
}
