/**
 * `troupe serve`, asked by OpenAI's own client. Fails if the answers are not what that client reads, if they are sampled
 * otherwise than `generate` says, or if anything that is sent ends the server.
 */
import { request as httpRequest } from 'node:http';
import { connect } from 'node:net';
import { Worker } from 'node:worker_threads';
import OpenAI from 'openai';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { Engine } from '../../src/engine/engine.js';
import { loadServed, type Served } from '../../src/learning/serving/served.js';
import { ApiServer } from '../../src/learning/serving/server.js';
import { type TrainedRun, trainedRun } from './trained-run.js';

let run: TrainedRun;
let engine: Engine;
let served: Served;
let server: ApiServer;
let client: OpenAI;
beforeAll(async () => {
  run = await trainedRun({ steps: 1, evaluation: { every: 0, problems: 2 } });
  engine = new Engine();
  served = await loadServed(engine, run.folder, { set: [], warn: () => {} });
  server = await ApiServer.start(served, 0);
  client = new OpenAI({ baseURL: server.url, apiKey: 'none', maxRetries: 0 });
});
afterAll(async () => {
  await server.close();
  await engine.close();
});

const messages = [{ role: 'user' as const, content: '7+8' }];
const question = { model: 'generator', messages, seed: 3, max_tokens: 40, temperature: 1 };

describe("OpenAI's client", () => {
  it('sees the roles as models', async () => {
    const { data } = await client.models.list();
    expect(data.map(({ id }) => id)).toEqual(['generator', 'aggregator']);
    expect(await client.models.retrieve('aggregator')).toMatchObject({ id: 'aggregator', object: 'model' });
    const none = client.models.retrieve('voter');
    await expect(none).rejects.toMatchObject({ status: 404, message: expect.stringContaining('voter') });
  });

  it('gets the greedy answer that the engine gives, with its log-probabilities', async () => {
    const answer = await client.chat.completions.create({ ...question, temperature: 0, logprobs: true });
    const { text, literal } = served.chat.renderChat(messages, 'generator');
    const sampling = { temperature: 0, topK: 0, topP: 1, minP: 0, maxTokens: 40, stop: [] };
    const prompt = served.chat.encode(text, literal);
    const expected = await engine.complete({
      policy: 'generator',
      prompt,
      sampling,
      counter: [0, 0, 0, 0, 0],
    });
    const [choice] = answer.choices;
    expect(choice?.message.content).toBe(served.chat.decode(expected.ids));
    expect(choice?.finish_reason).toBe('stop');
    const logprobs = choice?.logprobs?.content?.map(({ logprob }) => logprob) ?? [];
    // The end token has no text, and so no entry.
    expect(logprobs).toHaveLength(expected.ids.length - 1);
    for (const [i, logprob] of logprobs.entries()) expect(logprob).toBeCloseTo(expected.logprobs[i] ?? 1, 4);
    const tokens = choice?.logprobs?.content?.map(({ token }) => token).join('');
    expect(tokens).toBe(choice?.message.content);
    expect(answer.usage).toEqual({
      prompt_tokens: prompt.length,
      completion_tokens: expected.ids.length,
      total_tokens: prompt.length + expected.ids.length,
    });
  });

  it('gets the same from a seed, streamed or not, and several choices that differ', async () => {
    const ask = { ...question, n: 4, temperature: 50 };
    const whole = await client.chat.completions.create(ask);
    const texts = whole.choices.map(({ message }) => message.content);
    const again = await client.chat.completions.create(ask);
    expect(again.choices.map(({ message }) => message.content)).toEqual(texts);
    expect(new Set(texts).size).toBeGreaterThan(1);
    const streamed = ['', '', '', ''];
    const roles: (string | undefined)[] = [];
    const ends: (string | null)[] = [];
    let usage: object | null | undefined;
    let events = 0;
    const stream = await client.chat.completions.create({
      ...ask,
      stream: true,
      stream_options: { include_usage: true },
    });
    for await (const { choices, usage: total } of stream) {
      events += 1;
      if (total) usage = total;
      for (const { index, delta, finish_reason: end } of choices) {
        streamed[index] += delta.content ?? '';
        if (delta.role) roles.push(delta.role);
        if (end !== null) ends[index] = end;
      }
    }
    expect(streamed).toEqual(texts);
    expect(ends).toEqual(whole.choices.map(({ finish_reason: end }) => end));
    expect(roles).toEqual(Array.from({ length: 4 }, () => 'assistant'));
    expect(usage).toEqual(whole.usage);
    // As they come, not at the end.
    const pieces = whole.choices.filter(({ finish_reason: end }) => end === 'length').length;
    expect(pieces).toBeGreaterThan(0);
    expect(events).toBeGreaterThanOrEqual(4 + 2 * pieces + 1);
    const other = await client.chat.completions.create({ ...ask, seed: 4 });
    expect(other.choices.map(({ message }) => message.content)).not.toEqual(texts);
  });

  it('gets texts that end before a stop text, streamed too', async () => {
    const ask = { model: 'generator', prompt: '7+8 = 15', max_tokens: 40, seed: 1, temperature: 50 };
    const { choices } = await client.completions.create({ ...ask, logprobs: 1 });
    const text = choices[0]?.text ?? '';
    // Said across the ends of tokens.
    const end = choices[0]?.logprobs?.text_offset?.[16] ?? 0;
    const stop = text.slice(end - 1, end + 2);
    expect(stop).toHaveLength(3);
    const cut = await client.completions.create({ ...ask, stop: [stop, 'never said'], logprobs: 1 });
    const [choice] = cut.choices;
    expect(choice?.text).toBe(text.slice(0, text.indexOf(stop)));
    expect(choice?.finish_reason).toBe('stop');
    expect(choice?.logprobs?.tokens?.length).toBe(choice?.logprobs?.token_logprobs?.length);
    let streamed = '';
    for await (const event of await client.completions.create({ ...ask, stop, stream: true })) {
      streamed += event.choices[0]?.text ?? '';
    }
    expect(streamed).toBe(choice?.text);
  });

  it('takes prompts as texts, ids, and lists of them', async () => {
    const ids = Array.from(served.chat.encode('7+8', new Set()));
    const ask = { model: 'aggregator', max_tokens: 4, temperature: 0 };
    const texts = await Promise.all(
      (['7+8', ids, ['7+8', '7+8'], [ids, ids]] as const).map(async (prompt) => {
        const { choices } = await client.completions.create({ ...ask, prompt: prompt as string });
        return choices.map(({ text }) => text);
      }),
    );
    const [[text] = []] = texts;
    expect(texts).toEqual([[text], [text], [text, text], [text, text]]);
  });
});

/** What lm-eval's `local-completions` sent for an answer to be scored (lm_eval 0.4.13, a batch of two). */
const scored = (prompt: number[][]) => ({
  model: 'generator',
  prompt,
  temperature: 0,
  max_tokens: 1,
  logprobs: 1,
  seed: 1234,
  echo: true,
});

interface Scored {
  text: string;
  logprobs: {
    tokens: string[];
    token_logprobs: (number | null)[];
    top_logprobs: (Record<string, number> | null)[];
    text_offset: number[];
  };
}

describe('programs that score answers', () => {
  const idsOf = (text: string) => Array.from(served.chat.encode(text, new Set()));

  it("get log p of a prompt's tokens, and what was likeliest, as lm-eval reads it", async () => {
    const prompts = [idsOf('7+8 = 15'), idsOf('Say 1+1 = 3')];
    const answer = await post(JSON.stringify(scored(prompts)), {}, '/v1/completions');
    expect(answer.status).toBe(200);
    const { choices, usage } = JSON.parse(answer.body) as { choices: Scored[]; usage: object };
    const tokens = prompts.flat().length;
    expect(usage).toEqual({ prompt_tokens: tokens, completion_tokens: 2, total_tokens: tokens + 2 });
    const sequences = prompts.map((ids) => Int32Array.from(ids));
    const twin = await engine.send('score', { policy: 'generator', sequences, temperature: 1 });
    for (const [k, ids] of prompts.entries()) {
      const { text, logprobs } = choices[k] as Scored;
      // One place for each token of the prompt and the one that was generated, the end token too.
      for (const list of Object.values(logprobs)) expect(list).toHaveLength(ids.length + 1);
      expect(text.startsWith(served.chat.decode(Int32Array.from(ids)))).toBe(true);
      expect([logprobs.token_logprobs[0], logprobs.top_logprobs[0]]).toEqual([null, null]);
      for (let i = 1; i < ids.length; i++) {
        const logprob = logprobs.token_logprobs[i] as number;
        expect(logprob).toBeCloseTo(twin[k]?.[i - 1] ?? 1, 4);
        const likeliest = Math.max(...Object.values(logprobs.top_logprobs[i] ?? {}));
        const sampling = { temperature: 0, topK: 0, topP: 1, minP: 0, maxTokens: 1, stop: [] };
        const prompt = Int32Array.from(ids.slice(0, i));
        const greedy = await engine.complete({
          policy: 'generator',
          prompt,
          sampling,
          counter: [0, 0, 0, 0, 0],
        });
        expect(likeliest).toBeCloseTo(greedy.logprobs[0] ?? 1, 4);
        expect(logprob === likeliest).toBe(greedy.ids[0] === ids[i]);
      }
      expect(logprobs.text_offset.map((at, i) => text.slice(at, logprobs.text_offset[i + 1])).join('')).toBe(
        text,
      );
    }
  });

  it('generate nothing where nothing is asked for', async () => {
    const ask = { model: 'generator', prompt: '7+8 = 15', max_tokens: 0, echo: true, logprobs: 0 };
    const { choices, usage } = await client.completions.create(ask);
    expect(choices[0]).toMatchObject({ text: '7+8 = 15', finish_reason: 'length' });
    expect(choices[0]?.logprobs?.token_logprobs).toHaveLength(idsOf('7+8 = 15').length);
    expect(choices[0]?.logprobs?.top_logprobs).toBeNull();
    expect(usage?.completion_tokens).toBe(0);
    const { choices: bare } = await client.completions.create({ ...ask, logprobs: null });
    expect(bare[0]).toMatchObject({ text: '7+8 = 15', logprobs: null });
  });

  it('get the whole distribution from the engine', async () => {
    const ids = idsOf('7+8 = 15');
    const count = served.vocabularySize;
    const calls = [1, 3].map((temperature) => {
      return {
        prompt: Int32Array.from(ids.slice(0, 2)),
        response: Int32Array.from(ids.slice(2)),
        temperature,
      };
    });
    const found = await engine.send('likeliest', { policy: 'generator', calls, count });
    for (const [k, { logprobs, ids: likeliest, values }] of found.entries()) {
      const { temperature = 1, response } = calls[k] ?? {};
      const sequences = [Int32Array.from(ids)];
      const [twin] = await engine.send('score', { policy: 'generator', sequences, temperature });
      for (const [i, id] of (response ?? []).entries()) {
        const row = values.subarray(i * count, (i + 1) * count);
        const mass = row.reduce((sum, value) => sum + Math.exp(value), 0);
        expect(mass).toBeCloseTo(1, 4);
        expect([...row].sort((a, b) => b - a)).toEqual([...row]);
        const at = likeliest.subarray(i * count, (i + 1) * count).indexOf(id);
        expect(row[at]).toBe(logprobs[i]);
        expect(logprobs[i]).toBeCloseTo(twin?.[i + 1] ?? 1, 4);
      }
    }
  });

  it('get likely tokens of a chat, streamed too', async () => {
    const ask = { ...question, logprobs: true, top_logprobs: 3, max_tokens: 40, temperature: 50 };
    const whole = await client.chat.completions.create(ask);
    const content = whole.choices[0]?.logprobs?.content ?? [];
    expect(content.length).toBeGreaterThan(1);
    for (const { token, logprob, top_logprobs: top } of content) {
      expect(top).toHaveLength(3);
      expect(top.every((one, i) => i === 0 || one.logprob <= (top[i - 1]?.logprob ?? 0))).toBe(true);
      const among = top.find((one) => one.token === token);
      if (among === undefined) expect(logprob).toBeLessThanOrEqual(top[2]?.logprob ?? -1);
      else expect(among.logprob).toBe(logprob);
    }
    const { choices } = await client.chat.completions.create({ ...ask, top_logprobs: 0 });
    const sampled = choices[0]?.logprobs?.content ?? [];
    expect(sampled.map(({ token }) => token)).toEqual(content.map(({ token }) => token));
    for (const [i, { logprob }] of sampled.entries())
      expect(logprob).toBeCloseTo(content[i]?.logprob ?? 1, 4);
    const streamed: typeof content = [];
    for await (const event of await client.chat.completions.create({ ...ask, stream: true })) {
      streamed.push(...(event.choices[0]?.logprobs?.content ?? []));
    }
    expect(streamed.map(({ token }) => token)).toEqual(content.map(({ token }) => token));
    for (const [i, { logprob }] of streamed.entries())
      expect(logprob).toBeCloseTo(content[i]?.logprob ?? 1, 4);
  });
});

/** Sends these very bytes; resolves with what came back, whenever the connection ends. */
function raw(bytes: string | Buffer): Promise<string> {
  const { port } = new URL(server.url);
  return new Promise((resolve) => {
    let answer = '';
    const socket = connect(Number(port), '127.0.0.1', () => socket.write(bytes));
    socket.setEncoding('utf8').on('data', (text) => {
      answer += text;
    });
    socket.on('close', () => resolve(answer)).on('error', () => resolve(answer));
  });
}

function post(body: string, headers: Record<string, string> = {}, path = '/v1/chat/completions') {
  return new Promise<{ status: number; body: string }>((resolve, reject) => {
    const options = { method: 'POST', headers: { 'Content-Type': 'application/json', ...headers } };
    const sent = httpRequest(new URL(path, server.url), options, (response) => {
      let text = '';
      response.setEncoding('utf8').on('data', (part) => {
        text += part;
      });
      response.on('end', () => resolve({ status: response.statusCode ?? 0, body: text }));
    });
    sent.on('error', reject).end(body);
  });
}

const alive = async () => expect((await client.models.list()).data).toHaveLength(2);

describe('the server', () => {
  it('answers only those who name this machine, and only JSON', async () => {
    const body = JSON.stringify(question);
    const { host, port } = new URL(server.url);
    expect((await post(body, { Host: `localhost:${port}` })).status).toBe(200);
    for (const name of ['example.com', `example.com:${port}`, '127.0.0.1']) {
      expect((await post(body, { Host: name })).status).toBe(403);
    }
    for (const type of ['text/plain', 'application/json-patch+json', 'text/json']) {
      expect((await post(body, { 'Content-Type': type })).status, type).toBe(415);
    }
    expect((await post(body, { 'Content-Type': 'Application/JSON; charset=utf-8' })).status).toBe(200);
    expect(await post(body, { 'Content-Encoding': 'gzip' })).toMatchObject({
      status: 415,
      body: expect.stringContaining('not compressed'),
    });
    const bytes = (line: string) => `${line} HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`;
    for (const [line = '', allowed] of [
      ['OPTIONS /v1/chat/completions', 'POST'],
      ['GET /v1/completions', 'POST'],
      ['POST /v1/models', 'GET, HEAD'],
      ['DELETE /v1/models/generator', 'GET, HEAD'],
    ]) {
      const answer = await raw(bytes(line));
      expect(answer).toMatch(/^HTTP\/1\.1 405 /);
      expect(answer).toContain(`\r\nAllow: ${allowed}\r\n`);
    }
    expect(await raw(bytes('HEAD /v1/models'))).toMatch(/^HTTP\/1\.1 200 .*\r\n\r\n$/s);
    expect(await raw(bytes('GET /v1/modelsgenerator'))).toMatch(/^HTTP\/1\.1 404 /);
  });

  it.each([
    ['no JSON', '{', /no JSON/],
    ['a list', '[]', /request/],
    ['null', 'null', /request/],
    ['no messages', '{"model":"generator"}', /messages/],
    ['messages of nothing', '{"model":"generator","messages":[]}', /messages/],
    ['a message of a number', '{"model":"generator","messages":[{"role":"user","content":3}]}', /content/],
    ['likely tokens alone', JSON.stringify({ ...question, top_logprobs: 2 }), /goes with logprobs/],
    ['tools', JSON.stringify({ ...question, tools: [{}] }), /tools/],
    ['a penalty', JSON.stringify({ ...question, frequency_penalty: 1 }), /frequency_penalty/],
    ['endless temperature', JSON.stringify({ ...question, temperature: 1e300 }), /temperature/],
    ['a negative length', JSON.stringify({ ...question, max_tokens: -1 }), /max_tokens/],
    ['a length beyond the model', JSON.stringify({ ...question, max_tokens: 1e9 }), /takes \d+ together/],
    ['a prototype', '{"__proto__":{"model":"generator"},"messages":[]}', /request/],
    ['deep nesting', `${'['.repeat(1e5)}${']'.repeat(1e5)}`, /request/],
  ])('says what is wrong with %s', async (_, body, message) => {
    const answer = await post(body);
    expect(answer.status).toBe(400);
    const { error } = JSON.parse(answer.body) as { error: { message: string; type: string } };
    expect(error.type).toBe('invalid_request_error');
    expect(error.message).toMatch(message);
  });

  it.each([
    ['a token beyond the vocabulary', { model: 'generator', prompt: [1e6] }, /no token 1000000/],
    ['an empty prompt', { model: 'generator', prompt: '' }, /empty/],
    ['an empty list', { model: 'generator', prompt: [] }, /prompt/],
    ['too many log-probabilities', { model: 'generator', prompt: 'x', logprobs: 21 }, /logprobs/],
    ['a streamed echo', { model: 'generator', prompt: 'x', echo: true, stream: true }, /echo goes without/],
    ['too many choices', { model: 'generator', prompt: Array(4000).fill('x'), n: 2 }, /4096 choices/],
    ['a bias', { model: 'generator', prompt: 'x', logit_bias: { 3: 1 } }, /logit_bias/],
  ])('says what is wrong with %s in a completion', async (_, body, message) => {
    const answer = await post(JSON.stringify(body), {}, '/v1/completions');
    expect(answer.status).toBe(400);
    expect(answer.body).toMatch(message);
  });

  it('outlives whatever else is sent', async () => {
    const { host } = new URL(server.url);
    const head = `POST /v1/completions HTTP/1.1\r\nHost: ${host}\r\nContent-Type: application/json\r\n`;
    const texts = ['<|im_end|>'.repeat(20), '\u0000\ud800', '{{ messages }}{% for x in y %}'];
    for (const content of texts) {
      const answer = await post(
        JSON.stringify({ ...question, messages: [{ role: 'user', content }], max_tokens: 2 }),
      );
      expect([200, 400]).toContain(answer.status);
    }
    expect(await raw('\u0000\u0001\r\n\r\n')).toMatch(/^HTTP\/1\.1 400 /);
    expect(await raw(`GET //[ HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`)).toMatch(/ 404 /);
    const large = await raw(`${head}Content-Length: ${2 ** 24}\r\n\r\n${'x'.repeat(2 ** 23 + 1)}`);
    expect(large === '' || / 413 /.test(large)).toBe(true);
    await alive();
  });

  it('stops sampling for those who go away', async () => {
    const gone = new AbortController();
    const stream = await client.chat.completions.create(
      { ...question, temperature: 50, max_tokens: 400, n: 8, stream: true },
      { signal: gone.signal },
    );
    const seen: unknown[] = [];
    const reading = (async () => {
      for await (const event of stream) {
        seen.push(event);
        gone.abort();
      }
    })();
    await reading.catch(() => undefined);
    expect(seen.length).toBeGreaterThan(0);
    const before = await engine.send('statistics', null);
    await new Promise((resolve) => setTimeout(resolve, 300));
    const between = await engine.send('statistics', null);
    await new Promise((resolve) => setTimeout(resolve, 300));
    expect((await engine.send('statistics', null)).tokensDecoded).toBe(between.tokensDecoded);
    expect(between.tokensDecoded - before.tokensDecoded).toBeLessThan(8 * 400);
    await alive();
  });
});

describe('an engine that ends', () => {
  it('is no request of theirs', async () => {
    const started = vi.spyOn(Worker.prototype, 'postMessage');
    const other = new Engine();
    await other.send('describe', null);
    const worker = started.mock.contexts.at(-1) as Worker;
    started.mockRestore();
    const failing = await ApiServer.start({ ...served, engine: other }, 0);
    await worker.terminate();
    expect((await other.failure).message).toMatch(/worker ended/);
    const asking = new OpenAI({ baseURL: failing.url, apiKey: 'none', maxRetries: 0 });
    for (const stream of [false, true]) {
      const answer = asking.chat.completions.create({ ...question, stream });
      await expect(answer).rejects.toMatchObject({
        status: 503,
        message: expect.stringMatching(/engine has ended, and the server with it: .*worker ended/),
      });
    }
    await failing.close(1000);
  });

  it('closed on purpose has not failed', async () => {
    const other = new Engine();
    let failed = false;
    other.failure.then(() => {
      failed = true;
    });
    await other.close();
    await new Promise((resolve) => setTimeout(resolve, 10));
    expect([failed, other.ended]).toEqual([false, true]);
  });
});
