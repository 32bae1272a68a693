/** What the sections of the schema are made of. */
import { z } from 'zod';

export const count = () => z.int().min(1);
export const atLeastZero = () => z.number().min(0);
export const fraction = () => z.number().min(0).max(1);

const UNITS: Record<string, number> = { '': 1, K: 2 ** 10, M: 2 ** 20, G: 2 ** 30 };

/** Bytes as a number or as text with a unit: 1048576, "512 MiB", "2G". Units are powers of 1024. */
export function bytes() {
  const text = z
    .string()
    .regex(/^\s*\d+(\.\d+)?\s*([KMG](i?B)?|B)?\s*$/)
    .transform((value) => {
      const [, amount = '0', unit = ''] = /^\s*([\d.]+)\s*([KMG]?)/.exec(value) ?? [];
      return Math.round(Number(amount) * (UNITS[unit] ?? 1));
    });
  return z.union([z.int().min(0), text]).meta({ takes: 'bytes, such as 1048576 or "512 MiB"' });
}

/** What `overrideOf` leaves of a field's type: no default, each optional; sections likewise. */
type Override<S extends z.ZodType> =
  S extends z.ZodDefault<infer Inner extends z.ZodType>
    ? Override<Inner>
    : S extends z.ZodPrefault<infer Inner extends z.ZodType>
      ? Override<Inner>
      : S extends z.ZodObject<infer Shape>
        ? z.ZodObject<{ [K in keyof Shape]: z.ZodOptional<Override<Shape[K] & z.ZodType>> }, z.core.$strict>
        : S;

/**
 * A section as single roles or policies override it, key by key: the same keys, each optional and without its default, so
 * that what an override leaves out stays what it is.
 */
export function overrideOf<Shape extends z.ZodRawShape>(
  full: z.ZodObject<Shape>,
): Override<z.ZodObject<Shape>> {
  const fields = Object.entries(full.shape).map(([name, field]) => {
    return [name, withoutDefault(field as z.ZodType).optional()];
  });
  return z.strictObject(Object.fromEntries(fields)) as unknown as Override<z.ZodObject<Shape>>;
}

/** Keeps what is said of the field, which may stand on the default that is taken off. */
function withoutDefault(field: z.ZodType): z.ZodType {
  const isWrapper = field instanceof z.ZodDefault || field instanceof z.ZodPrefault;
  const inner = isWrapper ? withoutDefault(field.unwrap() as z.ZodType) : field;
  const bare = inner instanceof z.ZodObject ? overrideOf(inner) : inner;
  const meta = field.meta();
  return meta === undefined ? bare : bare.meta(meta);
}
