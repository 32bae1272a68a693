/** Where the messages of a stream file begin and end, without Arrow: the file may still grow, or a crash has cut it anywhere. */
import { fstatSync } from 'node:fs';
import { readAll } from '../config/files.js';
import { DamagedMessage, type MessageMetadata, messageMetadata } from './arrow-messages.js';

/** Bytes that can be read anywhere. */
export interface Source {
  size: number;
  /** May return fewer bytes at the end. */
  read(offset: number, length: number): Uint8Array;
}

export interface StreamMessage {
  kind: MessageMetadata['kind'];
  metadata: MessageMetadata;
  /** From the start of the source, bytes. */
  offset: number;
  /** Prefix, header, padding and body together. */
  bytes: number;
}

/** Marks the start of a message in Arrow's encapsulated format. */
const CONTINUATION = 0xffffffff;
const PREFIX = 8;
/** Longest message header that is believed; ours have a few kilobytes. */
const LONGEST_HEADER = 2 ** 20;

export function bytesSource(bytes: Uint8Array): Source {
  return { size: bytes.length, read: (offset, length) => bytes.subarray(offset, offset + length) };
}

export function fileSource(descriptor: number): Source {
  return {
    size: fstatSync(descriptor).size,
    read: (offset, length) => readAll(descriptor, length, offset),
  };
}

/** Whether a source without a whole message is empty or begins as one does: it may be being written. */
export function mayBecomeStream(source: Source): boolean {
  const start = source.read(0, 4);
  return start.every((byte) => byte === 0xff);
}

/** The whole messages from `offset` on; ends before the first one that is cut, broken or an end mark. */
export function* scanMessages(source: Source, offset = 0): Generator<StreamMessage> {
  for (let at = offset; ; ) {
    const message = messageAt(source, at);
    if (message === undefined || at + message.bytes > source.size) return;
    yield message;
    at += message.bytes;
  }
}

function messageAt(source: Source, offset: number): StreamMessage | undefined {
  const prefix = source.read(offset, PREFIX);
  if (prefix.length < PREFIX) return undefined;
  const view = new DataView(prefix.buffer, prefix.byteOffset, PREFIX);
  const length = view.getInt32(4, true);
  if (view.getUint32(0, true) !== CONTINUATION || length <= 0 || length > LONGEST_HEADER) return undefined;
  const header = source.read(offset + PREFIX, length);
  if (header.length < length) return undefined;
  const metadata = decode(header);
  if (metadata === undefined) return undefined;
  return { kind: metadata.kind, metadata, offset, bytes: PREFIX + length + metadata.bodyLength };
}

/** A crash may leave any bytes at the end of a file. */
function decode(header: Uint8Array): MessageMetadata | undefined {
  try {
    return messageMetadata(header);
  } catch (error) {
    if (error instanceof DamagedMessage) return undefined;
    throw error;
  }
}
