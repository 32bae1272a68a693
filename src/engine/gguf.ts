/**
 * Reads GGUF files (versions 2 and 3): metadata, and tensors in F32, F16, BF16, Q8_0, Q4_0 and Q4_1, dequantised
 * to fp32. A file from anywhere is hostile input: every length is checked against the file's size.
 * Layout: ggml's docs/gguf.md; block formats: ggml-common.h.
 */
import { closeSync, fstatSync, openSync } from 'node:fs';
import { shown } from '../config/check.js';
import { TroupeError } from '../config/errors.js';
import { readAll, readError } from '../config/files.js';

export type GgufValue = number | bigint | boolean | string | GgufValue[];

export interface GgufTensor {
  name: string;
  /** Row-major, slowest dimension first, as PyTorch writes it. */
  shape: number[];
  type: string;
  /** Bytes from the start of the file. */
  offset: number;
  bytes: number;
  elements: number;
}

/** Bytes and elements of one block. */
const TYPES: Record<number, { name: string; bytes: number; elements: number }> = {
  0: { name: 'F32', bytes: 4, elements: 1 },
  1: { name: 'F16', bytes: 2, elements: 1 },
  2: { name: 'Q4_0', bytes: 18, elements: 32 },
  3: { name: 'Q4_1', bytes: 20, elements: 32 },
  8: { name: 'Q8_0', bytes: 34, elements: 32 },
  30: { name: 'BF16', bytes: 2, elements: 1 },
};

const MAGIC = 0x46554747; // "GGUF"
/** Metadata (the vocabulary, mostly) is read at once up to here. */
const LARGEST_HEADER = 512 * 2 ** 20;
const DEEPEST_ARRAY = 4;
/** Values, elements of arrays and tensors together. The largest vocabularies have less than a million tokens and merges. */
const MOST_THINGS = 2 ** 24;

export class GgufFile {
  readonly path: string;
  readonly metadata: ReadonlyMap<string, GgufValue>;
  readonly tensors: readonly GgufTensor[];
  readonly #descriptor: number;

  constructor(path: string) {
    this.path = path;
    try {
      this.#descriptor = openSync(path, 'r');
    } catch (cause) {
      throw readError(cause, path);
    }
    try {
      const size = fstatSync(this.#descriptor).size;
      const header = readAll(this.#descriptor, Math.min(size, LARGEST_HEADER), 0);
      const { metadata, tensors } = new HeaderReader(header, path, size).read();
      this.metadata = metadata;
      this.tensors = tensors;
    } catch (error) {
      this.close();
      throw (error as NodeJS.ErrnoException).code === undefined ? error : readError(error, path);
    }
  }

  /** Values of a tensor in fp32, [elements]. */
  read(tensor: GgufTensor): Float32Array {
    const bytes = readAll(this.#descriptor, tensor.bytes, tensor.offset);
    if (bytes.length < tensor.bytes) {
      throw new TroupeError(`was cut short: ${shown(tensor.name)} ends beyond it.`, { where: this.path });
    }
    return dequantise(bytes, tensor.type, tensor.elements);
  }

  close(): void {
    closeSync(this.#descriptor);
  }
}

class HeaderReader {
  readonly #data: Buffer;
  readonly #path: string;
  readonly #fileSize: number;
  #position = 0;
  #things = 0;

  constructor(data: Buffer, path: string, fileSize: number) {
    this.#data = data;
    this.#path = path;
    this.#fileSize = fileSize;
  }

  read() {
    if (this.#take(4).readUInt32LE() !== MAGIC) throw this.#error('is no GGUF file.');
    const version = this.#uint32();
    if (version !== 2 && version !== 3)
      throw this.#error(`has GGUF version ${version}; 2 and 3 can be read.`);
    const tensorCount = this.#countOfThings();
    const valueCount = this.#countOfThings();
    const metadata = new Map<string, GgufValue>();
    for (let i = 0; i < valueCount; i++) {
      const key = this.#string();
      metadata.set(key, this.#value(this.#uint32(), 0));
    }
    const infos = Array.from({ length: tensorCount }, () => this.#tensorInfo());
    const alignment = Number(metadata.get('general.alignment') ?? 32);
    if (!(alignment > 0)) throw this.#error(`has an alignment of ${alignment}.`);
    const start = Math.ceil(this.#position / alignment) * alignment;
    const tensors = infos.map((info) => ({ ...info, offset: start + info.offset }));
    for (const { name, offset, bytes } of tensors) {
      if (offset + bytes > this.#fileSize) throw this.#error(`is cut: ${shown(name)} ends beyond the file.`);
    }
    return { metadata, tensors };
  }

  #tensorInfo(): GgufTensor {
    const name = this.#string();
    const dimensions = this.#uint32();
    if (dimensions > 4) throw this.#error(`gives ${shown(name)} ${dimensions} dimensions; 4 is the most.`);
    const shape = Array.from({ length: dimensions }, () => this.#count(2 ** 40)).reverse();
    const code = this.#uint32();
    const type = TYPES[code];
    if (type === undefined) {
      const known = Object.values(TYPES).map((one) => one.name);
      throw this.#error(`stores ${shown(name)} in ggml type ${code}; ${known.join(', ')} can be read.`);
    }
    const elements = shape.reduce((product, size) => product * size, 1);
    if (!Number.isSafeInteger(elements) || (shape.at(-1) ?? 1) % type.elements !== 0) {
      throw this.#error(`gives ${shown(name)} the shape [${shape}], which ${type.name} does not divide.`);
    }
    const bytes = (elements / type.elements) * type.bytes;
    return { name, shape, type: type.name, offset: Number(this.#take(8).readBigUInt64LE()), bytes, elements };
  }

  #value(type: number, depth: number): GgufValue {
    switch (type) {
      case 0:
        return this.#take(1).readUInt8();
      case 1:
        return this.#take(1).readInt8();
      case 2:
        return this.#take(2).readUInt16LE();
      case 3:
        return this.#take(2).readInt16LE();
      case 4:
        return this.#uint32();
      case 5:
        return this.#take(4).readInt32LE();
      case 6:
        return this.#take(4).readFloatLE();
      case 7:
        return this.#take(1).readUInt8() !== 0;
      case 8:
        return this.#string();
      case 9: {
        if (depth >= DEEPEST_ARRAY) throw this.#error('nests arrays too deeply.');
        const element = this.#uint32();
        return Array.from({ length: this.#countOfThings() }, () => this.#value(element, depth + 1));
      }
      case 10:
        return this.#take(8).readBigUInt64LE();
      case 11:
        return this.#take(8).readBigInt64LE();
      case 12:
        return this.#take(8).readDoubleLE();
      default:
        throw this.#error(`has a value of unknown type ${type}.`);
    }
  }

  #string(): string {
    return this.#take(this.#count()).toString('utf8');
  }

  /** A count of things of at least one byte each, so it cannot exceed what is left; or up to `limit`. */
  #count(limit = this.#data.length - this.#position): number {
    const value = this.#take(8).readBigUInt64LE();
    if (value > BigInt(limit))
      throw this.#error(`is damaged: a length of ${value} at byte ${this.#position}.`);
    return Number(value);
  }

  /** Of what takes more memory here than in the file. */
  #countOfThings(): number {
    const count = this.#count();
    this.#things += count;
    if (this.#things > MOST_THINGS) throw this.#error(`holds more than ${MOST_THINGS} values and tensors.`);
    return count;
  }

  #uint32(): number {
    return this.#take(4).readUInt32LE();
  }

  #take(bytes: number): Buffer {
    if (this.#position + bytes > this.#data.length) throw this.#error('is cut: its header is not whole.');
    this.#position += bytes;
    return this.#data.subarray(this.#position - bytes, this.#position);
  }

  #error(message: string): TroupeError {
    return new TroupeError(message, { where: this.#path });
  }
}

/** IEEE half precision to a number. */
export function halfToNumber(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 0x1f;
  const fraction = bits & 0x3ff;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

/** Every half-precision number, by its bits: made once, as a block has one or two of them. */
let halves: Float32Array | undefined;

function halfTable(): Float32Array {
  halves ??= Float32Array.from({ length: 65_536 }, (_, bits) => halfToNumber(bits));
  return halves;
}

const QUANTISED = 32;

/**
 * fp32 values of `elements` elements of a ggml type, as ggml rounds them. The loops are plain, without calls: a
 * model has hundreds of millions of elements.
 */
function dequantise(bytes: Buffer, type: string, elements: number): Float32Array {
  const values = new Float32Array(elements);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  switch (type) {
    case 'F32':
      for (let i = 0; i < elements; i++) values[i] = view.getFloat32(4 * i, true);
      return values;
    case 'F16': {
      const half = halfTable();
      for (let i = 0; i < elements; i++) values[i] = half[view.getUint16(2 * i, true)] as number;
      return values;
    }
    case 'BF16': {
      const words = new Uint32Array(values.buffer);
      for (let i = 0; i < elements; i++) words[i] = view.getUint16(2 * i, true) << 16;
      return values;
    }
    case 'Q8_0':
      eightBits(view, values);
      return values;
    case 'Q4_0':
      fourBits(view, values, false);
      return values;
    case 'Q4_1':
      fourBits(view, values, true);
      return values;
    default:
      throw new TroupeError(`ggml type ${type} cannot be read.`);
  }
}

/** Blocks of a half-precision scale and 32 signed bytes. */
function eightBits(view: DataView, values: Float32Array): void {
  const half = halfTable();
  for (let block = 0, at = 0; block < values.length; block += QUANTISED, at += 2 + QUANTISED) {
    const scale = half[view.getUint16(at, true)] as number;
    for (let j = 0; j < QUANTISED; j++) values[block + j] = scale * view.getInt8(at + 2 + j);
  }
}

/**
 * Blocks of a half-precision scale and 32 four-bit numbers: low halves of the bytes are the first 16, high halves the
 * others. With a minimum (Q4_1) that is added, else 8 is subtracted first (Q4_0).
 */
function fourBits(view: DataView, values: Float32Array, withMinimum: boolean): void {
  const half = halfTable();
  const header = withMinimum ? 4 : 2;
  const middle = QUANTISED / 2;
  const zero = withMinimum ? 0 : 8;
  for (let block = 0, at = 0; block < values.length; block += QUANTISED, at += header + middle) {
    const scale = half[view.getUint16(at, true)] as number;
    const minimum = withMinimum ? (half[view.getUint16(at + 2, true)] as number) : 0;
    for (let j = 0; j < middle; j++) {
      const byte = view.getUint8(at + header + j);
      // ggml multiplies in fp32, then adds in fp32.
      values[block + j] = Math.fround(scale * ((byte & 15) - zero)) + minimum;
      values[block + j + middle] = Math.fround(scale * ((byte >> 4) - zero)) + minimum;
    }
  }
}
