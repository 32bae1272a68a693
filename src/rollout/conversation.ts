/**
 * Messages to prompt tokens. A follow-up turn carries earlier completions as the ids that were sampled, not as
 * their text tokenised again (which can give other ids, and would break the prefix that caches and prefix trees
 * live on).
 */
import type { Message, RoleCall } from '../workflows/types.js';

export interface RenderedChat {
  text: string;
  /** Places in `text` where a special token is spelled by a message and is text. */
  literal: ReadonlySet<number>;
}

/** What this needs of a tokenizer with a chat template. */
export interface ChatTokenizer {
  /** The chat template's text, as `role` has it, with the generation prompt at its end. */
  renderChat(messages: readonly Message[], role: string): RenderedChat;
  /** Ids of a text: special tokens in it are recognised but where they are `literal`, none are added. */
  encode(text: string, literal: ReadonlySet<number>): Int32Array;
  /** Ids of a text in which special tokens are text. */
  encodePlain(text: string): Int32Array;
  /** Text of ids; special tokens are left out unless `special`. */
  decode(ids: Int32Array, special?: boolean): string;
}

export interface EncodedPrompt {
  ids: Int32Array;
  /** The template dropped or changed an earlier completion, so that the prompt does not continue its ids. */
  broken: boolean;
}

/** Conversations kept by their messages: samples and slots of one problem share theirs, later turns begin with earlier ones. */
const KEPT_CHATS = 4096;

interface KeptChat {
  rendered: RenderedChat;
  /** Of the whole text, once they were asked for. */
  ids?: Int32Array;
}

export class PromptEncoder {
  readonly #tokenizer: ChatTokenizer;
  readonly #kept = new Map<string, KeptChat>();

  constructor(tokenizer: ChatTokenizer) {
    this.#tokenizer = tokenizer;
  }

  /** `earlier`: the calls of the same episode that are done. */
  encode(messages: readonly Message[], earlier: Iterable<RoleCall>, role: string): EncodedPrompt {
    const chat = this.#chat(messages, role);
    const previous = longestContinued(messages, earlier);
    if (previous === undefined) return { ids: this.#idsOf(chat), broken: false };
    const { text, literal } = chat.rendered;
    const rest = this.#restAfter(previous, text);
    if (rest === undefined) return { ids: this.#idsOf(chat), broken: true };
    const from = text.length - rest.length;
    const later = new Set([...literal].filter((at) => at >= from).map((at) => at - from));
    return {
      ids: joined(previous.prompt, previous.completion.ids, this.#tokenizer.encode(rest, later)),
      broken: false,
    };
  }

  decode(ids: Int32Array): string {
    return this.#tokenizer.decode(ids);
  }

  /** What follows the sampled ids of `call` in the text; undefined if the text does not continue them. */
  #restAfter(call: RoleCall, text: string): string | undefined {
    const before = this.#chat(call.messages, call.role).rendered.text + call.text;
    if (!text.startsWith(before)) return undefined;
    const rest = text.slice(before.length);
    // A response that ended by itself has its end token among its ids; the template writes it once more.
    const { ids, finish } = call.completion;
    const end = finish === 'stop' ? this.#tokenizer.decode(ids.slice(-1), true) : '';
    if (finish === 'stop' && end !== '' && rest.startsWith(end) && !call.text.endsWith(end))
      return rest.slice(end.length);
    return rest;
  }

  #chat(messages: readonly Message[], role: string): KeptChat {
    const key = JSON.stringify([role, ...messages.map((one) => [one.role, one.content])]);
    const kept = this.#kept.get(key);
    if (kept !== undefined) return kept;
    if (this.#kept.size >= KEPT_CHATS) this.#kept.clear();
    const chat = { rendered: this.#tokenizer.renderChat(messages, role) };
    this.#kept.set(key, chat);
    return chat;
  }

  #idsOf(chat: KeptChat): Int32Array {
    chat.ids ??= this.#tokenizer.encode(chat.rendered.text, chat.rendered.literal);
    return chat.ids;
  }
}

/** The call whose messages and answer begin `messages`, the longest such. */
function longestContinued(messages: readonly Message[], earlier: Iterable<RoleCall>): RoleCall | undefined {
  if (!messages.some(({ role }) => role === 'assistant')) return undefined;
  let longest: RoleCall | undefined;
  for (const call of earlier) {
    if (call.messages.length > (longest?.messages.length ?? -1) && continues(messages, call)) longest = call;
  }
  return longest;
}

function continues(messages: readonly Message[], call: RoleCall): boolean {
  const answer = messages[call.messages.length];
  return (
    answer?.role === 'assistant' &&
    answer.content === call.text &&
    call.messages.every(
      ({ role, content }, i) => messages[i]?.role === role && messages[i]?.content === content,
    )
  );
}

function joined(...parts: Int32Array[]): Int32Array {
  const ids = new Int32Array(parts.reduce((sum, part) => sum + part.length, 0));
  let offset = 0;
  for (const part of parts) {
    ids.set(part, offset);
    offset += part.length;
  }
  return ids;
}
