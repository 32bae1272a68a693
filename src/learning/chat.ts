/** A tokenizer as the rollout's prompt encoder wants it, with the run's settings of the chat template. */
import { reasonOf, TroupeError } from '../config/errors.js';
import type { RunConfig } from '../config/schema.js';
import type { Tokenizer } from '../engine/tokenizer.js';
import type { ChatTokenizer } from '../rollout/conversation.js';
import type { Prompts } from '../workflows/prompts.js';
import type { OpenWorkflow } from '../workflows/registry.js';
import type { Message } from '../workflows/types.js';

type Settings = RunConfig['model']['template'];
/** Of single roles. */
type Roles = RunConfig['rollout']['roles'];

export function chatTokenizer(tokenizer: Tokenizer, template: Settings, roles: Roles = {}): ChatTokenizer {
  return {
    renderChat: (messages, role) => {
      const own = Object.hasOwn(roles, role) ? roles[role]?.template : undefined;
      return tokenizer.renderChat(messages, { template: { ...template, ...own } });
    },
    encode: (text, literal) => Int32Array.from(tokenizer.encode(text, literal)),
    encodePlain: (text) => Int32Array.from(tokenizer.encodePlain(text)),
    decode: (ids, special = false) => tokenizer.decode(ids, { skipSpecialTokens: !special }),
  };
}

/**
 * Renders a conversation of each role's shape, so that what the chat template refuses is said before a model loads.
 * Throws a TroupeError that names the role.
 */
export function checkChat(chat: ChatTokenizer, { workflow, prompts, where }: OpenWorkflow): void {
  for (const role of workflow.roles) {
    for (const shape of shapesOf(role, workflow.roles, prompts)) {
      const messages = shape.map((from) => ({ role: from, content: `A text of the ${from}.` }));
      try {
        chat.renderChat(messages, role);
      } catch (cause) {
        const lacksSystem = shape.includes('system') && renders(chat, messages.slice(1), role);
        const setting = 'model.template.system: user puts it before the next user message';
        throw new TroupeError(
          `the messages of ${role} (${shape.join(', ')}) cannot be rendered: ${reasonOf(cause)}.`,
          {
            where,
            cause,
            ...(lacksSystem && { hint: `The template has no system role; ${setting}.` }),
          },
        );
      }
    }
  }
}

function renders(chat: ChatTokenizer, messages: readonly Message[], role: string): boolean {
  try {
    chat.renderChat(messages, role);
    return true;
  } catch {
    return false;
  }
}

type Shape = Message['role'][];

/** What a role begins with, and that with what templates of no role's name add after an answer. */
function shapesOf(role: string, roles: readonly string[], prompts: Prompts | undefined): Shape[] {
  const shapes = prompts?.shapes ?? new Map<string, Shape>();
  const own = shapes.get(role);
  const first: Shape[] = own !== undefined ? [own] : shapes.size > 0 ? [...shapes.values()] : [['user']];
  const later = [...shapes].filter(([name]) => !roles.includes(name)).map(([, shape]) => shape);
  return [
    ...first,
    ...first.flatMap((start) => later.map((more): Shape => [...start, 'assistant', ...more])),
  ];
}
