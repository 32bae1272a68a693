/** What a schema takes, in words: read from its JSON Schema. For error messages and the table of keys. */
import { z } from 'zod';
import { ownValue } from './own-value.js';

/** The part of JSON Schema that zod writes for our schemas, with `takes` from our own metadata. */
export interface SchemaNode {
  type?: string;
  enum?: (string | number | boolean | null)[];
  const?: unknown;
  default?: unknown;
  description?: string;
  takes?: string;
  minimum?: number;
  maximum?: number;
  exclusiveMinimum?: number;
  exclusiveMaximum?: number;
  properties?: Record<string, SchemaNode>;
  additionalProperties?: SchemaNode | boolean;
  items?: SchemaNode;
  prefixItems?: SchemaNode[];
  anyOf?: SchemaNode[];
  /** A union by one of its keys. */
  oneOf?: SchemaNode[];
}

export function schemaNode(schema: z.ZodType): SchemaNode {
  return z.toJSONSchema(schema, { io: 'input', unrepresentable: 'any' }) as SchemaNode;
}

/** The node that a path leads to; undefined where the schema knows nothing of it. */
export function nodeAt(root: SchemaNode, path: readonly PropertyKey[]): SchemaNode | undefined {
  let nodes: SchemaNode[] = [root];
  for (const key of path) {
    nodes = nodes.flatMap(alternatives).flatMap((node) => child(node, key));
  }
  return nodes[0];
}

/** A node, or what its union joins. */
function alternatives(node: SchemaNode): SchemaNode[] {
  return (node.anyOf ?? node.oneOf)?.flatMap(alternatives) ?? [node];
}

function child(node: SchemaNode, key: PropertyKey): SchemaNode[] {
  if (typeof key === 'number') {
    const item = node.prefixItems?.[key] ?? node.items;
    return item === undefined ? [] : [item];
  }
  const { properties = {} } = node;
  const property = ownValue(properties, String(key));
  if (property !== undefined) return [property];
  return typeof node.additionalProperties === 'object' ? [node.additionalProperties] : [];
}

/** Every word that the schema would take here, for suggestions. */
export function wordsOf(node: SchemaNode): string[] {
  return alternatives(node).flatMap((one) => [
    ...(one.enum ?? []).filter((value) => typeof value === 'string'),
    ...(typeof one.const === 'string' ? [one.const] : []),
    ...(one.items === undefined ? [] : wordsOf(one.items)),
  ]);
}

/** Whether null is a value here, and not only the absence of one. */
export function takesNull(node: SchemaNode): boolean {
  return alternatives(node).some(({ type, const: value }) => type === 'null' || value === null);
}

/** The keys that an object takes here. */
export function keysOf(node: SchemaNode): string[] {
  return alternatives(node).flatMap((one) => Object.keys(one.properties ?? {}));
}

/** E.g. "a whole number of at least 1", "full or lora", "a list of role, slot or turn". */
export function takes(node: SchemaNode): string {
  if (node.takes !== undefined) return node.takes;
  const union = node.anyOf ?? node.oneOf;
  if (union !== undefined) return [...new Set(union.map(takes))].join(', or ');
  if (node.enum !== undefined) return orList(node.enum.map(String));
  if (node.const !== undefined) return String(node.const);
  switch (node.type) {
    case 'integer':
      return `a whole number${range(node)}`;
    case 'number':
      return `a number${range(node)}`;
    case 'boolean':
      return 'true or false';
    case 'string':
      return 'text';
    case 'null':
      return 'null';
    case 'array':
      return arrayTakes(node);
    case 'object':
      return objectTakes(node);
    default:
      return 'any value';
  }
}

function arrayTakes(node: SchemaNode): string {
  if (node.prefixItems !== undefined) return `a list [${node.prefixItems.map(takes).join('; ')}]`;
  return node.items === undefined ? 'a list' : `a list of ${takes(node.items)}`;
}

function objectTakes(node: SchemaNode): string {
  const keys = Object.keys(node.properties ?? {});
  if (keys.length > 0) return `a map with the keys ${keys.join(', ')}`;
  if (typeof node.additionalProperties !== 'object') return 'a map';
  const values = takes(node.additionalProperties);
  return values === 'any value' ? 'a map' : `a map from names to ${values}`;
}

function range(node: SchemaNode): string {
  const { minimum, exclusiveMinimum: above, exclusiveMaximum: below } = node;
  // zod writes the largest safe integer as the maximum of every whole number.
  const maximum = node.maximum === Number.MAX_SAFE_INTEGER ? undefined : node.maximum;
  if (minimum !== undefined && maximum !== undefined) return ` from ${minimum} to ${maximum}`;
  const limits: string[] = [];
  if (minimum !== undefined && minimum !== -Number.MAX_SAFE_INTEGER) limits.push(`of at least ${minimum}`);
  if (above !== undefined) limits.push(`above ${above}`);
  if (maximum !== undefined) limits.push(`of at most ${maximum}`);
  if (below !== undefined) limits.push(`below ${below}`);
  return limits.length === 0 ? '' : ` ${limits.join(' and ')}`;
}

function orList(words: string[]): string {
  return words.length < 2 ? words.join('') : `${words.slice(0, -1).join(', ')} or ${words.at(-1)}`;
}
