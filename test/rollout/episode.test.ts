/** Fails if a follow-up turn loses the sampled ids, if an episode's failure spreads, or if a call is misplaced. */
import { describe, expect, onTestFinished, test, vi } from 'vitest';
import { TroupeError } from '../../src/config/errors.js';
import { loadRunConfig } from '../../src/config/load.js';
import type { Completion, CompletionRequest } from '../../src/engine/types.js';
import { resolvePolicies } from '../../src/policies/routing.js';
import { type ChatTokenizer, PromptEncoder } from '../../src/rollout/conversation.js';
import { type Complete, type EpisodeSetting, runEpisode, runEpisodes } from '../../src/rollout/episode.js';
import { gradeEpisodes } from '../../src/rollout/grading.js';
import type { Task } from '../../src/tasks/types.js';
import type { OpenWorkflow } from '../../src/workflows/registry.js';
import type { Message, Workflow } from '../../src/workflows/types.js';
import { open, problem, sums } from '../workflows/scripted.js';

/**
 * One id a character, except that "ab" has an id of its own, as a tokenizer's merges do: text tokenised again is
 * not what was sampled. "<" begins a message, ">" ends one; both are special.
 */
const AB = 1000;
const encode = (text: string) =>
  Int32Array.from([...text.replaceAll('ab', '\uFFFF')].map((c) => (c === '\uFFFF' ? AB : c.charCodeAt(0))));
const tokenizer: ChatTokenizer = {
  renderChat: (messages) => ({
    text: `${messages.map(({ role, content }) => `<${role[0]}:${content}>`).join('')}<a:`,
    literal: new Set(),
  }),
  encode,
  encodePlain: encode,
  decode: (ids, special = false) => {
    const text = [...ids].map((id) => (id === AB ? 'ab' : String.fromCharCode(id))).join('');
    return special ? text : text.replace(/[<>]/g, '');
  },
};

function completion(
  request: CompletionRequest,
  text: string,
  finish: Completion['finish'] = 'stop',
): Completion {
  const ids = Int32Array.from([...(finish === 'stop' ? `${text}>` : text)].map((c) => c.charCodeAt(0)));
  return {
    ids,
    logprobs: new Float32Array(ids.length),
    finish,
    policy: request.policy,
    version: 0,
    cachedTokens: 0,
  };
}

function setting(
  opened: OpenWorkflow,
  overrides: string[] = [],
  chat: ChatTokenizer = tokenizer,
): EpisodeSetting {
  const { config } = loadRunConfig(undefined, overrides);
  return {
    open: opened,
    task: sums,
    policies: resolvePolicies(config.policies, opened.workflow.roles),
    rollout: config.rollout,
    prompts: new PromptEncoder(chat),
  };
}

function custom(run: Workflow['run'], roles = ['generator']): OpenWorkflow {
  return { workflow: { name: 'custom', roles, run }, where: 'custom.ts', options: {}, prompts: undefined };
}

const place = { problem, step: 5, problemIndex: 2, sample: 1, index: 17 };
const ask = [{ role: 'user' as const, content: 'q' }];
const answering =
  (text: string): Complete =>
  async (request) =>
    completion(request, text);

describe('requests', () => {
  test('voting: policy, sampling and counter of every call; calls in the order of asking', async () => {
    const requests: CompletionRequest[] = [];
    const delays = [30, 10, 20, 0];
    const episode = await runEpisode(
      place,
      setting(await open('voting'), ['rollout.roles.aggregator.sampling.maxTokens=3']),
      async (request) => {
        const i = requests.push(request) - 1;
        await new Promise((resolve) => setTimeout(resolve, delays[i]));
        return completion(request, i === 3 ? '2' : String(i));
      },
    );
    expect(requests.map(({ policy, counter }) => [policy, counter])).toEqual([
      ['generator', [5, 17, 0, 0, 0]],
      ['generator', [5, 17, 0, 1, 0]],
      ['generator', [5, 17, 0, 2, 0]],
      ['aggregator', [5, 17, 1, 0, 0]],
    ]);
    expect(requests.map(({ sampling }) => sampling.maxTokens)).toEqual([8, 8, 8, 3]);
    expect(episode.calls.map(({ role, slot, text }) => [role, slot, text])).toEqual([
      ['generator', 0, '0'],
      ['generator', 1, '1'],
      ['generator', 2, '2'],
      ['aggregator', 0, '2'],
    ]);
    expect(episode).toMatchObject({ step: 5, problemIndex: 2, sample: 1, answer: '1', counts: {} });
    expect(episode.error).toBeUndefined();
  });

  test("evaluation's sampling wins over the roles', a call's over both", async () => {
    const seen: number[][] = [];
    const twice = custom(async ({ call }) => {
      await call('generator', ask);
      await call('generator', ask, { turn: 1, sampling: { maxTokens: 2 } });
      return { answer: '' };
    });
    await runEpisode(
      place,
      { ...setting(twice), sampling: { temperature: 0, maxTokens: 9 } },
      async (request) => {
        seen.push([request.sampling.temperature, request.sampling.maxTokens]);
        return completion(request, '');
      },
    );
    expect(seen).toEqual([
      [0, 9],
      [0, 2],
    ]);
  });
});

describe('conversations', () => {
  async function secondPrompt(chat: ChatTokenizer, first: string, finish: Completion['finish'] = 'stop') {
    const requests: CompletionRequest[] = [];
    const sampled: Completion[] = [];
    const replies = [first, 'no', '7', 'yes'];
    const episode = await runEpisode(place, setting(await open('eval-opt'), [], chat), async (request) => {
      const i = requests.push(request) - 1;
      const answer = completion(request, replies[i] ?? '', i === 0 ? finish : 'stop');
      sampled.push(answer);
      return answer;
    });
    return { episode, prompt: [...(requests[2]?.prompt ?? [])], first: requests[0], sampled: sampled[0] };
  }
  const ids = (text: string) => [...text].map((c) => c.charCodeAt(0));

  test('a revision continues the ids that were sampled, not the text tokenised again', async () => {
    const { episode, prompt, first, sampled } = await secondPrompt(tokenizer, 'ab');
    expect(prompt).toEqual([...(first?.prompt ?? []), ...(sampled?.ids ?? []), ...ids('<u:no><a:')]);
    expect(prompt).not.toContain(AB);
    expect(tokenizer.decode(Int32Array.from(prompt), true)).toBe('<u:3+4><a:ab><u:no><a:');
    expect(episode.counts).toEqual({});
  });

  test('a truncated response gets the end of its message from the template', async () => {
    const { prompt } = await secondPrompt(tokenizer, 'ab', 'length');
    expect(prompt).toEqual(ids('<u:3+4><a:ab><u:no><a:'));
  });

  test('a workflow that pushes to one list of messages is recorded as it asked, and its ids carry over', async () => {
    const pushing = custom(async ({ call }) => {
      const messages: Message[] = [{ role: 'user', content: 'q' }];
      for (let turn = 0; turn < 2; turn++) {
        const { text } = await call('generator', messages, { turn });
        messages.push({ role: 'assistant', content: text }, { role: 'user', content: 'more' });
      }
      return { answer: '' };
    });
    const { calls } = await runEpisode(place, setting(pushing), answering('ab'));
    expect(calls.map(({ messages }) => messages.length)).toEqual([1, 3]);
    expect([...(calls[1]?.prompt ?? [])]).toEqual(ids('<u:q><a:ab><u:more><a:'));
  });

  test('a template that changes history is counted', async () => {
    const dropping: ChatTokenizer = {
      ...tokenizer,
      renderChat: (messages, role) =>
        tokenizer.renderChat(
          messages.filter((message) => message.role !== 'assistant'),
          role,
        ),
    };
    const { episode, prompt } = await secondPrompt(dropping, 'ab');
    expect(prompt).toEqual(ids('<u:3+4><u:no><a:'));
    expect(episode.counts).toEqual({ 'prefix.broken': 1 });
  });
});

describe('failures', () => {
  const both = [place, { ...place, index: 18 }];

  test('a prompt beyond the limit is counted and ends its episode alone', async () => {
    const [long, short] = await runEpisodes(
      [
        { ...place, problem: { ...problem, question: '1+'.repeat(40) } },
        { ...place, index: 18 },
      ],
      setting(await open('single'), ['rollout.promptTokens=40']),
      () => answering('7'),
    );
    expect(long).toMatchObject({ counts: { 'prompt.tooLong': 1 }, calls: [], answer: '' });
    expect(long?.error).toMatch(/^problem test:0: the prompt of generator has 87 tokens; the limit is 40/);
    expect(short).toMatchObject({ answer: '7', counts: {} });
  });

  test('a refused request and a workflow that throws end their episode; what was answered stays', async () => {
    const refusing =
      (episode: number): Complete =>
      async (request) => {
        if (episode === 17 && request.counter[3] === 1) throw new TroupeError('the request cannot fit.');
        return completion(request, '1');
      };
    const [refused, fine] = await runEpisodes(both, setting(await open('voting')), refusing);
    expect(refused?.error).toBe('the request cannot fit.');
    expect(refused?.calls.map(({ slot }) => slot)).toEqual([0, 2]);
    expect(fine).toMatchObject({ answer: '1' });

    const throwing = custom(async ({ call }) => {
      await call('generator', ask);
      throw new TypeError('my mistake');
    });
    const episode = await runEpisode(place, setting(throwing), answering('x'));
    expect(episode.error).toMatch(/^custom\.ts \(.*episode\.test\.ts:\d+\): the workflow threw: my mistake$/);
    expect(episode.calls).toHaveLength(1);
  });

  test('an engine that fails ends everything', async () => {
    const dead: Complete = () => Promise.reject(new Error('the engine worker ended'));
    await expect(runEpisodes(both, setting(await open('voting')), () => dead)).rejects.toThrow(
      'worker ended',
    );
  });

  test('an aborted episode rejects', async () => {
    const controller = new AbortController();
    const cancelled: Complete = async (request) => {
      controller.abort();
      return completion(request, '', 'cancelled');
    };
    await expect(
      runEpisode(place, setting(await open('voting')), cancelled, controller.signal),
    ).rejects.toThrow(/abort/);
  });

  test('an episode that takes longer by itself than its limit breaks off; its calls do not count', async () => {
    // On a clock that only the test moves: a busy machine makes nobody late.
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance'] });
    onTestFinished(() => void vi.useRealTimers());
    const waiting = (seconds: number) => new Promise((resolve) => setTimeout(resolve, 1000 * seconds));
    const slowly: Complete = async (request) => {
      await waiting(100);
      return completion(request, 'x');
    };
    const run = async (workflow: Workflow['run'], seconds: number) => {
      const limit = ['rollout.episodeSeconds=5'];
      const running = runEpisode(place, setting(custom(workflow), limit), slowly);
      await vi.advanceTimersByTimeAsync(1000 * seconds);
      return await running;
    };
    const thinking =
      (seconds: number): Workflow['run'] =>
      async ({ call }) => {
        const { text } = await call('generator', ask);
        await waiting(seconds);
        return { answer: text };
      };
    expect((await run(thinking(4.9), 105)).error).toBeUndefined();
    const late = await run(thinking(5.1), 105.05);
    expect(late.error).toMatch(/^custom.ts: the workflow took more than 5 seconds for an episode/);
    expect(late.calls).toHaveLength(1);
  });

  test.each<[string, Workflow['run'], RegExp]>([
    [
      'no messages',
      async ({ call }) => ({ answer: (await call('generator', 'hello' as never)).text }),
      /^custom.ts: sent 'hello'; a call takes a list of messages/,
    ],
    [
      'a slot that is no number',
      async ({ call }) => ({ answer: (await call('generator', ask, { slot: -1 })).text }),
      /^custom.ts: called generator at slot -1, turn 0/,
    ],
    [
      'a claim that is no text',
      async ({ call, claim }) => {
        claim((await call('generator', ask)).call, 5 as never);
        return { answer: '' };
      },
      /^custom.ts: claimed 5 for call 0; it takes a text/,
    ],
    [
      'an unknown role',
      async ({ call }) => ({ answer: (await call('genrator', ask)).text }),
      /no role is named "genrator".*Did you mean "generator"/,
    ],
    [
      'one place twice',
      async ({ call }) => {
        await Promise.all([call('generator', ask), call('generator', ask)]);
        return { answer: '' };
      },
      /called generator, slot 0, turn 0 twice/,
    ],
    [
      'no answer',
      async () => ({}) as { answer: string },
      /^custom.ts: the workflow returned {}; it takes \{ answer: text \}/,
    ],
    [
      'a claim for no call',
      async ({ claim }) => {
        claim(3, '');
        return { answer: '' };
      },
      /said something of call 3/,
    ],
    [
      'a template without a file',
      async ({ prompt }) => ({ answer: String(prompt('x')) }),
      /has no prompt file/,
    ],
  ])('a workflow with %s says what is wrong', async (_, run, message) => {
    const episode = await runEpisode(place, setting(custom(run)), answering('x'));
    expect(episode.error).toMatch(message);
  });

  test('calls that nobody awaits are finished and recorded, later ones only counted', async () => {
    let workflowEnded = () => {};
    const ended = new Promise<void>((resolve) => {
      workflowEnded = resolve;
    });
    const leaving = custom(async ({ call }) => {
      void call('generator', ask);
      void ended.then(() => call('generator', ask, { turn: 1 }));
      return { answer: 'done' };
    });
    const slow: Complete = async (request) => {
      await new Promise(setImmediate);
      workflowEnded();
      await new Promise(setImmediate);
      return completion(request, 'x');
    };
    const episode = await runEpisode(place, setting(leaving), slow);
    expect(episode.calls).toHaveLength(1);
    expect(episode.counts).toEqual({ 'call.late': 1 });
  });
});

describe('grading', () => {
  test('answers and claims are graded together, each text once; a rejecting claim is right if the text is wrong', async () => {
    const asked: string[][] = [];
    const task: Task = {
      ...sums,
      grade: (answers) => {
        asked.push(answers.map(({ text }) => text));
        return sums.grade(answers);
      },
    };
    const replies = ['8', 'no', '7', 'no', '9'];
    let next = 0;
    const episode = await runEpisode(place, setting(await open('eval-opt')), async (request) =>
      completion(request, replies[next++] ?? ''),
    );
    const [graded] = await gradeEpisodes([episode], task);
    expect(asked).toEqual([['9', '8', '7']]);
    expect(graded?.grade).toMatchObject({ correct: false, reward: 0 });
    expect(graded?.calls.map(({ role, ownGrade }) => [role, ownGrade?.reward])).toEqual([
      ['generator', 0],
      ['evaluator', 1],
      ['generator', 1],
      ['evaluator', 0],
      ['generator', 0],
    ]);
  });

  test('an episode that broke off is wrong, and nobody grades its missing answer', async () => {
    const broken = custom(async () => {
      throw new Error('x');
    });
    const episode = await runEpisode(place, setting(broken), answering(''));
    const task: Task = { ...sums, grade: () => Promise.reject(new Error('not called')) };
    expect((await gradeEpisodes([episode], task))[0]?.grade).toEqual({
      correct: false,
      reward: 0,
      reason: 'broken-off',
    });
  });
});
