/** The kinds of columns of the tables, and the columns that many of them have. */
export type ColumnType = 'int32' | 'int64' | 'float64' | 'bool' | 'text' | 'name' | 'time';

/** Words of a dictionary-encoded column: a fixed list, or one that the run brings. */
export type Vocabulary = 'roles' | 'policies' | readonly string[];

/** The run's own words: they are fixed when its streams are created. */
export interface RunVocabularies {
  roles: readonly string[];
  policies: readonly string[];
}

/** One column of a table. `V` is what a row has of it; null only where `nullable`. */
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

export type Specs = Record<string, ColumnSpec<unknown>>;

export interface Table<S = unknown> {
  name: string;
  description: string;
  columns: S;
}

/** A row of a table with these columns. */
export type Row<S> = { [K in keyof S]: S[K] extends ColumnSpec<infer V> ? V : never };

interface Unit {
  unit?: string;
}

export const int32 = (description: string, unit: Unit = {}): ColumnSpec<number> => {
  return { type: 'int32', nullable: false, description, ...unit };
};
export const float64 = (description: string, unit: Unit = {}): ColumnSpec<number> => {
  return { type: 'float64', nullable: false, description, ...unit };
};
export const bytes = (description: string): ColumnSpec<number> => {
  return { type: 'int64', nullable: false, description, unit: 'bytes' };
};
export const seconds = (description: string): ColumnSpec<number> => float64(description, { unit: 'seconds' });
export const bool = (description: string): ColumnSpec<boolean> => ({
  type: 'bool',
  nullable: false,
  description,
});
export const text = (description: string): ColumnSpec<string> => ({
  type: 'text',
  nullable: false,
  description,
});
export const time = (description: string): ColumnSpec<number> => {
  return { type: 'time', nullable: false, description, unit: 'milliseconds since 1970, UTC' };
};
export const name = (vocabulary: Vocabulary, description: string): ColumnSpec<string> => {
  return { type: 'name', nullable: false, description, vocabulary };
};
/** The same column, which may be null. */
export function optional<V>(spec: ColumnSpec<V>): ColumnSpec<V | null> {
  return { ...spec, nullable: true } as ColumnSpec<V | null>;
}

export const share = { unit: 'share' };
export const nats = { unit: 'nats' };
export const tokens = { unit: 'tokens' };

export const step = int32('Step of the run, from 0.');
export const role = name('roles', 'Role.');
export const policy = name('policies', 'Policy.');
export const update = int32("Optimizer step within the run's step, from 0.");
