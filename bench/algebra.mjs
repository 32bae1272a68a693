/**
 * Which algebra libraries see that two answers are equal, beside the grader. Pairs are those of
 * test/tasks/math-cases.ts that have variables, roots or functions. The libraries are not dependencies:
 *   npm install --no-save @cortex-js/compute-engine mathjs nerdamer algebrite && node bench/algebra.mjs
 */
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { sameAnswer } from '../build/js/tasks/math-grading.js';

const require = createRequire(import.meta.url);
const cases = readFileSync(new URL('../test/tasks/math-cases.ts', import.meta.url), 'utf8');
const [same, different] = cases
  .split('export const DIFFERENT')
  .map((part) =>
    [...part.matchAll(/^ {2}\['(.*)', '(.*)'\],$/gm)].map(([, a, b]) =>
      [a, b].map((text) => text.replaceAll('\\\\', '\\')),
    ),
  );
const algebraic = (pairs) =>
  pairs.filter(
    (pair) =>
      pair.every(
        (text) => /^[^,;:<>∪%]*$/.test(text) && !/\\(?:text|begin|pm|mathbb|le|ge|in|cup)/.test(text),
      ) &&
      pair.some(
        (text) =>
          /[a-z]/.test(text.replace(/\\[a-z]+|\d\s*[a-z]{2,}/g, '')) ||
          /\\(?:sqrt|ln|sin|cos|log)/.test(text),
      ),
  );

/** TeX in the notation of programs, as far as regular expressions go. */
const plain = (text) =>
  text
    .replace(/\\(?:left|right|,|!)/g, '')
    .replace(/\\[dt]?frac\{([^{}]*)\}\{([^{}]*)\}/g, '(($1)/($2))')
    .replace(/\\frac(\d)(\d)/g, '($1/$2)')
    .replace(/\\sqrt\{([^{}]*)\}/g, 'sqrt($1)')
    .replace(/\\sqrt(\d)/g, 'sqrt($1)')
    .replace(/\\cdot|\\times/g, '*')
    .replace(/\\pi/g, 'pi')
    .replace(/\\ln/g, 'log')
    .replace(/\\(sin|cos|tan)/g, '$1')
    .replaceAll('{', '(')
    .replaceAll('}', ')')
    .replace('=', '-')
    .replace(/(?<![a-z])([a-z])(?=[a-z(]\b|\()/g, '$1*')
    .replace(/\)\(/g, ')*(')
    .replace(/(\d)([a-z(])/g, '$1*$2');

const engines = { troupe: () => sameAnswer };
engines['@cortex-js/compute-engine'] = async () => {
  const { ComputeEngine } = await import('@cortex-js/compute-engine');
  const engine = new ComputeEngine();
  return (a, b) => engine.parse(a).isEqual(engine.parse(b)) === true;
};
engines.nerdamer = () => {
  const nerdamer = require('nerdamer/all.js');
  const tex = (text) => nerdamer.convertFromLaTeX(text);
  return (a, b) => nerdamer(`simplify((${tex(a)})-(${tex(b)}))`).toString() === '0';
};
engines.mathjs = () => {
  const { simplify } = require('mathjs');
  return (a, b) => simplify(`(${plain(a)})-(${plain(b)})`).toString() === '0';
};
engines.algebrite = () => {
  const algebrite = require('algebrite');
  return (a, b) => algebrite.run(`simplify((${plain(a)})-(${plain(b)}))`) === '0';
};

const [yes, no] = [algebraic(same), algebraic(different)];
console.log(`${yes.length} equal pairs, ${no.length} that differ`);
for (const [name, load] of Object.entries(engines)) {
  let equal;
  try {
    equal = await load();
  } catch {
    console.log(`${name}: not installed`);
    continue;
  }
  const counts = { refused: 0, accepted: 0, threw: 0 };
  const start = performance.now();
  for (const [pairs, wanted] of [
    [yes, true],
    [no, false],
  ]) {
    for (const [a, b] of pairs) {
      let said = false;
      try {
        said = equal(a, b);
      } catch {
        counts.threw++;
      }
      if (wanted && !said) counts.refused++;
      if (!wanted && said) counts.accepted++;
    }
  }
  const ms = (performance.now() - start) / (yes.length + no.length);
  console.log(
    `${name}: refuses ${counts.refused} of ${yes.length} equal, accepts ${counts.accepted} of ${no.length} others, throws ${counts.threw}, ${ms.toFixed(1)} ms a pair`,
  );
}
