/** The words, units and names that answers to mathematical problems are made of. */

/** Functions that have a value here; \log is to base ten unless it has a subscript. */
export const FUNCTIONS = new Set(
  `sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh ln log lg exp sqrt`.split(' '),
);

const GREEK =
  `alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron pi rho sigma tau
  upsilon phi chi psi omega`.split(/\s+/);
const GREEK_LETTERS = 'αβγδεζηθικλμνξοπρστυφχψω';
const GREEK_CAPITALS = 'ΑΒΓΔΕΖΗΘΙΚΛΜΝΞΟΠΡΣΤΥΦΧΨΩ';

function capital(name: string): string {
  return `${name[0]?.toUpperCase() ?? ''}${name.slice(1)}`;
}

/** Names of letters, by TeX command, Unicode letter or English name. Capitals are letters of their own. */
export const LETTERS: Record<string, string> = Object.assign(
  Object.create(null) as Record<string, string>,
  Object.fromEntries(
    GREEK.flatMap((name, i) => [
      [name, name],
      [capital(name), capital(name)],
      [GREEK_LETTERS[i] ?? '', name],
      [GREEK_CAPITALS[i] ?? '', capital(name)],
    ]),
  ),
  {
    varepsilon: 'epsilon',
    vartheta: 'theta',
    varphi: 'phi',
    ϕ: 'phi',
    ell: 'ell',
    ℓ: 'ell',
    R: 'R',
    ℝ: 'mathbb R',
    ℤ: 'mathbb Z',
    ℕ: 'mathbb N',
    ℚ: 'mathbb Q',
    ℂ: 'mathbb C',
    infty: 'infinity',
    '∞': 'infinity',
    '∅': 'empty',
    infinity: 'infinity',
    emptyset: 'empty',
    varnothing: 'empty',
    imath: 'i',
  },
);

/** Signs in one spelling. */
export const SIGNS: Record<string, string> = {
  '**': '^',
  '!=': '≠',
  '<=': '≤',
  '>=': '≥',
  '->': '→',
  '×': '*',
  '·': '*',
  '⋅': '*',
  '∙': '*',
  '•': '*',
  '∗': '*',
  '÷': '/',
  '∕': '/',
  '∶': ':',
  '⩽': '≤',
  '≦': '≤',
  '⩾': '≥',
  '≧': '≥',
  '⟨': '⟨',
  '〈': '⟨',
  '〉': '⟩',
  '∣': '|',
  '′': "'",
  '’': "'",
  '、': ',',
  '∖': 'setminus',
};

/** TeX commands that are signs. */
export const COMMANDS: Record<string, string> = Object.assign(Object.create(null) as Record<string, string>, {
  cdot: '*',
  times: '*',
  ast: '*',
  div: '/',
  le: '≤',
  leq: '≤',
  leqslant: '≤',
  ge: '≥',
  geq: '≥',
  geqslant: '≥',
  lt: '<',
  gt: '>',
  ne: '≠',
  neq: '≠',
  in: '∈',
  cup: '∪',
  bigcup: '∪',
  cap: '∩',
  bigcap: '∩',
  pm: '±',
  mp: '∓',
  to: '→',
  rightarrow: '→',
  approx: '≈',
  equiv: '≡',
  sim: '~',
  degree: '°',
  circ: '°',
  colon: ':',
  mid: '|',
  vert: '|',
  lvert: '|',
  rvert: '|',
  langle: '⟨',
  rangle: '⟩',
  lbrace: '\\{',
  rbrace: '\\}',
  lbrack: '[',
  rbrack: ']',
  lparen: '(',
  rparen: ')',
  setminus: 'setminus',
  backslash: 'setminus',
  prime: "'",
  wedge: 'and',
  land: 'and',
  vee: 'or',
  lor: 'or',
  ldots: '…',
  dots: '…',
  cdots: '…',
  percent: '%',
});

/** Words that multiply the number before them. */
export const MULTIPLIERS: Record<string, [bigint, bigint]> = {
  dozen: [12n, 1n],
  hundred: [100n, 1n],
  thousand: [1000n, 1n],
  million: [10n ** 6n, 1n],
  billion: [10n ** 9n, 1n],
  trillion: [10n ** 12n, 1n],
  half: [1n, 2n],
  halve: [1n, 2n],
  third: [1n, 3n],
  fourth: [1n, 4n],
  quarter: [1n, 4n],
  fifth: [1n, 5n],
  sixth: [1n, 6n],
  seventh: [1n, 7n],
  eighth: [1n, 8n],
  ninth: [1n, 9n],
  tenth: [1n, 10n],
  hundredth: [1n, 100n],
  thousandth: [1n, 1000n],
};

/** Words that make another number of the one beside them, or none: never taken for a unit. */
export const NOT_UNITS = new Set(
  `squared cubed factorial pi infinity infinite minus plus times over divided by remainder negative positive less
   more fewer most least not no or to nor and but double triple pair score choose mod modulo base root power square-root
   except without than between about approximately roughly nearly almost undefined unknown none plu time remain le
   either both maybe perhaps possibly otherwise if unless when where is are was were be
   zero one two three four five six seven eight nine ten eleven twelve r`.split(/\s+/),
);

export const NUMBER_WORDS: Record<string, bigint> = Object.fromEntries([
  ...`zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen
   eighteen nineteen`
    .split(/\s+/)
    .map((word, i) => [word, BigInt(i)]),
  ...'twenty thirty forty fifty sixty seventy eighty ninety'
    .split(' ')
    .map((word, i) => [word, BigInt(10 * i + 20)]),
]);

/** Spellings of one unit. A square or cube is written behind it by `unitOf` (compare.ts). */
const UNITS: Record<string, string> = {
  cm: 'centimeter centimetre',
  mm: 'millimeter millimetre',
  m: 'meter metre',
  km: 'kilometer kilometre',
  inch: 'in ins',
  ft: 'foot feet',
  yd: 'yard',
  mi: 'mile',
  mph: 'mi/h mi/hr',
  kph: 'km/h km/hr kmh',
  s: 'sec second',
  min: 'minute',
  h: 'hr hrs hour',
  day: '',
  g: 'gram gramme',
  kg: 'kilogram',
  mg: 'milligram',
  lb: 'lbs pound',
  oz: 'ounce',
  l: 'liter litre',
  ml: 'milliliter millilitre',
  dollar: 'usd',
  cent: '',
  euro: 'eur',
  degree: 'deg',
  'degree C': 'degree celsius',
  'degree F': 'degree fahrenheit',
  radian: 'rad',
  unit: '',
  am: '',
  pm: '',
};

export const UNIT_NAMES: Record<string, string> = Object.fromEntries(
  Object.entries(UNITS).flatMap(([unit, names]) => [unit, ...names.split(' ')].map((name) => [name, unit])),
);

/** Short words that are written without \text; other runs of two or three letters are products of variables. */
const SHORT_WORDS = new Set(
  `cm mm km kg ml mg ft mi hr min sec mph kph kmh am pm or and to is are in by of no yes odd red not the one two six
   ten day lb lbs oz deg rad mod if all sum men gal hrs cup egg car cat dog bus box boy pen pie cow hen pig bag can jar
   set bar row hat toy kid way top yen`.split(/\s+/),
);
const FOUR_LETTERS = /^[A-Za-z]?[a-z]*[aeiouy][a-z]*$/;

/** Whether letters without \text are a word: "Friday", "yes", "cm", but not "ab", "xyz", "ABCD". */
export function isWord(run: string): boolean {
  if (!/^[A-Za-z'’]+$/.test(run)) return run.length > 1;
  if (run.length <= 3) return run !== '' && SHORT_WORDS.has(/^[A-Z]/.test(run) ? run.toLowerCase() : run);
  if (run.length === 4) return FOUR_LETTERS.test(run) || run === 'TRUE' || run === 'NONE';
  return true;
}

/** In the singular, as far as an s at the end tells. */
export function singular(word: string): string {
  if (/(?:ch|sh|ss|x|zz)es$/.test(word)) return word.slice(0, -2);
  if (/[^aeiou]ies$/.test(word) && word.length > 4) return `${word.slice(0, -3)}y`;
  return word.length > 3 && word.endsWith('s') && !word.endsWith('ss') ? word.slice(0, -1) : word;
}
