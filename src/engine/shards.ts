/**
 * Writes a model's tensors as Hugging Face's tools do: model.safetensors, or where that would be too large, numbered
 * shards with an index. A shard is written when it is full, so that no more than one is held in memory.
 */
import { renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { checkSection } from '../config/check.js';
import { readJson } from '../config/json.js';
import { saveSafetensors } from './safetensors.js';
import type { Tensor } from './tensor.js';

export const SINGLE = 'model.safetensors';
export const INDEX = 'model.safetensors.index.json';

const indexSchema = z.looseObject({ weight_map: z.record(z.string(), z.string()) });

/** The file of each tensor of a folder with an index. */
export function readIndex(folder: string): Record<string, string> {
  const index = join(folder, INDEX);
  return checkSection(indexSchema, readJson(index), { locate: () => index }).weight_map;
}

export type SavedDtype = 'float32' | 'bfloat16';
const BYTES: Record<string, number> = { float32: 4, bfloat16: 2 };

/** Bytes of one shard at most, as Hugging Face's tools write them. */
const SHARD_BYTES = 5e9;

export class ShardWriter {
  readonly #folder: string;
  readonly #single: string;
  readonly #shardBytes: number;
  readonly #shards: string[][] = [];
  #pending: Record<string, Tensor> = {};
  #pendingBytes = 0;
  #totalBytes = 0;

  /** `single`: name of the file if there is but one. */
  constructor(folder: string, single: string = SINGLE, shardBytes: number = SHARD_BYTES) {
    this.#folder = folder;
    this.#single = single;
    this.#shardBytes = shardBytes;
  }

  /** Takes the tensor over: it is disposed when its shard is written. */
  add(name: string, tensor: Tensor): void {
    const bytes = tensor.shape.reduce((product, size) => product * size, 1) * (BYTES[tensor.dtype] ?? 8);
    if (this.#pendingBytes > 0 && this.#pendingBytes + bytes > this.#shardBytes) this.#flush();
    this.#pending[name] = tensor;
    this.#pendingBytes += bytes;
    this.#totalBytes += bytes;
  }

  /** Writes what was added since the last shard. */
  #flush(): void {
    const names = Object.keys(this.#pending);
    if (names.length === 0) return;
    const tensors = names.map((name) => [name, (this.#pending[name] as Tensor).native] as const);
    const file = this.#temporaryName(this.#shards.length);
    saveSafetensors(join(this.#folder, file), Object.fromEntries(tensors), { format: 'pt' });
    for (const tensor of Object.values(this.#pending)) tensor.dispose();
    this.#shards.push(names);
    this.#pending = {};
    this.#pendingBytes = 0;
  }

  /** The files get their names, which say how many there are. */
  finish(): void {
    this.#flush();
    const total = this.#shards.length;
    const number = (n: number) => String(n).padStart(5, '0');
    const weightMap: Record<string, string> = {};
    for (const [i, names] of this.#shards.entries()) {
      const file = total === 1 ? this.#single : `model-${number(i + 1)}-of-${number(total)}.safetensors`;
      renameSync(join(this.#folder, this.#temporaryName(i)), join(this.#folder, file));
      for (const name of names) weightMap[name] = file;
    }
    if (total === 1) return;
    const index = { metadata: { total_size: this.#totalBytes }, weight_map: weightMap };
    writeFileSync(join(this.#folder, INDEX), `${JSON.stringify(index, null, 2)}\n`);
  }

  #temporaryName(shard: number): string {
    return `shard-${shard}.safetensors`;
  }
}
