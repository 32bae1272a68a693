/**
 * The whole batches of a stream file, one after another, also while the run writes it. A run that is resumed cuts its
 * streams back to its checkpoint: what it writes differently from there on comes again.
 */
import { createHash } from 'node:crypto';
import { closeSync, existsSync, openSync } from 'node:fs';
import { setTimeout as wait } from 'node:timers/promises';
import { onFile } from '../config/files.js';
import {
  fileSource,
  mayBecomeStream,
  type Source,
  type StreamMessage,
  scanMessages,
} from './stream-messages.js';
import { checkStream } from './stream-reader.js';

/** Ends an Arrow IPC stream that is passed on; the files of a run have none. */
export const END_OF_STREAM = Uint8Array.of(255, 255, 255, 255, 0, 0, 0, 0);

export interface FollowOptions {
  /** Whether the run is being written; where it is not, the stream ends behind its last whole batch. */
  isLive(): boolean;
  signal?: AbortSignal;
  /** Milliseconds between looks at the file. */
  interval?: number;
}

export interface StreamPart {
  /** header: schema and dictionaries, once and first. */
  kind: 'header' | 'batch';
  bytes: Uint8Array;
  /** Rows that came before this batch were written anew from here on. */
  rewound: boolean;
}

interface Sent {
  offset: number;
  bytes: number;
  digest: string;
}

/** Throws a TroupeError if there is no such file, or if it is no stream of Troupe's. */
export async function* followStream(path: string, options: FollowOptions): AsyncGenerator<StreamPart> {
  const { isLive, signal, interval = 200 } = options;
  const sent: Sent[] = [];
  for (;;) {
    // Asked before reading: what a run writes last is not missed.
    const live = isLive() && signal?.aborted !== true;
    if (!live || existsSync(path)) yield* newParts(path, sent, live);
    if (!live) return;
    await wait(interval, undefined, signal === undefined ? {} : { signal }).catch(() => undefined);
  }
}

/** What is there and was not sent, which it adds to `sent`: the header first, then batches. */
function newParts(path: string, sent: Sent[], live: boolean): StreamPart[] {
  const descriptor = onFile(path, () => openSync(path, 'r'));
  try {
    const source = fileSource(descriptor);
    const before = sent.length;
    while (sent.length > 0 && !isThere(source, sent.at(-1) as Sent)) sent.pop();
    let rewound = sent.length < before;
    const parts: StreamPart[] = [];
    if (sent.length === 0) {
      const messages = [...scanMessages(source)].filter(({ kind }) => kind !== 'batch');
      const last = messages.at(-1);
      // A run that has just begun may not have written it.
      if (last === undefined && live && mayBecomeStream(source)) return [];
      checkStream(source, path);
      const bytes = last === undefined ? 0 : last.offset + last.bytes;
      if (before === 0) parts.push({ kind: 'header', bytes: source.read(0, bytes), rewound: false });
      sent.push({ offset: 0, bytes, digest: digestOf(source.read(0, bytes)) });
    }
    const { offset, bytes } = sent.at(-1) as Sent;
    for (const message of scanMessages(source, offset + bytes)) {
      parts.push(take(source, message, sent, rewound));
      rewound = false;
    }
    return parts;
  } finally {
    closeSync(descriptor);
  }
}

function take(source: Source, { offset, bytes }: StreamMessage, sent: Sent[], rewound: boolean): StreamPart {
  const body = source.read(offset, bytes);
  sent.push({ offset, bytes, digest: digestOf(body) });
  return { kind: 'batch', bytes: body, rewound };
}

function isThere(source: Source, { offset, bytes, digest }: Sent): boolean {
  return digestOf(source.read(offset, bytes)) === digest;
}

function digestOf(bytes: Uint8Array): string {
  return createHash('sha1').update(bytes).digest('base64');
}
