/**
 * A model folder's tokenizer and chat template: text to ids and back, messages to prompts. The work is done in
 * tokenization/ and chat-template.ts; this file reads their inputs from the folder.
 */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { checkSection } from '../config/check.js';
import { reasonOf, TroupeError } from '../config/errors.js';
import { readJson } from '../config/json.js';
import { type TemplateSettings, template } from '../config/schema/chat.js';
import { type ChatMessage, ChatTemplates, type RenderedChat, TEMPLATE_FILE } from './chat-template.js';
import { type TokenBytes, tokenBytes } from './token-bytes.js';
import { Pipeline } from './tokenization/pipeline.js';
import { prepared, tokenizerSchema } from './tokenization/schema.js';

/** Files of a model folder that this one reads, without templates and what other parts read too. */
export const READ_BY_TOKENIZER = ['tokenizer.json', 'tokenizer_config.json', 'special_tokens_map.json'];

/** The same with what transformers wants beside them. */
export const TOKENIZER_FILES = [...READ_BY_TOKENIZER, TEMPLATE_FILE, 'vocab.json', 'merges.txt'];

export interface ChatOptions {
  /** Ends with the beginning of the assistant's turn. Default true. */
  addGenerationPrompt?: boolean;
  /** What is not given is the schema's default: thinking is off, as the study runs. */
  template?: Partial<TemplateSettings>;
}

const DEFAULT_TEMPLATE = template.parse({});

const endTokenSchema = z.looseObject({
  eos_token_id: z.union([z.int(), z.array(z.int())]).nullish(),
});
const namedToken = z
  .union([z.string(), z.looseObject({ content: z.string() })])
  .nullish()
  .meta({ takes: 'text, or { content: text }' });
const SPECIAL = ['bos_token', 'eos_token', 'unk_token', 'sep_token', 'pad_token', 'cls_token', 'mask_token'];
const configSchema = z.looseObject(Object.fromEntries(SPECIAL.map((name) => [name, namedToken])));
type TokenizerConfig = z.output<typeof configSchema>;

export class Tokenizer {
  readonly folder: string;
  /** Ids that end a response: eos_token_id of generation_config.json and config.json, eos_token of the tokenizer. */
  readonly endTokens: number[];
  /** Ids that the tokenizer names; a model's vocabulary may be padded beyond. */
  readonly vocabularySize: number;
  readonly #pipeline: Pipeline;
  readonly #templates: ChatTemplates;
  readonly #specialTexts: Record<string, string>;

  /** Reads tokenizer.json, tokenizer_config.json and the chat template of `folder`. */
  static load(folder: string): Tokenizer {
    return new Tokenizer(folder);
  }

  private constructor(folder: string) {
    this.folder = folder;
    const file = join(folder, 'tokenizer.json');
    const json = checkSection(tokenizerSchema, prepared(readJson(file)), { whole: 'it', locate: () => file });
    const config = readConfig(folder, 'tokenizer_config.json');
    this.#pipeline = forPeople(file, () => new Pipeline(json));
    // No spreading of keys: Qwen's vocabulary has more than a call takes arguments.
    let highest = -1;
    for (const id of this.#pipeline.tokens.keys()) highest = Math.max(highest, id);
    this.vocabularySize = 1 + highest;
    this.#specialTexts = {
      ...specialTexts(readConfig(folder, 'special_tokens_map.json')),
      ...specialTexts(config),
    };
    this.#templates = new ChatTemplates(folder, config, this.#specialTexts, (text) =>
      this.#pipeline.spelled(text),
    );
    this.endTokens = this.#endTokens();
  }

  /** Ids of a text. Special tokens in it are recognised, but where they are `literal`; none are added. */
  encode(text: string, literal?: ReadonlySet<number>): number[] {
    return forPeople(this.folder, () => this.#pipeline.encode(text, literal));
  }

  /** Ids of a text in which special tokens are text. */
  encodePlain(text: string): number[] {
    return forPeople(this.folder, () => this.#pipeline.encode(text, this.#pipeline.spelled(text)));
  }

  /** Text of ids. Ids without a token stand for nothing. */
  decode(ids: ArrayLike<number>, options: { skipSpecialTokens?: boolean } = {}): string {
    return forPeople(this.folder, () => this.#pipeline.decode(ids, options.skipSpecialTokens ?? true));
  }

  /** Text of the chat template and its ids. Throws as `renderChat` does. */
  applyChatTemplate(
    messages: readonly ChatMessage[],
    options: ChatOptions = {},
  ): RenderedChat & { ids: number[] } {
    const rendered = this.renderChat(messages, options);
    return { ...rendered, ids: this.encode(rendered.text, rendered.literal) };
  }

  /**
   * The messages as the chat template writes them. Special tokens in the messages' own texts are `literal`. Throws a
   * TroupeError if the folder has no such template or the template refuses the messages.
   */
  renderChat(messages: readonly ChatMessage[], options: ChatOptions = {}): RenderedChat {
    const settings = { ...DEFAULT_TEMPLATE, ...options.template };
    return this.#templates.render(messages, settings, options.addGenerationPrompt ?? true);
  }

  /** Bytes of every id up to `size`, the model's vocabulary: for stop strings. */
  tokenBytes(size = this.vocabularySize): TokenBytes {
    return forPeople(this.folder, () => tokenBytes((id) => this.#pipeline.bytes(id), size));
  }

  #endTokens(): number[] {
    const ids = new Set<number>();
    for (const name of ['generation_config.json', 'config.json']) {
      const file = join(this.folder, name);
      if (!existsSync(file)) continue;
      const { eos_token_id: eos } = checkSection(endTokenSchema, readJson(file), { locate: () => file });
      for (const id of Array.isArray(eos) ? eos : [eos]) if (typeof id === 'number') ids.add(id);
    }
    const named = this.#specialTexts.eos_token;
    for (const { id, content } of this.#pipeline.added) if (content === named) ids.add(id);
    return [...ids];
  }
}

/** What of a file or a text cannot be used. */
function forPeople<T>(where: string, use: () => T): T {
  try {
    return use();
  } catch (cause) {
    throw new TroupeError(`the tokenizer cannot be used: ${reasonOf(cause)}.`, { where, cause });
  }
}

function readConfig(folder: string, name: string): TokenizerConfig {
  const file = join(folder, name);
  if (!existsSync(file)) return {};
  return checkSection(configSchema, readJson(file), { whole: 'the file', locate: () => file });
}

/** bos_token, eos_token and the like, which templates may name; text, or an object around it. */
function specialTexts(config: TokenizerConfig): Record<string, string> {
  const texts: Record<string, string> = {};
  for (const key of SPECIAL) {
    const named = config[key] as z.output<typeof namedToken>;
    if (named) texts[key] = typeof named === 'string' ? named : named.content;
  }
  return texts;
}

export type { ChatMessage, RenderedChat };
