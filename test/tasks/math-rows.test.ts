/**
 * Answers in the forms that models write, by theme: "+ answer ¦ right answer" is right, "- …" wrong (math-rows.txt). The
 * answer stands in a box, or is a whole text under a heading "texts: …", in which ↵ and ␍ are the ends of lines.
 */
import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { gradeMath } from '../../src/tasks/math-grading.js';

const themes = readFileSync(new URL('math-rows.txt', import.meta.url), 'utf8')
  .split(/^## /m)
  .slice(1)
  .map((text) => {
    const [theme = '', ...lines] = text.trimEnd().split('\n');
    return { theme, lines: lines.filter((line) => line !== '') };
  });

function isGradedRight(theme: string, line: string): boolean {
  const [got = '', right = ''] = line.slice(2).split('¦');
  const said = got.trim().replaceAll('↵', '\n').replaceAll('␍', '\r');
  const text = theme.startsWith('texts: ') ? said : `Thus the answer is $\\boxed{${said}}$.`;
  return gradeMath(text, right.trim()).correct === line.startsWith('+');
}

describe('answers in the forms that models write', () => {
  test('are many', () => {
    expect(themes.flatMap(({ lines }) => lines).length).toBeGreaterThan(2000);
  });
  test.each(themes)('$theme', ({ theme, lines }) => {
    expect(lines.filter((line) => !isGradedRight(theme, line))).toEqual([]);
  });
});
