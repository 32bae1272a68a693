/**
 * Prompt templates: one YAML file for each workflow, kind of task and style, configs/prompts/STYLE/KIND/
 * WORKFLOW.yaml, in a user's own folder FOLDER/KIND/WORKFLOW.yaml. A template is a list of messages, each one
 * `role: Jinja text`. The map `responses` holds what a role should answer, for supervised data (supervised.ts).
 */
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { checkSection } from '../config/check.js';
import { TroupeError } from '../config/errors.js';
import { readText } from '../config/json.js';
import { unknownName } from '../config/nearest.js';
import { findPath, packageRoot } from '../config/package.js';
import { Template } from '../config/template.js';
import { yamlOf } from '../config/yaml.js';
import type { Message } from './types.js';

const message = z
  .strictObject({ system: z.string(), user: z.string(), assistant: z.string() })
  .partial()
  .refine((value) => Object.keys(value).length === 1, 'takes one of system, user and assistant.');
const promptFile = z
  .object({ responses: z.record(z.string(), z.string()).default({}) })
  .catchall(z.array(message).min(1));

type Fields = Record<string, unknown>;
type MessageTemplate = { role: Message['role']; template: Template };

/** The templates of one workflow, ready to render. */
export class Prompts {
  readonly file: string;
  readonly #templates: Map<string, MessageTemplate[]>;
  readonly #responses: Map<string, Template>;

  constructor(file: string) {
    const { responses, ...templates } = readPromptFile(file);
    this.file = file;
    this.#templates = new Map(
      Object.entries(templates).map(([name, messages]) => [
        name,
        messages.map((m) => messageTemplate(m, name, file)),
      ]),
    );
    this.#responses = new Map(
      Object.entries(responses).map(([role, text]) => [role, compile(text, `responses.${role}`, file)]),
    );
  }

  /** Roles of the messages of each template, by its name. */
  get shapes(): ReadonlyMap<string, Message['role'][]> {
    return new Map([...this.#templates].map(([name, messages]) => [name, messages.map(({ role }) => role)]));
  }

  /** The messages of template `name`. Throws a TroupeError if there is none. */
  render(name: string, fields: Fields): Message[] {
    const templates = this.#templates.get(name);
    if (templates === undefined)
      throw unknownName('prompt template', name, [...this.#templates.keys()], this.file);
    return templates.map(({ role, template }) => ({ role, content: template.render(fields).trim() }));
  }

  /** What the role should answer. Throws a TroupeError if the file does not say. */
  response(role: string, fields: Fields): string {
    const template = this.#responses.get(role);
    if (template === undefined) {
      throw new TroupeError(`has no response for the role "${role}".`, {
        where: this.file,
        hint: 'Supervised data needs a template of it under `responses`.',
      });
    }
    return template.render(fields).trim();
  }
}

/** Style of the templates (full, small) or a folder → the prompt file of a workflow; undefined if it has none. */
export function findPromptFile(style: string, kind: 'math' | 'code', workflow: string): string | undefined {
  const own = join(packageRoot(), 'configs', 'prompts');
  const folder = /[/\\.]/.test(style) ? findPath(style) : join(own, style);
  if (!existsSync(folder)) {
    throw unknownName(
      'style of prompts',
      style,
      [...readdirSync(own), 'or the path of a folder'],
      'workflow.prompts',
    );
  }
  const file = join(folder, kind, `${workflow}.yaml`);
  return existsSync(file) ? file : undefined;
}

function readPromptFile(file: string): z.output<typeof promptFile> {
  const { value } = yamlOf(readText(file), file);
  return checkSection(promptFile, value, { whole: 'the file', locate: () => file });
}

function messageTemplate(value: z.output<typeof message>, name: string, file: string): MessageTemplate {
  const [[role, text] = ['user', '']] = Object.entries(value);
  return { role: role as Message['role'], template: compile(text ?? '', name, file) };
}

function compile(text: string, name: string, file: string): Template {
  return new Template(text, { where: file, name: `template "${name}"` });
}
