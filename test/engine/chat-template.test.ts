/** Which template of a folder is used, what it is given, and that no message writes a control token. */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { writeSmallTokenizer } from '../../src/engine/small-tokenizer.js';
import { Tokenizer } from '../../src/engine/tokenizer.js';
import { chatTokenizer, checkChat } from '../../src/learning/chat.js';
import { PromptEncoder } from '../../src/rollout/conversation.js';
import type { OpenWorkflow } from '../../src/workflows/registry.js';
import type { Message } from '../../src/workflows/types.js';

const temporary = mkdtempSync(join(tmpdir(), 'troupe-templates-'));
afterAll(() => rmSync(temporary, { recursive: true, force: true }));
let folders = 0;

interface FolderParts {
  file?: string;
  more?: Record<string, string>;
  config?: Record<string, unknown>;
  special?: string[];
}

/** A folder of the small tokenizer with other templates and special tokens beside its three. */
function folder({ file, more = {}, config = {}, special = [] }: FolderParts): string {
  const path = join(temporary, `${folders++}`);
  mkdirSync(join(path, 'additional_chat_templates'), { recursive: true });
  writeSmallTokenizer(path, ['a', 'b']);
  rmSync(join(path, 'chat_template.jinja'));
  if (file !== undefined) writeFileSync(join(path, 'chat_template.jinja'), file);
  for (const [name, text] of Object.entries(more))
    writeFileSync(join(path, 'additional_chat_templates', `${name}.jinja`), text);
  writeFileSync(join(path, 'tokenizer_config.json'), JSON.stringify({ eos_token: '<|im_end|>', ...config }));
  if (special.length > 0) addSpecial(join(path, 'tokenizer.json'), special);
  return path;
}

function addSpecial(path: string, special: string[]): void {
  const json = JSON.parse(readFileSync(path, 'utf8')) as {
    added_tokens: { id: number; content: string }[];
    model: { vocab: Record<string, number> };
  };
  const size = Object.keys(json.model.vocab).length;
  const [pattern] = json.added_tokens;
  const known = new Set(json.added_tokens.map(({ content }) => content));
  const added = special.filter((content) => !known.has(content));
  json.added_tokens.push(...added.map((content, i) => ({ ...pattern, content, id: size + i })));
  writeFileSync(path, JSON.stringify(json));
}

const user = [{ role: 'user', content: 'a' }];
const rendered = (path: string, template = {}) => Tokenizer.load(path).renderChat(user, { template }).text;
const list = (...names: string[]) => names.map((name) => ({ name, template: `config ${name}` }));

describe('of several templates', () => {
  it.each<[string, FolderParts, object, string]>([
    ['the text of tokenizer_config.json', { config: { chat_template: 'one' } }, {}, 'one'],
    ['its default', { config: { chat_template: list('rag', 'default') } }, {}, 'config default'],
    [
      'its tool_use where there are tools',
      { config: { chat_template: list('tool_use', 'default') } },
      { tools: [{}] },
      'config tool_use',
    ],
    [
      'its default where there are none',
      { config: { chat_template: list('tool_use', 'default') } },
      {},
      'config default',
    ],
    [
      'its default where no tool_use is',
      { config: { chat_template: list('default') } },
      { tools: [{}] },
      'config default',
    ],
    ['the named one', { config: { chat_template: list('rag', 'default') } }, { name: 'rag' }, 'config rag'],
    ['the file before tokenizer_config.json', { file: 'file', config: { chat_template: 'one' } }, {}, 'file'],
    ['a file of the folder', { file: 'file', more: { rag: 'more' } }, { name: 'rag' }, 'more'],
    ['the tool_use of the folder', { file: 'file', more: { tool_use: 'more' } }, { tools: [{}] }, 'more'],
  ])('%s', (_, parts, settings, text) => {
    expect(rendered(folder(parts), settings)).toBe(text);
  });

  it('none is guessed', () => {
    expect(() => rendered(folder({ config: { chat_template: list('x', 'y') } }))).toThrow(
      /x, y and no default.*template\.name/,
    );
    expect(() => rendered(folder({ more: { rag: 'more' }, config: { chat_template: 'one' } }))).toThrow(
      /rag and no default/,
    );
    expect(() => rendered(folder({ file: 'file' }), { name: 'rga' })).toThrow(
      /no chat template is named "rga"; there are default/,
    );
    expect(() => rendered(folder({}))).toThrow(/has no chat template\./);
    expect(() => rendered(folder({ config: { chat_template: 3 } }))).toThrow(/chat_template is 3/);
  });
});

it('gives the template what the settings say', () => {
  const path = folder({ file: '{{ enable_thinking }} {{ tools }} {{ documents }} {{ depth }}' });
  expect(rendered(path)).toBe('False None None ');
  const settings = { enableThinking: true, fields: { depth: 3 }, tools: [{ name: 'f' }] };
  expect(rendered(path, settings)).toBe("True [{'name': 'f'}] None 3");
});

/** Their shapes as the families' documentation describes them; texts are ours. */
const FAMILIES: Record<string, { template: string; special: string[] }> = {
  chatml: {
    template:
      "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endfor %}{{ '<|im_start|>assistant\n' }}",
    special: ['<|im_start|>', '<|im_end|>', '<|endoftext|>'],
  },
  llama3: {
    template:
      "{{ '<|begin_of_text|>' }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n{{ m.content | trim }}<|eot_id|>{% endfor %}<|start_header_id|>assistant<|end_header_id|>\n\n",
    special: ['<|begin_of_text|>', '<|start_header_id|>', '<|end_header_id|>', '<|eot_id|>', '<|eom_id|>'],
  },
  gemma: {
    template:
      "<bos>{% for m in messages %}<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n{{ m.content.strip() }}<end_of_turn>\n{% endfor %}<start_of_turn>model\n",
    special: ['<bos>', '<eos>', '<start_of_turn>', '<end_of_turn>'],
  },
  mistral: {
    template:
      "<s>{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }}[/INST]{% else %} {{ m.content }}</s>{% endif %}{% endfor %}",
    special: ['<s>', '</s>', '[INST]', '[/INST]'],
  },
  phi: {
    template:
      "{% for m in messages %}{{ '<|' + m.role + '|>\\n' + m.content + '<|end|>\\n' }}{% endfor %}<|assistant|>\n",
    special: ['<|system|>', '<|user|>', '<|assistant|>', '<|end|>', '<|endoftext|>'],
  },
};

it('a template that is not UTF-8 is refused, none of its characters replaced', () => {
  const path = folder({ file: 'x' });
  writeFileSync(join(path, 'chat_template.jinja'), Buffer.from([0x61, 0xe9]));
  expect(() => Tokenizer.load(path)).toThrow(/chat_template.jinja: cannot be read: it is not UTF-8 text/);
});

describe('special tokens in a message are text', () => {
  it.each(Object.keys(FAMILIES))('%s', (name) => {
    const { template, special } = FAMILIES[name] as (typeof FAMILIES)[string];
    const tokenizer = Tokenizer.load(folder({ file: template, special }));
    const ids = new Set(special.map((token) => tokenizer.encode(token)[0] as number));
    const control = (conversation: Message[]) => {
      const found = tokenizer.applyChatTemplate(conversation);
      expect(tokenizer.decode(found.ids, { skipSpecialTokens: false })).toBe(found.text);
      return found.ids.filter((id) => ids.has(id));
    };
    const conversation = (text: string): Message[] => [
      { role: 'user', content: `${text} ${text}` },
      { role: 'assistant', content: text },
      { role: 'user', content: `x${text}` },
    ];
    const plain = control(conversation('word'));
    expect(plain.length).toBeGreaterThan(2);
    for (const token of special) expect(control(conversation(token)), token).toEqual(plain);
    expect(control(conversation(special.join('')))).toEqual(plain);
    // Characters that mark such places are text too.
    expect(control(conversation(`\uFDD0${special[0]}\uFDD0\uFDD0${special[1]}\uFDD0`))).toEqual(plain);
  });

  it('in the rest of a conversation, behind ids that were sampled', () => {
    const { template, special } = FAMILIES.chatml as (typeof FAMILIES)[string];
    const tokenizer = Tokenizer.load(folder({ file: template, special }));
    const settings = {
      name: null,
      enableThinking: false,
      tools: [],
      system: 'template',
      fields: {},
    } as const;
    const prompts = new PromptEncoder(chatTokenizer(tokenizer, { ...settings, tools: [] }));
    const first: Message[] = [{ role: 'user', content: 'q' }];
    const sampled = Int32Array.from([
      ...tokenizer.encode('yes'),
      tokenizer.encode('<|im_end|>')[0] as number,
    ]);
    const call = {
      role: 'solver',
      messages: first,
      prompt: prompts.encode(first, [], 'solver').ids,
      completion: { ids: sampled, finish: 'stop' },
      text: 'yes',
    } as never;
    const next: Message[] = [
      ...first,
      { role: 'assistant', content: 'yes' },
      { role: 'user', content: 'b<|im_end|>c' },
    ];
    const { ids, broken } = prompts.encode(next, [call], 'solver');
    expect(broken).toBe(false);
    const end = sampled.at(-1);
    expect([...ids].filter((id) => id === end)).toHaveLength(3);
    expect(tokenizer.decode(ids, { skipSpecialTokens: false })).toBe(tokenizer.renderChat(next).text);
  });
});

describe('a template without a system role', () => {
  const strict =
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}[{{ m.role }}]{{ m.content }}{% endfor %}";
  const workflow = (...shape: Message['role'][]) =>
    ({
      where: 'workflow test',
      workflow: { roles: ['solver', 'judge'] },
      prompts: {
        shapes: new Map([
          ['solver', shape],
          ['judge', ['user']],
        ]),
      },
    }) as unknown as OpenWorkflow;
  const settings = { name: null, enableThinking: false, tools: [], fields: {} };

  it('gets the text before the next user message', () => {
    const tokenizer = Tokenizer.load(folder({ file: strict }));
    const messages = [
      { role: 'system', content: 's' },
      { role: 'user', content: 'u' },
      { role: 'assistant', content: 'x' },
      { role: 'system', content: 't' },
    ];
    expect(tokenizer.renderChat(messages, { template: { system: 'user' } }).text).toBe(
      '[user]s\n\nu[assistant]x[user]t',
    );
  });

  it('is refused before a model loads, with what to set', () => {
    const tokenizer = Tokenizer.load(folder({ file: strict }));
    const chat = chatTokenizer(tokenizer, { ...settings, system: 'template' });
    expect(() => checkChat(chat, workflow('system', 'user'))).toThrow(
      /messages of solver \(system, user\) cannot be rendered: .*System role not supported.*model\.template\.system: user/,
    );
    expect(() => checkChat(chat, workflow('user'))).not.toThrow();
    const own = { solver: { template: { system: 'user' as const } } };
    expect(() =>
      checkChat(
        chatTokenizer(tokenizer, { ...settings, system: 'template' }, own),
        workflow('system', 'user'),
      ),
    ).not.toThrow();
  });

  it('says which second turns it refuses, where nothing says whether there are any', () => {
    const once = "{% if messages | length > 1 %}{{ raise_exception('One message only.') }}{% endif %}x";
    const chat = chatTokenizer(Tokenizer.load(folder({ file: once })), { ...settings, system: 'template' });
    expect(checkChat(chat, workflow('user'))).toEqual([
      expect.stringMatching(/refuses a second turn of solver \(user, assistant, user\): .*One message only/),
      expect.stringMatching(/second turn of judge/),
    ]);
  });
});
