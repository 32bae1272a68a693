/** Fails if a workflow calls the wrong roles, shows them the wrong text, or takes another fallback than it says. */
import { describe, expect, test } from 'vitest';
import { workflows } from '../../src/workflows/registry.js';
import { open, play } from './scripted.js';

describe('single', () => {
  test('one call, its text is the answer', async () => {
    const played = await play(await open('single'), () => 'it is 7');
    expect(played.answer).toBe('it is 7');
    expect(played.sent).toEqual([{ role: 'generator', messages: [{ role: 'user', content: '3+4' }] }]);
    expect(played.claims).toEqual([{ call: 0, text: 'it is 7', accepts: true }]);
  });
});

describe('voting', () => {
  const answers = ['x 8', '7', '8'];

  test('three generators on one prompt; the aggregator sees their answers and picks a text', async () => {
    const played = await play(await open('voting'), ({ role, slot = 0 }) =>
      role === 'generator' ? (answers[slot] ?? '') : '2',
    );
    expect(played.sent.map(({ role, slot }) => [role, slot])).toEqual([
      ['generator', 0],
      ['generator', 1],
      ['generator', 2],
      ['aggregator', undefined],
    ]);
    expect(played.sent[3]?.messages).toEqual([{ role: 'user', content: '3+4 1x2:8 2x1:7 3x2:8 pick' }]);
    expect(played.answer).toBe('7');
    expect(played.claims.at(-1)).toEqual({ call: 3, text: '7', accepts: true });
    expect(played.counts).toEqual([]);
  });

  describe.each(['nothing', '4', '0', '1 or 2'])('the pick "%s" cannot be read', (pick) => {
    test.each([
      [undefined, ''],
      ['wrong', ''],
      ['first', 'x 8'],
      ['majority', '7'],
    ])('unparsed: %s', async (unparsed, expected) => {
      const said = ['x 8', '7', 'so 7'];
      const options = unparsed === undefined ? {} : { unparsed };
      const played = await play(await open('voting', { options }), ({ role, slot = 0 }) =>
        role === 'generator' ? (said[slot] ?? '') : pick,
      );
      expect(played.answer).toBe(expected);
      expect(played.unread).toEqual([3]);
    });
  });

  test('of answers with equal votes the earliest wins', async () => {
    const options = { unparsed: 'majority' };
    const played = await play(await open('voting', { options }), ({ role, slot = 0 }) =>
      role === 'generator' ? (['6', '7', '8'][slot] ?? '') : '?',
    );
    expect(played.answer).toBe('6');
  });

  test('texts without an answer have no vote; without any answer the first text stands', async () => {
    const some = await play(
      await open('voting', { options: { voters: 4, unparsed: 'majority' } }),
      ({ role, slot = 0 }) => (role === 'generator' ? (['none', 'nil', '7', 'nix'][slot] ?? '') : '?'),
    );
    expect(some.answer).toBe('7');
    expect(some.sent.at(-1)?.messages[0]?.content).toBe('3+4 1x0:? 2x0:? 3x1:7 4x0:? pick');
    const none = await play(
      await open('voting', { options: { unparsed: 'majority' } }),
      ({ slot }) => `text ${'abc'[slot ?? 0]}`,
    );
    expect(none.answer).toBe('text a');
  });
});

describe('eval-opt', () => {
  test('a rejected draft is revised in the same conversation until one is accepted', async () => {
    const replies = ['8', 'no', '7', 'yes'];
    const played = await play(await open('eval-opt'), (_, index) => replies[index] ?? '');
    expect(played.answer).toBe('7');
    expect(played.sent.map(({ role, turn }) => [role, turn])).toEqual([
      ['generator', 0],
      ['evaluator', 0],
      ['generator', 1],
      ['evaluator', 1],
    ]);
    expect(played.sent[1]?.messages).toEqual([{ role: 'user', content: '3+4 = 8 ok' }]);
    expect(played.sent[2]?.messages).toEqual([
      { role: 'user', content: '3+4' },
      { role: 'assistant', content: '8' },
      { role: 'user', content: 'no' },
    ]);
    expect(played.claims).toEqual([
      { call: 0, text: '8', accepts: true },
      { call: 1, text: '8', accepts: false },
      { call: 2, text: '7', accepts: true },
      { call: 3, text: '7', accepts: true },
    ]);
  });

  test('after the last round nobody judges', async () => {
    const played = await play(await open('eval-opt'), ({ role }, index) =>
      role === 'generator' ? `${index}` : 'no',
    );
    expect(played.sent.map(({ role }) => role)).toEqual([
      'generator',
      'evaluator',
      'generator',
      'evaluator',
      'generator',
    ]);
    expect(played.answer).toBe('4');
    const once = await play(await open('eval-opt', { options: { rounds: 1 } }), () => '7');
    expect(once.sent).toHaveLength(1);
  });

  test('a verdict that says neither is counted and rejects', async () => {
    const played = await play(await open('eval-opt', { options: { rounds: 2 } }), ({ role }) =>
      role === 'generator' ? '7' : 'hm',
    );
    expect(played.unread).toEqual([1]);
    expect(played.sent).toHaveLength(3);
  });

  test('the full revision prompt carries the feedback', async () => {
    const played = await play(await open('eval-opt', { style: 'full' }), ({ role }) =>
      role === 'generator' ? '8' : 'Carry! Verdict: incorrect',
    );
    expect(played.sent[2]?.messages.at(-1)?.content).toContain('Carry! Verdict: incorrect');
  });
});

describe('orch-workers', () => {
  test('one worker for each strategy, at most three; the synthesizer answers', async () => {
    const played = await play(await open('orch-workers'), ({ role, slot }) =>
      role === 'orchestrator' ? 'a ; b ; c ; d' : role === 'worker' ? `${slot}` : 'so 7',
    );
    expect(played.sent.map(({ role, slot, messages }) => [role, slot, messages[0]?.content])).toEqual([
      ['orchestrator', undefined, '3+4 plan'],
      ['worker', 0, '3+4 by a'],
      ['worker', 1, '3+4 by b'],
      ['worker', 2, '3+4 by c'],
      ['synthesizer', undefined, '3+4 0 1 2 so'],
    ]);
    expect(played.answer).toBe('so 7');
    expect(played.claims.map(({ call }) => call)).toEqual([1, 2, 3, 4]);
  });

  test('fewer strategies, fewer workers', async () => {
    const played = await play(
      await open('orch-workers', { style: 'full' }),
      () => '1. Directly\n2. Backwards',
    );
    expect(played.sent.filter(({ role }) => role === 'worker')).toHaveLength(2);
  });

  test('no strategies: counted, every worker gets the fallback', async () => {
    const played = await play(await open('orch-workers', { options: { workers: 2 } }), () => 'hm');
    expect(played.unread).toEqual([0]);
    expect(played.sent.map(({ messages }) => messages[0]?.content).slice(1, 3)).toEqual([
      '3+4 by a',
      '3+4 by a',
    ]);
  });
});

describe('prompts and options', () => {
  const all = Object.keys(workflows.entries).flatMap((name) =>
    ['full', 'small'].flatMap((style) => (['math', 'code'] as const).map((kind) => ({ name, style, kind }))),
  );
  test.each(all)(
    '$name has $style prompts for $kind that show the question',
    async ({ name, style, kind }) => {
      const played = await play(await open(name, { style, kind }), () => '1');
      for (const { messages } of played.sent) expect(messages[0]?.content).toContain('3+4');
      if (style === 'full' && kind === 'math')
        expect(played.sent[0]?.messages[0]?.content).not.toContain('{{');
    },
  );

  test('the full prompts ask for \\boxed{} as written', async () => {
    const played = await play(await open('single', { style: 'full' }), () => '');
    expect(played.sent[0]?.messages[0]?.content).toMatch(/within \\boxed\{\}\.$/);
  });

  test('wrong names and options', async () => {
    await expect(open('votin')).rejects.toThrow(/no workflow is named "votin".* Did you mean "voting"\?/);
    await expect(open('voting', { options: { voter: 2 } })).rejects.toThrow(
      /unknown key "workflow.options.voter".* Did you mean "voters"\?/,
    );
    await expect(open('voting', { options: { voters: 0 } })).rejects.toThrow(
      'workflow.options.voters is 0; it takes a whole number of at least 1.',
    );
    await expect(open('voting', { style: 'smal' })).rejects.toThrow(/no style of prompts is named "smal"/);
    await expect(open('single', { options: { voters: 2 } })).rejects.toThrow(/workflow\.options/);
  });
});
