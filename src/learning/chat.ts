/** A tokenizer as the rollout's prompt encoder wants it. */
import type { Tokenizer } from '../engine/tokenizer.js';
import type { ChatTokenizer } from '../rollout/conversation.js';

export function chatTokenizer(tokenizer: Tokenizer): ChatTokenizer {
  return {
    renderChat: (messages) => tokenizer.renderChat(messages, { addGenerationPrompt: true }),
    encode: (text) => Int32Array.from(tokenizer.encode(text)),
    decode: (ids, special = false) => tokenizer.decode(ids, { skipSpecialTokens: !special }),
  };
}
