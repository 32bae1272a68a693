/**
 * A model's chat templates, found and chosen as transformers does, and messages written by one of them. What of a
 * message's text would read as a special token is told apart from what the template writes: it is text.
 */
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { checkSection } from '../config/check.js';
import { TroupeError } from '../config/errors.js';
import { readText } from '../config/json.js';
import { unknownName } from '../config/nearest.js';
import type { TemplateSettings } from '../config/schema.js';
import { Template } from '../config/template.js';
import { marked, markFor, unmarked } from './tokenization/marks.js';

export const TEMPLATE_FILE = 'chat_template.jinja';
export const TEMPLATE_FOLDER = 'additional_chat_templates';
const DEFAULT = 'default';
const WITH_TOOLS = 'tool_use';

export interface ChatMessage {
  role: string;
  content: string;
}

export interface RenderedChat {
  text: string;
  /** Places in `text` where a special token is spelled by a message and is text. */
  literal: ReadonlySet<number>;
}

const configured = z
  .union([z.string(), z.array(z.looseObject({ name: z.string(), template: z.string() }))])
  .nullish()
  .meta({ takes: 'a Jinja text, or a list of { name, template }' });

/** Text of the folder's templates by name; none where it has none. `config`: tokenizer_config.json. */
function templateTexts(folder: string, config: Record<string, unknown>): Map<string, string> {
  const texts = new Map<string, string>();
  const file = join(folder, TEMPLATE_FILE);
  if (existsSync(file)) texts.set(DEFAULT, readText(file));
  const more = join(folder, TEMPLATE_FOLDER);
  for (const name of existsSync(more) ? readdirSync(more).sort() : []) {
    if (name.endsWith('.jinja')) texts.set(name.slice(0, -'.jinja'.length), readText(join(more, name)));
  }
  // Files take the place of all that tokenizer_config.json has.
  if (texts.size > 0) return texts;
  const where = join(folder, 'tokenizer_config.json');
  const given = checkSection(configured, config.chat_template, {
    path: 'chat_template',
    locate: () => where,
  });
  if (typeof given === 'string') texts.set(DEFAULT, given);
  else for (const { name, template } of given ?? []) texts.set(name, template);
  return texts;
}

export class ChatTemplates {
  readonly #folder: string;
  readonly #templates = new Map<string, Template>();
  /** bos_token and the like. */
  readonly #tokens: Readonly<Record<string, string>>;
  readonly #spelled: (text: string) => ReadonlySet<number>;

  /** `spelled`: places of a text where a special token is spelled. */
  constructor(
    folder: string,
    config: Record<string, unknown>,
    tokens: Readonly<Record<string, string>>,
    spelled: (text: string) => ReadonlySet<number>,
  ) {
    this.#folder = folder;
    this.#tokens = tokens;
    this.#spelled = spelled;
    for (const [name, text] of templateTexts(folder, config)) {
      const called = name === DEFAULT ? 'the chat template' : `the chat template "${name}"`;
      this.#templates.set(name, new Template(text, { where: folder, name: called }));
    }
  }

  /** Throws a TroupeError if there is no such template or it refuses the messages. */
  render(
    messages: readonly ChatMessage[],
    settings: TemplateSettings,
    addGenerationPrompt: boolean,
  ): RenderedChat {
    const template = this.#choose(settings);
    const given = settings.system === 'user' ? withoutSystem(messages) : messages;
    const mark = markFor(given.map(({ content }) => content));
    const rendered = template.render({
      ...this.#tokens,
      documents: null,
      enable_thinking: settings.enableThinking,
      ...settings.fields,
      messages: given.map(({ role, content }) => ({
        role,
        content: marked(content, this.#spelled(content), mark),
      })),
      tools: settings.tools.length === 0 ? null : settings.tools,
      add_generation_prompt: addGenerationPrompt,
    });
    const { text, places } = unmarked(rendered, mark);
    return { text, literal: places };
  }

  /** As get_chat_template of transformers. */
  #choose({ name, tools }: TemplateSettings): Template {
    const names = [...this.#templates.keys()];
    if (names.length === 0) {
      throw new TroupeError('has no chat template.', {
        where: this.#folder,
        hint: `Add ${TEMPLATE_FILE}, or chat_template in tokenizer_config.json.`,
      });
    }
    const fallback = tools.length > 0 && this.#templates.has(WITH_TOOLS) ? WITH_TOOLS : DEFAULT;
    const found = this.#templates.get(name ?? fallback);
    if (found !== undefined) return found;
    if (name !== null) throw unknownName('chat template', name, names, this.#folder);
    throw new TroupeError(`has the chat templates ${names.join(', ')} and no default.`, {
      where: this.#folder,
      hint: 'Choose one with model.template.name.',
    });
  }
}

/** Messages whose system text stands before that of the next user, for templates that have no system role. */
function withoutSystem(messages: readonly ChatMessage[]): ChatMessage[] {
  const found: ChatMessage[] = [];
  let system: string[] = [];
  for (const message of messages) {
    if (message.role === 'system') system.push(message.content);
    else if (message.role === 'user') {
      found.push({ role: 'user', content: [...system, message.content].join('\n\n') });
      system = [];
    } else found.push(message);
  }
  return system.length === 0 ? found : [...found, { role: 'user', content: system.join('\n\n') }];
}
