/** Which part of an answer is its program. A program in the thoughts is none. */
import { withoutLastTokens, withoutThoughts } from './model-text.js';

interface Block {
  /** The first word after the fence, in lower case. */
  language: string;
  code: string;
  closed: boolean;
}

/**
 * `wanted`: how a block shows that it is the program (it defines what the tests use, it reads its input); a later
 * block that does not is an example of its use.
 */
export function extractProgram(
  text: string,
  wanted: (code: string) => boolean = () => false,
): string | undefined {
  const said = withoutThoughts(withoutLastTokens(text.replaceAll('\r\n', '\n')));
  if (said === undefined) return undefined;
  const blocks = nested(fencedBlocks(said));
  if (blocks.some(({ closed, code }) => closed || code !== '')) return chosen(blocks, wanted);
  const bare = bareProgram(said);
  return bare?.trim() === '' ? undefined : bare;
}

/** The last block of Python; without one, the last without a language that looks like a program. */
function chosen(blocks: readonly Block[], wanted: (code: string) => boolean): string | undefined {
  const filled = blocks.filter(({ code }) => /^[^\S\n\r\u2028\u2029]*[^\s#]/m.test(code));
  const python = filled.filter(({ language }) => isPython(language));
  const plain = filled.filter(({ language }) => /^(?:|code|plain|plaintext|text|txt)$/.test(language));
  const candidates = python.length > 0 ? python : plain;
  const block =
    candidates.findLast(({ code }) => wanted(code)) ??
    (python.length > 0 ? undefined : plain.findLast(({ code }) => looksLikeCode(code))) ??
    candidates.at(-1);
  return block?.code;
}

function isPython(language: string): boolean {
  return /^(?:[ci]?python|py|pypy)[-\d.x]*$/.test(language);
}

/** Whether code has a definition of `name` at its outer level, or as a method. */
export function defines(code: string, name: string): boolean {
  const escaped = name.replace(/\W/g, '');
  return (
    escaped === name &&
    new RegExp(`^[ \\t]*(?:async +)?(?:def|class) +${name}\\b|^${name} *(?::[^=\\n]+)?=(?!=)`, 'm').test(code)
  );
}

function looksLikeCode(code: string): boolean {
  return /^[ \t]*(?:def|class|import|from|print|for|if|while|async|try|with|@|#|\w[\w, ]*=(?!=))/m.test(code);
}

const OPENING = /^((?:[ \t]*>)*[ \t]*(?:(?:[-*+]|\d+[.)])[ \t]+)?)(`{3,}|~{3,})([^\n]*)$/;

interface OpenBlock {
  indent: string;
  fence: string;
  language: string;
  lines: string[];
  /** The three quotes of a text that the lines so far have begun and not ended. */
  quotes: string | undefined;
}

/**
 * Blocks between fences, as CommonMark has them: a block ends with a fence of the same character, at least as long,
 * and without words. Beyond that, a fence inside a text of three quotes does not end a block, if one after it does; and
 * one with words behind it does, if none without does.
 */
function fencedBlocks(text: string, heedsQuotes = true, isStrict = true): Block[] {
  const blocks: Block[] = [];
  let open: OpenBlock | undefined;
  let passed = false;
  const end = (closed: boolean) => {
    if (open === undefined) return;
    const code = open.lines.map((line) => `${line}\n`).join('');
    blocks.push({ language: open.language, code: code.replace(/^\ufeff/, ''), closed });
    open = undefined;
  };
  for (const line of text.split('\n')) {
    if (open === undefined) {
      open = opened(line);
      continue;
    }
    const inner = withoutIndent(line, open.indent);
    const ended = withoutFence(inner, open.fence);
    if (ended !== undefined && open.quotes === undefined) {
      open.lines.push(ended);
      end(true);
      continue;
    }
    const closes = isClosing(inner, open.fence, isStrict);
    if (closes && (open.quotes === undefined || !heedsQuotes)) end(true);
    else {
      passed ||= closes;
      open.lines.push(inner);
      open.quotes = quotesAfter(inner, open.quotes);
    }
  }
  if (open !== undefined && passed) return fencedBlocks(text, false, isStrict);
  const { fence = '', lines: rest = [] } = open ?? {};
  if (isStrict && rest.some((line) => isClosing(line, fence, false)))
    return fencedBlocks(text, heedsQuotes, false);
  // A text that ends inside of a block is cut off; what is there counts if it is a whole program.
  if (open?.lines.at(-1) === '') open.lines.pop();
  end(false);
  return blocks;
}

function opened(line: string): OpenBlock | undefined {
  const [, indent = '', fence = '', info = ''] = OPENING.exec(line) ?? [];
  if (fence === '' || (fence.startsWith('`') && info.includes('`'))) return undefined;
  const isCode = /^(?:def|class|import|from|print\() /.test(info);
  return {
    indent,
    fence,
    language: isCode ? '' : languageOf(info),
    lines: isCode ? [info] : [],
    quotes: undefined,
  };
}

/** A last line of code with the fence behind it: "return x```". */
function withoutFence(line: string, fence: string): string | undefined {
  const code = line.trimEnd();
  return code.endsWith(fence) && !/^\s*[`~]+$/.test(code) && !/^\s*[`~]{3}/.test(code)
    ? code.slice(0, -fence.length)
    : undefined;
}

function isClosing(line: string, fence: string, isStrict = true): boolean {
  const [, found = '', behind = ''] = /^[ \t]*(`{3,}|~{3,})[ \t]*(.*)$/.exec(line) ?? [];
  // One word in small letters is the language of a block that begins.
  const ends = behind === '' || (!isStrict && !/^[a-z][\w+#-]*$/.test(behind));
  return found[0] === fence[0] && found.length >= fence.length && ends;
}

/** "python", of "python", " Python title=x", "{python}", "{.python .numberLines}". */
function languageOf(info: string): string {
  return /^[\s{.]*([^\s{},:]*)/.exec(info)?.[1]?.toLowerCase() ?? '';
}

/** Removes what a list or a quotation puts before each line of a block. */
function withoutIndent(line: string, indent: string): string {
  let at = 0;
  while (
    at < indent.length &&
    at < line.length &&
    (line[at] === indent[at] || /[ \t]/.test(line[at] ?? ''))
  ) {
    if (!/[ \t>]/.test(line[at] ?? '')) break;
    at++;
  }
  return line.slice(at);
}

const QUOTES = /#|"""|'''|"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'/g;

/** The three quotes that are open after a line of Python, if `quotes` are open before it. */
function quotesAfter(line: string, quotes: string | undefined): string | undefined {
  let at = 0;
  let open = quotes;
  for (;;) {
    if (open !== undefined) {
      const end = line.indexOf(open, at);
      if (end < 0) return open;
      at = end + open.length;
      open = undefined;
    }
    QUOTES.lastIndex = at;
    const [found] = QUOTES.exec(line) ?? [];
    if (found === undefined || found === '#') return undefined;
    at = QUOTES.lastIndex;
    if (found === '"""' || found === "'''") open = found;
  }
}

/** Blocks, with those inside a block of Markdown or of text in its place. */
function nested(blocks: Block[]): Block[] {
  return blocks.flatMap((block) => {
    if (!/^(?:markdown|md|text|txt)$/.test(block.language)) return [block];
    const inner = fencedBlocks(block.code);
    return inner.length > 0 ? inner : [block];
  });
}

const STARTS = /^(?:(?:async )?def |class |import |from [\w.]+ import |@\w|#!)/;

/** What stands around a program in answers and web pages. */
const TAGS = /<\/?(?:answer|solution|code|pre|python)(?: [^<>\n]{0,100})?>/g;

/** An answer without fences: the whole text if it begins like a program, or from where a definition begins. */
function bareProgram(text: string): string | undefined {
  const [marked, closed] = text.split('[PYTHON]').slice(1).join('[PYTHON]').split('[/PYTHON]', 2);
  if (closed !== undefined) return marked?.replace(/^\n/, '');
  const lines = text
    .replace(/^\ufeff/, '')
    .replace(TAGS, '')
    .split('\n')
    .filter((line) => !/^\s*(?:```|~~~)\s*$/.test(line));
  const first = lines.findIndex((line) => line.trim() !== '');
  const begins =
    /^(?:def|class|import|from|print|for|if|while|async|try|with|@|#|\w+ *=(?!=)|\w+(?:, *\w+)+ *= )/;
  const start = begins.test(lines[first] ?? '') ? first : lines.findIndex((line) => STARTS.test(line));
  if (start < 0) return indentedProgram(lines);
  const after = lines.findIndex((line, i) => i > start && isProse(line));
  return `${lines
    .slice(start, after < 0 ? undefined : after)
    .join('\n')
    .trimEnd()}\n`;
}

/** A program that is set in from the text around it. */
function indentedProgram(lines: readonly string[]): string | undefined {
  const start = lines.findIndex((line) => STARTS.test(line.trimStart()));
  const [indent = ''] = /^[ \t]*/.exec(lines[start] ?? '') ?? [];
  const end = lines.findIndex((line, i) => i > start && line.trim() !== '' && !line.startsWith(indent));
  const code = lines.slice(start, end < 0 ? undefined : end).map((line) => line.slice(indent.length));
  return start < 0 ? undefined : `${code.join('\n').trimEnd()}\n`;
}

/** A sentence at the outer level: no line of Python begins with a capital and goes on with words. */
function isProse(line: string): boolean {
  return (
    /^(?:\*\*|[-*] |\d+\. )?\**[A-Z][a-z']*:?\**:?(?: [\w'`"(]+){2,}|^\*\*[A-Z][\w ]*:?\*\*/.test(line) &&
    !/^[A-Z]\w*(?: (?:if|is|in|and|or|not)\b)/.test(line)
  );
}
