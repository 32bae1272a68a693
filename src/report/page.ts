/** A whole page: one file that needs nothing else, no network and no scripts. */
import { comparison, comparisonFigures } from './comparison.js';
import type { Figure } from './figure.js';
import { type Html, html, raw } from './html.js';
import type { RunData } from './run-data.js';
import { labelled, picturesOf, type RunPictures, runSection } from './run-section.js';
import { STYLE } from './style.js';

export interface Report {
  html: string;
  /** Every picture by the name of its file, without an ending. */
  pictures: Map<string, Figure>;
}

/** The page of one run or of several. */
export function report(runs: readonly RunData[]): Report {
  const pictured = runs.map(picturesOf);
  const ids = runs.map((_, i) => `run-${i + 1}`);
  const together = pictured.length > 1 ? comparisonFigures(pictured) : [];
  const pictures = new Map(together.map((figure) => [figure.id, figure]));
  for (const { run, sections } of pictured) {
    for (const figure of sections.flatMap(({ figures }) => figures)) {
      pictures.set(pictured.length > 1 ? `${run.name}/${figure.id}` : figure.id, figure);
    }
  }
  const title = runs.length === 1 ? (runs[0]?.name ?? '') : `${runs.length} runs`;
  const above = pictured.length > 1 ? comparison(pictured, ids, together) : '';
  return { html: page(title, html`${above}${runsHtml(pictured, ids)}`), pictures };
}

function runsHtml(pictured: readonly RunPictures[], ids: readonly string[]): Html[] {
  return pictured.map((one, i) => {
    const id = ids[i] as string;
    return pictured.length === 1
      ? runSection(one, id)
      : html`<details class="folded"><summary>${one.run.name}</summary>${runSection(one, id, { brief: true })}</details>`;
  });
}

/** `script`: address of a script of the same origin; without one none may run. */
export function page(title: string, content: Html, script?: string): string {
  const allowed = [
    "default-src 'none'",
    "style-src 'unsafe-inline'",
    ...(script === undefined ? [] : ["script-src 'self'", "connect-src 'self'"]),
  ];
  return html`<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy" content="${allowed.join('; ')}">
<title>${title} · Troupe</title><style>${raw(STYLE)}</style>${
    script === undefined ? '' : html`<script src="${script}" defer></script>`
  }</head><body><main>
${content}</main></body></html>
`.text;
}

/** Width of a letter of 11 pixels, rather too much than too little. */
const LETTER = 6.5;
const LINE = 14;

/** A picture that stands by itself: black on white, with its title, its legend and what is to be known of it. */
export function standalone(figure: Figure): string {
  const { title, caption, legend } = figure;
  const svg = labelled(figure, figure.svg()).text;
  const [, width = 460, height = 230] = /viewBox="0 0 ([\d.]+) ([\d.]+)"/.exec(svg)?.map(Number) ?? [];
  const [above, below] = [24, legend.length > 0 ? 20 : 0];
  const inner = svg.replace('<svg ', `<svg x="0" y="${above + below}" `);
  let x = 10;
  const entries = legend.map(({ name, color }) => {
    const entry = html`<rect x="${x}" y="28" width="10" height="10" fill="${color}"/><text x="${x + 14}" y="37">${name}</text>`;
    x += 26 + LETTER * name.length;
    return entry;
  });
  const full = Math.max(width, x, 7.5 * title.length + 20);
  const top = height + above + below;
  const lines = wrapped(caption, Math.floor((full - 20) / LETTER));
  const notes = lines.map((line, i) => html`<text x="10" y="${top + 11 + LINE * i}">${line}</text>`);
  const whole = top + (lines.length > 0 ? LINE * lines.length + 6 : 0);
  return html`<svg xmlns="http://www.w3.org/2000/svg" width="${full}" height="${whole}" viewBox="0 0 ${full} ${whole}" font-family="system-ui, sans-serif" font-size="11" style="color: black; background: white"><title>${title}</title><rect width="100%" height="100%" fill="white"/><text x="10" y="17" font-size="13" font-weight="bold">${title}</text>${entries}${raw(inner)}${notes}</svg>
`.text;
}

/** Lines of at most `width` letters, a longer word aside. */
function wrapped(text: string, width: number): string[] {
  const lines: string[] = [];
  for (const word of text.split(/\s+/).filter((part) => part !== '')) {
    const last = lines.at(-1);
    if (last !== undefined && last.length + 1 + word.length <= width)
      lines[lines.length - 1] = `${last} ${word}`;
    else lines.push(word);
  }
  return lines;
}
