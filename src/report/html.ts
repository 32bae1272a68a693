/** HTML that cannot be broken out of: whatever stands in ${…} is escaped, unless it is such HTML itself. */

export class Html {
  readonly text: string;

  constructor(text: string) {
    this.text = text;
  }
}

export type Content = Html | string | number | null | undefined | readonly Content[];

/**
 * @example
 * html`<pre>${response}</pre>`
 */
export function html(strings: TemplateStringsArray, ...contents: readonly Content[]): Html {
  return new Html(strings.reduce((text, part, i) => text + markup(contents[i - 1]) + part));
}

/** Text of this program that is HTML already, such as a picture. */
export function raw(text: string): Html {
  return new Html(text);
}

function markup(content: Content): string {
  if (content instanceof Html) return content.text;
  if (Array.isArray(content)) return content.map(markup).join('');
  return content === null || content === undefined ? '' : escaped(String(content));
}

const ENTITIES: Record<string, string> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&#39;',
};

function escaped(text: string): string {
  return text.replace(/[&<>"']/g, (character) => ENTITIES[character] as string);
}
