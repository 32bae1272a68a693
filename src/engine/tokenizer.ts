/**
 * A model folder's tokenizer and chat template: text to ids and back, messages to prompts. The work is done by
 * @huggingface/tokenizers and @huggingface/jinja; this file reads their inputs from the folder.
 */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Template } from '@huggingface/jinja';
import { Tokenizer as HuggingFaceTokenizer } from '@huggingface/tokenizers';
import { z } from 'zod';
import { checkSection } from '../config/check.js';
import { TroupeError } from '../config/errors.js';
import { readJson } from './configuration.js';
import { type TokenBytes, tokenBytes } from './token-bytes.js';

/** Files of a model folder that this one reads or that transformers wants beside them. */
export const TOKENIZER_FILES = [
  'tokenizer.json',
  'tokenizer_config.json',
  'special_tokens_map.json',
  'chat_template.jinja',
  'vocab.json',
  'merges.txt',
];

export interface ChatMessage {
  role: string;
  content: string;
}

export interface ChatTemplateOptions {
  /** Ends with the beginning of the assistant's turn. Default true. */
  addGenerationPrompt?: boolean;
  /** Qwen3's switch. Default false: the study runs with thinking off. */
  enableThinking?: boolean;
}

const tokenizerSchema = z.looseObject({
  model: z.looseObject({ vocab: z.record(z.string(), z.int().min(0)) }),
  added_tokens: z.array(z.looseObject({ id: z.int().min(0), content: z.string() })).default([]),
});
const endTokenSchema = z.looseObject({
  eos_token_id: z.union([z.int(), z.array(z.int())]).nullish(),
});
const namedTokenSchema = z.union([z.string(), z.looseObject({ content: z.string() })]).nullish();

export class Tokenizer {
  readonly folder: string;
  /** Ids that end a response: eos_token_id of generation_config.json and config.json, eos_token of the tokenizer. */
  readonly endTokens: number[];
  /** Ids that the tokenizer names; a model's vocabulary may be padded beyond. */
  readonly vocabularySize: number;
  readonly #tokenizer: HuggingFaceTokenizer;
  readonly #template: Template | undefined;
  readonly #specialTexts: Record<string, string>;
  readonly #vocabulary: Map<number, string>;
  readonly #added: Map<number, string>;

  /** Reads tokenizer.json, tokenizer_config.json and the chat template of `folder`. */
  static load(folder: string): Tokenizer {
    return new Tokenizer(folder);
  }

  private constructor(folder: string) {
    this.folder = folder;
    const file = join(folder, 'tokenizer.json');
    const json = checkSection(tokenizerSchema, readJson(file), { locate: () => file });
    const config = readOptional(folder, 'tokenizer_config.json');
    this.#tokenizer = new HuggingFaceTokenizer(json, config);
    this.#vocabulary = new Map(Object.entries(json.model.vocab).map(([token, id]) => [id, token]));
    this.#added = new Map(json.added_tokens.map(({ id, content }) => [id, content]));
    // No spreading of keys: Qwen's vocabulary has more than a call takes arguments.
    let highest = -1;
    for (const ids of [this.#vocabulary, this.#added])
      for (const id of ids.keys()) highest = Math.max(highest, id);
    this.vocabularySize = 1 + highest;
    this.#specialTexts = specialTexts(config);
    this.#template = readTemplate(folder, config);
    this.endTokens = this.#endTokens();
  }

  /** Ids of a text. Special tokens in it are recognised; none are added. */
  encode(text: string): number[] {
    return this.#tokenizer.encode(text, { add_special_tokens: false }).ids;
  }

  decode(ids: ArrayLike<number>, options: { skipSpecialTokens?: boolean } = {}): string {
    if (ids.length === 0) return '';
    return this.#tokenizer.decode(Array.from(ids), {
      skip_special_tokens: options.skipSpecialTokens ?? true,
      clean_up_tokenization_spaces: false,
    });
  }

  /** Text of the chat template and its ids. Throws as `renderChat` does. */
  applyChatTemplate(
    messages: readonly ChatMessage[],
    options: ChatTemplateOptions = {},
  ): { text: string; ids: number[] } {
    const text = this.renderChat(messages, options);
    return { text, ids: this.encode(text) };
  }

  /** Throws a TroupeError if the folder has no chat template or the template refuses the messages. */
  renderChat(messages: readonly ChatMessage[], options: ChatTemplateOptions = {}): string {
    if (this.#template === undefined) {
      throw new TroupeError('has no chat template.', {
        where: this.folder,
        hint: 'Add chat_template.jinja, or chat_template in tokenizer_config.json.',
      });
    }
    try {
      return this.#template.render({
        ...this.#specialTexts,
        messages: messages.map(({ role, content }) => ({ role, content })),
        add_generation_prompt: options.addGenerationPrompt ?? true,
        enable_thinking: options.enableThinking ?? false,
      });
    } catch (cause) {
      throw new TroupeError(`the chat template failed: ${(cause as Error).message}.`, {
        where: this.folder,
        cause,
      });
    }
  }

  /** Bytes of every id up to `size`, the model's vocabulary: for stop strings. */
  tokenBytes(size = this.vocabularySize): TokenBytes {
    return tokenBytes(this.#vocabulary, this.#added, size);
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
    for (const [id, text] of this.#added) if (text === named) ids.add(id);
    return [...ids];
  }
}

function readOptional(folder: string, name: string): Record<string, unknown> {
  const file = join(folder, name);
  return existsSync(file) ? (readJson(file) as Record<string, unknown>) : {};
}

/** bos_token, eos_token and the like, which templates may name; text, or an object around it. */
function specialTexts(config: Record<string, unknown>): Record<string, string> {
  const texts: Record<string, string> = {};
  for (const key of ['bos_token', 'eos_token', 'pad_token', 'unk_token']) {
    const named = namedTokenSchema.parse(config[key]);
    if (named) texts[key] = typeof named === 'string' ? named : named.content;
  }
  return texts;
}

function readTemplate(folder: string, config: Record<string, unknown>): Template | undefined {
  const file = join(folder, 'chat_template.jinja');
  const text = existsSync(file) ? readFileSync(file, 'utf8') : config.chat_template;
  if (typeof text !== 'string') return undefined;
  try {
    return new Template(text);
  } catch (cause) {
    throw new TroupeError(`the chat template does not parse: ${(cause as Error).message}.`, {
      where: folder,
      cause,
    });
  }
}
