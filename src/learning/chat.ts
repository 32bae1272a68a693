/** A tokenizer as the rollout's prompt encoder wants it, with the run's settings of the chat template. */
import { reasonOf, TroupeError } from '../config/errors.js';
import { ownValue } from '../config/own-value.js';
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
      const own = ownValue(roles, role)?.template;
      return tokenizer.renderChat(messages, { template: { ...template, ...own } });
    },
    encode: (text, literal) => Int32Array.from(tokenizer.encode(text, literal)),
    encodePlain: (text) => Int32Array.from(tokenizer.encodePlain(text)),
    decode: (ids, special = false) => tokenizer.decode(ids, { skipSpecialTokens: !special }),
  };
}

/**
 * Renders a conversation of each role's shape, so that what the chat template refuses is said before a model loads.
 * Throws a TroupeError that names the role. Returns what a person should know: which second turns it would refuse, where
 * nothing says whether the workflow has any.
 */
export function checkChat(chat: ChatTokenizer, { workflow, prompts, where }: OpenWorkflow): string[] {
  const refused: string[] = [];
  for (const role of workflow.roles) {
    for (const shape of shapesOf(role, workflow.roles, prompts)) {
      const messages = messagesOf(shape);
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
    if (laterShapes(workflow.roles, prompts).length === 0)
      refused.push(...refusedTurns(chat, role, shapesOf(role, workflow.roles, prompts)));
  }
  return refused;
}

/** The role's first turn, an answer, and a user's word: as a workflow goes on that keeps its conversation itself. */
function refusedTurns(chat: ChatTokenizer, role: string, shapes: readonly Shape[]): string[] {
  return shapes.flatMap((first) => {
    const shape: Shape[number][] = [...first, 'assistant', 'user'];
    try {
      chat.renderChat(messagesOf(shape), role);
      return [];
    } catch (cause) {
      return [`the chat template refuses a second turn of ${role} (${shape.join(', ')}): ${reasonOf(cause)}`];
    }
  });
}

const messagesOf = (shape: Shape): Message[] =>
  shape.map((from) => ({ role: from, content: `A text of the ${from}.` }));

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
  const later = laterShapes(roles, prompts);
  return [
    ...first,
    ...first.flatMap((start) => later.map((more): Shape => [...start, 'assistant', ...more])),
  ];
}

/** What templates of no role's name add after an answer. */
function laterShapes(roles: readonly string[], prompts: Prompts | undefined): Shape[] {
  return [...(prompts?.shapes ?? [])].filter(([name]) => !roles.includes(name)).map(([, shape]) => shape);
}
