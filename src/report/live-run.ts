/** A run that is being written, kept up to date as batches land. */
import { setMaxListeners } from 'node:events';
import { setTimeout as wait } from 'node:timers/promises';
import { followStream } from '../streams/follow.js';
import { streamPath, TABLE_NAMES } from '../streams/stream-files.js';
import { decodeTable } from '../streams/stream-reader.js';
import type { TableName } from '../streams/tables.js';
import { RunData } from './run-data.js';

/** Milliseconds that changes are gathered before they are told: the tables of a step come one after another. */
const GATHER = 300;

export class LiveRun {
  readonly #folder: string;
  readonly #stop = new AbortController();
  readonly #onChange: () => void;
  #data: RunData;
  #told = false;
  /** Rejects if a stream cannot be read; resolves when it is closed. */
  readonly ended: Promise<void>;

  /** `onChange` is called after rows have come. Throws a TroupeError if the folder is no run. */
  constructor(folder: string, onChange: () => void) {
    this.#folder = folder;
    this.#onChange = onChange;
    this.#data = new RunData(folder);
    this.ended = this.#follow();
  }

  /** What has been read so far. */
  get data(): RunData {
    return this.#data;
  }

  async close(): Promise<void> {
    this.#stop.abort();
    await this.ended.catch(() => undefined);
  }

  /** A run that is resumed writes steps anew: then all is read again. */
  async #follow(): Promise<void> {
    while (!this.#stop.signal.aborted) {
      const again = new AbortController();
      const signal = AbortSignal.any([this.#stop.signal, again.signal]);
      // Every follower listens to it; Node takes more than ten for a leak.
      setMaxListeners(0, signal);
      const followers = TABLE_NAMES.map((table) => this.#followTable(table, signal, () => again.abort()));
      try {
        await Promise.all(followers);
      } finally {
        again.abort();
        await Promise.allSettled(followers);
      }
      if (!this.#stop.signal.aborted) this.#data = new RunData(this.#folder);
    }
  }

  async #followTable(table: TableName, signal: AbortSignal, restart: () => void): Promise<void> {
    let header: Uint8Array = new Uint8Array(0);
    const data = this.#data;
    const path = streamPath(this.#folder, table);
    const parts = followStream(path, {
      isLive: () => !signal.aborted,
      signal,
      interval: 500,
    });
    try {
      for await (const { kind, bytes, rewound } of parts) {
        if (signal.aborted) return;
        if (rewound) return restart();
        if (kind === 'header') header = bytes;
        else data.add(table, decodeTable(Buffer.concat([header, bytes]), path));
        void this.#tell();
      }
    } catch (error) {
      // Without a run that writes them, streams need not be there.
      if (!signal.aborted) throw error;
    }
  }

  async #tell(): Promise<void> {
    if (this.#told) return;
    this.#told = true;
    await wait(GATHER, undefined, { ref: false });
    this.#told = false;
    if (!this.#stop.signal.aborted) this.#onChange();
  }
}
