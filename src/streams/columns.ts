/**
 * Columns that grow by one value at a time and end as Arrow buffers: typed arrays and bitmaps, no object per
 * row. The tables made of them stand in arrow-schema.ts; files are written by stream-writer.ts, read by stream-reader.ts.
 */
import {
  Bool,
  type Data,
  type DataType,
  Dictionary,
  Float64,
  Int32,
  Int64,
  makeData,
  TimestampMillisecond,
  Utf8,
  type Vector,
  vectorFromArray,
} from 'apache-arrow';

export type ColumnType = 'int32' | 'int64' | 'float64' | 'bool' | 'text' | 'name' | 'time';

/** Words of a dictionary-encoded column: a fixed list, or one that the run brings. */
export type Vocabulary = 'roles' | 'policies' | readonly string[];

/** The run's own words: they are fixed when its streams are created. */
export interface RunVocabularies {
  roles: readonly string[];
  policies: readonly string[];
}

/** One column of a table. `V` is what may be pushed; null only where `nullable`. */
export interface ColumnSpec<V> {
  type: ColumnType;
  nullable: boolean;
  description: string;
  /** "tokens", "seconds", "bytes", "nats", "share" (0 to 1), … */
  unit?: string;
  vocabulary?: Vocabulary;
  /** Carries V; never set. */
  readonly value?: V;
}

export interface Column<V> {
  readonly length: number;
  push(value: V): void;
  /** The values so far, as Arrow buffers. */
  data(): Data;
}

/** First capacity of a column; it doubles. */
const CAPACITY = 64;

export function arrowType(spec: ColumnSpec<unknown>, dictionaryId: number): DataType {
  switch (spec.type) {
    case 'int32':
      return new Int32();
    case 'int64':
      return new Int64();
    case 'float64':
      return new Float64();
    case 'bool':
      return new Bool();
    case 'text':
      return new Utf8();
    case 'name':
      return new Dictionary(new Utf8(), new Int32(), dictionaryId, false);
    case 'time':
      return new TimestampMillisecond('UTC');
  }
}

/** An empty column; `type` is `arrowType` of the same spec. */
export function newColumn(
  name: string,
  spec: ColumnSpec<unknown>,
  type: DataType,
  vocabularies: RunVocabularies,
): Column<unknown> {
  const column = storage(name, spec, type, vocabularies);
  return column as Column<unknown>;
}

function storage(name: string, spec: ColumnSpec<unknown>, type: DataType, vocabularies: RunVocabularies) {
  switch (spec.type) {
    case 'int32':
      return new Int32Column(name, type, spec.nullable);
    case 'int64':
      return new BigColumn(name, type, spec.nullable);
    case 'float64':
      return new Float64Column(name, type, spec.nullable);
    case 'bool':
      return new BoolColumn(name, type, spec.nullable);
    case 'text':
      return new TextColumn(name, type, spec.nullable);
    case 'name':
      return new NameColumn(name, type, spec.nullable, words(spec.vocabulary, vocabularies));
    case 'time':
      return new BigColumn(name, type, spec.nullable);
  }
}

function words(vocabulary: Vocabulary | undefined, vocabularies: RunVocabularies): readonly string[] {
  if (vocabulary === 'roles' || vocabulary === 'policies') return vocabularies[vocabulary];
  return vocabulary ?? [];
}

/** Validity bitmap and length, common to every column. Bits are 1 where a value is there. */
abstract class Cells<V> implements Column<V | null> {
  length = 0;
  protected nullCount = 0;
  private validity = new Uint8Array(CAPACITY / 8);

  protected readonly name: string;
  private readonly type: DataType;
  private readonly nullable: boolean;

  constructor(name: string, type: DataType, nullable: boolean) {
    this.name = name;
    this.type = type;
    this.nullable = nullable;
  }

  push(value: V | null): void {
    this.reserve(this.length + 1);
    if (value === null) {
      if (!this.nullable) throw new TypeError(`column ${this.name} takes no null`);
      this.nullCount += 1;
    } else {
      this.set(this.length, value);
      this.validity[this.length >> 3] = (this.validity[this.length >> 3] ?? 0) | (1 << (this.length & 7));
    }
    this.length += 1;
  }

  data(): Data {
    const nullBitmap = this.nullCount === 0 ? undefined : this.validity;
    return this.make({ type: this.type, length: this.length, nullCount: this.nullCount, nullBitmap });
  }

  private reserve(length: number): void {
    const capacity = this.validity.length * 8;
    if (length <= capacity) return;
    this.validity = grown(this.validity, new Uint8Array(capacity / 4));
    this.grow(capacity * 2);
  }

  protected abstract set(index: number, value: V): void;
  protected abstract grow(capacity: number): void;
  protected abstract make(common: CommonData): Data;
}

interface CommonData {
  type: DataType;
  length: number;
  nullCount: number;
  nullBitmap: Uint8Array | undefined;
}

function grown<T extends Uint8Array | Int32Array | Float64Array>(from: T, to: T): T {
  to.set(from);
  return to;
}

/** `makeData` is typed per concrete type; the columns know theirs only as DataType. */
function dataOf(common: CommonData, buffers: Record<string, unknown>): Data {
  return makeData({ ...common, ...buffers } as Parameters<typeof makeData>[0]);
}

class Float64Column extends Cells<number> {
  private values = new Float64Array(CAPACITY);
  /** What is not a number was not measured. */
  override push(value: number | null): void {
    super.push(Number.isNaN(value) ? null : value);
  }
  protected set(index: number, value: number): void {
    this.values[index] = value;
  }
  protected grow(capacity: number): void {
    this.values = grown(this.values, new Float64Array(capacity));
  }
  protected make(common: CommonData): Data {
    return dataOf(common, { data: this.values.subarray(0, this.length) });
  }
}

class Int32Column extends Cells<number> {
  private values = new Int32Array(CAPACITY);
  protected set(index: number, value: number): void {
    // A typed array would wrap or cut silently.
    if ((value | 0) !== value)
      throw new RangeError(`column ${this.name} takes 32-bit integers, not ${value}`);
    this.values[index] = value;
  }
  protected grow(capacity: number): void {
    this.values = grown(this.values, new Int32Array(capacity));
  }
  protected make(common: CommonData): Data {
    return dataOf(common, { data: this.values.subarray(0, this.length) });
  }
}

/** 64-bit integers given as numbers (bytes, milliseconds since 1970): exact up to 2^53. */
class BigColumn extends Cells<number> {
  private values = new BigInt64Array(CAPACITY);
  protected set(index: number, value: number): void {
    this.values[index] = BigInt(value);
  }
  protected grow(capacity: number): void {
    const larger = new BigInt64Array(capacity);
    larger.set(this.values);
    this.values = larger;
  }
  protected make(common: CommonData): Data {
    return dataOf(common, { data: this.values.subarray(0, this.length) });
  }
}

class BoolColumn extends Cells<boolean> {
  private bits = new Uint8Array(CAPACITY / 8);
  protected set(index: number, value: boolean): void {
    if (value) this.bits[index >> 3] = (this.bits[index >> 3] ?? 0) | (1 << (index & 7));
  }
  protected grow(capacity: number): void {
    this.bits = grown(this.bits, new Uint8Array(capacity / 8));
  }
  protected make(common: CommonData): Data {
    return dataOf(common, { data: this.bits });
  }
}

class TextColumn extends Cells<string> {
  private readonly texts: Uint8Array[] = [];
  private offsets = new Int32Array(CAPACITY + 1);
  /** Rows whose end offset is set; nulls in between are empty. */
  private filled = 0;
  private bytes = 0;

  protected set(index: number, value: string): void {
    const text = encoder.encode(value);
    this.fill(index);
    this.texts.push(text);
    this.bytes += text.length;
    this.offsets[index + 1] = this.bytes;
    this.filled = index + 1;
  }
  private fill(index: number): void {
    this.offsets.fill(this.bytes, this.filled + 1, index + 1);
    this.filled = index;
  }
  protected grow(capacity: number): void {
    this.offsets = grown(this.offsets, new Int32Array(capacity + 1));
  }
  protected make(common: CommonData): Data {
    this.fill(this.length);
    const data = Buffer.concat(this.texts, this.bytes);
    return dataOf(common, { valueOffsets: this.offsets.subarray(0, this.length + 1), data });
  }
}

const encoder = new TextEncoder();

/** Words of a fixed list, as indices: the list goes into the file once, before the first batch. */
class NameColumn extends Cells<string> {
  private indices = new Int32Array(CAPACITY);
  private readonly positions: Map<string, number>;
  private readonly dictionary: Vector<Utf8>;

  constructor(name: string, type: DataType, nullable: boolean, vocabulary: readonly string[]) {
    super(name, type, nullable);
    this.positions = new Map(vocabulary.map((word, index) => [word, index]));
    this.dictionary = vectorFromArray(vocabulary, new Utf8());
  }
  protected set(index: number, value: string): void {
    const position = this.positions.get(value);
    if (position === undefined) {
      throw new RangeError(
        `column ${this.name} takes ${[...this.positions.keys()].join(', ')}, not ${value}`,
      );
    }
    this.indices[index] = position;
  }
  protected grow(capacity: number): void {
    this.indices = grown(this.indices, new Int32Array(capacity));
  }
  protected make(common: CommonData): Data {
    return dataOf(common, { data: this.indices.subarray(0, this.length), dictionary: this.dictionary });
  }
}
