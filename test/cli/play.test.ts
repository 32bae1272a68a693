/** Fails if an episode is shown otherwise than it happened, or if the screen obeys what a model wrote. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { Engine } from '../../src/engine/engine.js';
import { play, readTexts } from '../../src/learning/play.js';
import { setUp } from '../../src/learning/setup.js';
import { smallConfig, trainedRun } from '../learning/trained-run.js';
import { troupe } from './troupe.js';

const folder = mkdtempSync(join(tmpdir(), 'troupe-play-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function texts(content: unknown): string {
  const path = join(folder, 'texts.yaml');
  writeFileSync(path, typeof content === 'string' ? content : JSON.stringify(content));
  return path;
}

describe('given texts', () => {
  it('are played as a model would have said them', () => {
    const generator = ['15 + 37 = 52', '\u001b[31m\\boxed{53}\u202e', 'no'];
    const { status, stdout, stderr } = troupe(['play', '--text', texts({ generator, aggregator: 'Both.' })]);
    expect(stderr).toBe('');
    expect(status).toBe(0);
    const [problem = '', ...calls] = stdout.split(/\n\n(?=call )/);
    expect(problem).toBe('problem arithmetic:train:0:0\n  | 15+37\nright answer 52');
    expect(calls[0]).toBe(
      [
        'call 0: generator, slot 0, turn 0, policy generator',
        '  prompt, 13 tokens',
        '  | <|im_start|>user',
        '  | 15+37<|im_end|>',
        '  | <|im_start|>assistant',
        '  | ',
        '  response, 11 tokens, ended by stop',
        '  | 15 + 37 = 52',
        '  reading: the workflow can read it; well-formed; the answer in it is "52"',
        '  claims that this is right: "15 + 37 = 52" (rightly)',
        '  reward 0',
      ].join('\n'),
    );
    expect(calls[1]).toContain('\n  | \\x1b[31m\\boxed{53}\\x202e\n');
    expect(calls[1]).toContain('(wrongly)');
    expect(calls[3]).toContain('  | 15+37 1x1:52 2x1:53 3x0:? pick<|im_end|>');
    expect(calls[3]).toContain('reading: the workflow cannot read it; not of the form that is asked for');
    expect(calls[3]).toMatch(/graded wrong \(no-answer\), reward 0\ncount aggregator\.unparsed 1\n$/);
  });

  it('that nobody asked for are named, and so is the one that is missing', () => {
    const few = troupe(['play', '--text', texts({ generator: ['1', '2', '3', '4'] })]);
    expect(few.status).toBe(1);
    expect(few.stdout).toContain('broken off: ');
    expect(few.stdout).toContain('has no text for aggregator, which is asked for its text number 1.');
    expect(few.stderr).toContain('1 of 4 texts of generator were not asked for');
    const read = (content: unknown) => readTexts(texts(content), ['generator', 'aggregator']);
    expect(() => read({ voter: 'x' })).toThrow(/texts\.yaml.*voter.*generator/);
    expect(() => read('generator: 3')).toThrow(/texts\.yaml.*generator/);
    expect(() => read('generator: []')).toThrow(/texts\.yaml.*generator/);
    expect(() => readTexts(join(folder, 'none.yaml'), [])).toThrow(/none\.yaml/);
    writeFileSync(join(folder, 'latin.yaml'), Buffer.from('generator: caf\xe9', 'latin1'));
    expect(() => readTexts(join(folder, 'latin.yaml'), ['generator'])).toThrow(/not UTF-8/);
  });
});

describe('a model', () => {
  it('says in it what it says in the first step of the run, and earns what it earns there', async () => {
    const run = await trainedRun({ steps: 1 });
    await using engine = new Engine();
    const trainer = await setUp(engine, smallConfig({}), { trainable: false });
    const parts = { ...trainer, folder: trainer.model.folder };
    const { calls, episode } = await play(parts, (request) => engine.complete(request), 2);
    await trainer.close();
    const rows = run.rows('calls').filter((row) => row.problem_index === 2 && row.sample === 0);
    expect(episode.problem.id).toBe(rows[0]?.problem);
    expect(calls.map(({ call, reward }) => [call.role, call.slot, call.text, reward])).toEqual(
      rows.map(({ role, slot, text, reward }) => [role, slot, text, reward]),
    );
    expect(calls).toHaveLength(4);
  });
});
