/**
 * TensorBoard event files: TFRecord framing around protocol buffers of `Event` (tensorflow/core/util/event.proto,
 * tensorflow/core/framework/summary.proto). Only what a run writes: numbers, histograms, texts.
 */

/** Table of CRC-32C (Castagnoli, reflected polynomial 0x82f63b78). */
const TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte;
  for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1;
  return crc;
});

export function crc32c(bytes: Uint8Array): number {
  let crc = 0xffff_ffff;
  for (const byte of bytes) crc = (TABLE[(crc ^ byte) & 255] ?? 0) ^ (crc >>> 8);
  return ~crc >>> 0;
}

/** As TFRecord stores it, so that a checksum of bytes that hold checksums is no trivial one. */
const masked = (crc: number) => (((crc >>> 15) | (crc << 17)) + 0xa282ead8) >>> 0;

/** Length, its checksum, the data, its checksum; little-endian. */
export function frame(data: Uint8Array): Buffer {
  const framed = Buffer.alloc(data.length + 16);
  framed.writeBigUInt64LE(BigInt(data.length), 0);
  framed.writeUInt32LE(masked(crc32c(framed.subarray(0, 8))), 8);
  framed.set(data, 12);
  framed.writeUInt32LE(masked(crc32c(data)), 12 + data.length);
  return framed;
}

/** The records of a file up to the first that is cut off or damaged. `end`: where the record ends in the file. */
export function* frames(file: Buffer): Generator<{ data: Buffer; end: number }> {
  for (let at = 0; at + 16 <= file.length; ) {
    const length = Number(file.readBigUInt64LE(at));
    const end = at + 16 + length;
    if (file.readUInt32LE(at + 8) !== masked(crc32c(file.subarray(at, at + 8))) || end > file.length) return;
    const data = file.subarray(at + 12, end - 4);
    if (file.readUInt32LE(end - 4) !== masked(crc32c(data))) return;
    yield { data, end };
    at = end;
  }
}

// Protocol buffers: a field is its number and wire type as a varint, then its value.
const VARINT = 0;
const FIXED64 = 1;
const BYTES = 2;
const FIXED32 = 5;

function varint(value: number): Buffer {
  const bytes: number[] = [];
  for (let rest = value; ; rest = Math.floor(rest / 128)) {
    if (rest < 128) return Buffer.from([...bytes, rest]);
    bytes.push((rest % 128) + 128);
  }
}

const tag = (field: number, type: number) => varint(field * 8 + type);
const integer = (field: number, value: number) => Buffer.concat([tag(field, VARINT), varint(value)]);
function double(field: number, value: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeDoubleLE(value);
  return Buffer.concat([tag(field, FIXED64), bytes]);
}
function float(field: number, value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeFloatLE(value);
  return Buffer.concat([tag(field, FIXED32), bytes]);
}
function bytes(field: number, ...parts: Uint8Array[]): Buffer {
  const value = Buffer.concat(parts);
  return Buffer.concat([tag(field, BYTES), varint(value.length), value]);
}
const text = (field: number, value: string) => bytes(field, Buffer.from(value));
const doubles = (field: number, values: readonly number[]) =>
  bytes(field, Buffer.from(Float64Array.from(values).buffer));

/** First event of every file. */
export const versionEvent = (time: number) => Buffer.concat([double(1, time), text(3, 'brain.Event:2')]);

/** Says that a process began at `step`: a TensorBoard that watches drops what it has from there on. */
export const startEvent = (time: number, step: number) =>
  Buffer.concat([double(1, time), integer(2, step), bytes(7, integer(1, 1))]);

/** One value of a summary. */
export type SummaryValue = Buffer;

export function summaryEvent(time: number, step: number, values: readonly SummaryValue[]): Buffer {
  const summary = values.map((value) => bytes(1, value));
  return Buffer.concat([double(1, time), integer(2, step), bytes(5, ...summary)]);
}

export const scalarValue = (name: string, value: number): SummaryValue =>
  Buffer.concat([text(1, name), float(2, value)]);

const BINS = 30;

/** Thirty bins of one width from the least to the largest value; of equal values, one. Without values, none. */
export function histogramValue(name: string, values: readonly number[]): SummaryValue {
  const low = values.reduce((a, b) => Math.min(a, b), Number.POSITIVE_INFINITY);
  const high = values.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
  const bins = high > low ? BINS : 1;
  const limits = Array.from({ length: bins }, (_, i) =>
    i + 1 === bins ? high : low + ((high - low) * (i + 1)) / bins,
  );
  const counts = new Array<number>(bins).fill(0);
  for (const value of values) {
    const bin = high > low ? Math.min(bins - 1, Math.floor(((value - low) / (high - low)) * bins)) : 0;
    counts[bin] = (counts[bin] ?? 0) + 1;
  }
  const histogram = [
    double(1, low),
    double(2, high),
    double(3, values.length),
    double(
      4,
      values.reduce((sum, value) => sum + value, 0),
    ),
    double(
      5,
      values.reduce((sum, value) => sum + value * value, 0),
    ),
    doubles(6, limits),
    doubles(7, counts),
  ];
  return Buffer.concat([text(1, name), bytes(5, ...histogram)]);
}

const DT_STRING = 7;

/** Markdown for TensorBoard's page of texts. */
export function textValue(name: string, markdown: string): SummaryValue {
  const metadata = bytes(9, bytes(1, text(1, 'text')));
  const shape = bytes(2, bytes(2, integer(1, 1)));
  const tensor = bytes(8, integer(1, DT_STRING), shape, text(8, markdown));
  return Buffer.concat([text(1, name), tensor, metadata]);
}

/** Step of an event, and the names of its values. Nothing of other fields, which no run writes. */
export function readEvent(event: Buffer): { step: number; names: string[] } {
  let step = 0;
  const names: string[] = [];
  for (const { field, value, number } of fieldsOf(event)) {
    if (field === 2) step = number;
    if (field !== 5) continue;
    for (const one of fieldsOf(value)) {
      const name = [...fieldsOf(one.value)].find((part) => part.field === 1);
      if (name !== undefined) names.push(name.value.toString());
    }
  }
  return { step, names };
}

function* fieldsOf(message: Buffer): Generator<{ field: number; value: Buffer; number: number }> {
  let at = 0;
  const next = () => {
    let value = 0;
    for (let scale = 1; at < message.length; scale *= 128) {
      const byte = message[at++] ?? 0;
      value += (byte % 128) * scale;
      if (byte < 128) break;
    }
    return value;
  };
  while (at < message.length) {
    const key = next();
    const type = key % 8;
    let number = 0;
    let length = 0;
    if (type === VARINT) number = next();
    else length = type === FIXED64 ? 8 : type === FIXED32 ? 4 : next();
    yield { field: Math.floor(key / 8), value: message.subarray(at, at + length), number };
    at += length;
  }
}
