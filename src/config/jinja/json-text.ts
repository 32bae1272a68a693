/** json.dumps of Python, which transformers puts in the place of Jinja's tojson. */
import type { Bound } from './arguments.js';
import { Dict, Float, floatText, List, truth, typeName, type Value } from './values.js';

interface Style {
  ascii: boolean;
  indent: string | undefined;
  item: string;
  key: string;
  sort: boolean;
}

export function toJson(value: Value, bound: Bound): string {
  const given = bound.value('indent') ?? null;
  const indent =
    given === null ? undefined : typeof given === 'string' ? given : ' '.repeat(bound.whole('indent', 0));
  const separators = bound.value('separators');
  const [item, key] =
    separators instanceof List ? separators.items.map(String) : [indent === undefined ? ', ' : ',', ': '];
  const style = {
    ascii: truth(bound.value('ensure_ascii') ?? false),
    indent,
    item: item as string,
    key: key as string,
    sort: truth(bound.value('sort_keys') ?? false),
  };
  return written(value, style, '\n');
}

function written(value: Value, style: Style, line: string): string {
  if (value === null) return 'null';
  if (typeof value === 'boolean' || typeof value === 'number') return String(value);
  if (typeof value === 'string') return quoted(value, style.ascii);
  if (value instanceof Float) return floatText(value.value).replace('inf', 'Infinity').replace('nan', 'NaN');
  const inner = line + (style.indent ?? '');
  if (value instanceof List && (value.kind === 'list' || value.kind === 'tuple')) {
    return enclosed(
      '[',
      value.items.map((one) => written(one, style, inner)),
      ']',
      style,
      line,
    );
  }
  if (value instanceof Dict) {
    const entries = [...value.map].map(([key, item]): [string, Value] => [keyText(key), item]);
    if (style.sort) entries.sort(([a], [b]) => (a < b ? -1 : Number(a > b)));
    const parts = entries.map(
      ([key, item]) => quoted(key, style.ascii) + style.key + written(item, style, inner),
    );
    return enclosed('{', parts, '}', style, line);
  }
  throw new Error(`${typeName(value)} is not written as JSON`);
}

const keyText = (key: string | number | null) => (key === null ? 'null' : String(key));

function enclosed(open: string, parts: string[], close: string, style: Style, line: string): string {
  if (parts.length === 0) return open + close;
  if (style.indent === undefined) return open + parts.join(style.item) + close;
  const inner = line + style.indent;
  return open + inner + parts.join(style.item + inner) + line + close;
}

/** As JSON.stringify, but that Python leaves lone halves of characters escaped only with ensure_ascii. */
function quoted(value: string, ascii: boolean): string {
  const plain = JSON.stringify(value);
  if (!ascii) return plain;
  return plain.replace(
    /[\u007f-\uffff]/g,
    (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );
}
