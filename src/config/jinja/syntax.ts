/** What a template is made of, as the parser gives it. */
import type { Value } from './values.js';

export interface Arguments {
  positional: Expression[];
  named: [string, Expression][];
  /** *list and **map */
  spread: Expression[];
  namedSpread: Expression[];
}

export type Expression =
  | { kind: 'constant'; value: Value }
  | { kind: 'name'; name: string }
  | { kind: 'list' | 'tuple'; items: Expression[] }
  | { kind: 'dict'; entries: [Expression, Expression][] }
  | { kind: 'attribute'; of: Expression; name: string }
  | { kind: 'item'; of: Expression; at: Expression }
  | { kind: 'slice'; of: Expression; from?: Expression; to?: Expression; step?: Expression }
  | { kind: 'call'; of: Expression; args: Arguments }
  | { kind: 'filter'; of: Expression; name: string; args: Arguments }
  | { kind: 'test'; of: Expression; name: string; args: Arguments }
  | { kind: 'unary'; operator: '-' | '+' | 'not'; of: Expression }
  | { kind: 'binary'; operator: string; left: Expression; right: Expression }
  | { kind: 'compare'; first: Expression; rest: [string, Expression][] }
  | { kind: 'choice'; condition: Expression; chosen: Expression; otherwise: Expression | undefined };

export type Target = { kind: 'name'; name: string } | { kind: 'field'; of: string; name: string };
export type Parameter = [string, Expression | undefined];

export type Statement =
  | { kind: 'data'; text: string }
  | { kind: 'print'; value: Expression }
  | { kind: 'if'; branches: [Expression | undefined, Statement[]][] }
  | {
      kind: 'for';
      targets: Target[];
      unpack: boolean;
      of: Expression;
      where: Expression | undefined;
      body: Statement[];
      otherwise: Statement[];
    }
  | { kind: 'set'; targets: Target[]; unpack: boolean; value: Expression }
  | { kind: 'setBlock'; target: Target; filter: Filtering; body: Statement[] }
  | { kind: 'macro'; name: string; parameters: Parameter[]; body: Statement[] }
  | { kind: 'callBlock'; call: Expression; parameters: Parameter[]; body: Statement[] }
  | { kind: 'filterBlock'; filter: Filtering; body: Statement[] }
  | { kind: 'with'; names: [string, Expression][]; body: Statement[] }
  | { kind: 'group'; body: Statement[] }
  | { kind: 'break' | 'continue' };

/** Filters one after another. */
export type Filtering = { name: string; args: Arguments }[];
