/**
 * Which values are markup (markupsafe's Markup: text that is escaped already), read off an expression. A name is none: what
 * a template keeps under one and escapes again later is escaped twice here, and once by jinja2.
 */
import type { Expression } from './syntax.js';

const MAKES = new Set(['safe', 'e', 'escape', 'forceescape']);
const KEEPS = new Set(
  'upper lower trim capitalize center indent truncate string reverse default d'.split(' '),
);

export function isMarkup(expression: Expression): boolean {
  switch (expression.kind) {
    case 'filter':
      return MAKES.has(expression.name) || (KEEPS.has(expression.name) && isMarkup(expression.of));
    case 'item':
    case 'slice':
      return isMarkup(expression.of);
    case 'binary':
      if (expression.operator === '*') return isMarkup(expression.left) || isMarkup(expression.right);
      return escapesOther(expression);
    default:
      return false;
  }
}

/** Whether a filter leaves its value as it is, since that is escaped already. */
export function isEscaped({ name, of }: Extract<Expression, { kind: 'filter' }>): boolean {
  return (name === 'e' || name === 'escape') && isMarkup(of);
}

/** Whether a sum is of markup, to which plain text is added escaped. */
export function escapesOther({ operator, left, right }: Extract<Expression, { kind: 'binary' }>): boolean {
  return operator === '+' && (isMarkup(left) || isMarkup(right));
}
