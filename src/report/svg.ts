/**
 * From a plot to SVG text. It takes its text colour from where it stands (currentColor), so that a page may be light or
 * dark. A report of a study holds a thousand pictures, so what no eye sees is left out.
 */
import * as Plot from '@observablehq/plot';
import { parseHTML } from 'linkedom';

export const WIDTH = 460;
const HEIGHT = 230;

export function draw(options: Plot.PlotOptions): string {
  const { document } = parseHTML('<html><body></body></html>');
  const drawn = Plot.plot({ width: WIDTH, height: HEIGHT, marginLeft: 52, document, ...options });
  const svg = drawn.tagName.toLowerCase() === 'svg' ? drawn : drawn.querySelector('svg');
  svg?.setAttribute('xmlns', 'http://www.w3.org/2000/svg');
  svg?.setAttribute('role', 'img');
  return shortened(svg?.outerHTML ?? '');
}

/** Attributes that hold lengths. */
const LENGTHS = /\b(d|transform|x|y|x1|x2|y1|y2|cx|cy|width|height)="([^"]*)"/g;

/** Plot's stylesheet goes (style.ts has its two rules), lengths to a tenth of a pixel, cells of one colour are one path. */
function shortened(svg: string): string {
  return svg
    .replace(/<style>[^<]*<\/style>/, '')
    .replace(/ class="plot-\w+"/, '')
    .replace(LENGTHS, (_, name: string, value: string) => `${name}="${rounded(value)}"`)
    .replace(/ aria-hidden="true"/g, '')
    .replace(/<g aria-label="cell"[^>]*>.*?<\/g>/gs, merged)
    .replace(/<line y2="([\d.]+)" y1="\1" x2="([\d.]+)" x1="([\d.]+)" \/>/g, '<path d="M$3,$1H$2"/>')
    .replace(
      /<path d="M0,0L(-?\d+),(-?\d+)" transform="translate\(([\d.-]+),([\d.-]+)\)" \/>/g,
      '<path d="M$3,$4l$1,$2"/>',
    )
    .replace(/(?:<path d="[^"]*"\/>){2,}/g, joined);
}

/** Paths that differ in nothing but their places. */
function joined(paths: string): string {
  return `<path d="${[...paths.matchAll(/ d="([^"]*)"/g)].map(([, d]) => d).join('')}"/>`;
}

function rounded(lengths: string): string {
  return lengths.replace(/-?\d+\.\d+/g, (number) => String(Math.round(10 * Number(number)) / 10));
}

function merged(group: string): string {
  const paths = new Map<string, string>();
  const rest = group.replace(/<rect ([^>]*)\/>/g, (rect, text: string) => {
    const { x, y, width, height, fill, ...others } = attributes(text);
    if (fill === undefined || Object.keys(others).length > 0) return rect;
    paths.set(fill, `${paths.get(fill) ?? ''}M${x},${y}h${width}v${height}h-${width}z`);
    return '';
  });
  const drawn = [...paths].map(([fill, d]) => `<path fill="${fill}" d="${d}"/>`).join('');
  return rest.replace('</g>', `${drawn}</g>`);
}

function attributes(text: string): Record<string, string> {
  return Object.fromEntries(
    [...text.matchAll(/([\w-]+)="([^"]*)"/g)].map(([, key = '', value = '']) => [key, value]),
  );
}

/** One picture above another. */
export function stacked(above: string, below: string): string {
  const [first, second] = [above, below].map((svg) => {
    const [, width = 0, height = 0] = /viewBox="0 0 ([\d.]+) ([\d.]+)"/.exec(svg)?.map(Number) ?? [];
    return { width, height };
  }) as [Size, Size];
  const width = Math.max(first.width, second.width);
  const height = first.height + second.height;
  const parts = [above, below.replace('<svg ', `<svg y="${first.height}" `)].map((svg) => {
    return svg.replace(' role="img"', '');
  });
  return `<svg xmlns="http://www.w3.org/2000/svg" role="img" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}">${parts.join('')}</svg>`;
}

interface Size {
  width: number;
  height: number;
}
