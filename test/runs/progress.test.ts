/** Progress with a clock of its own: rates and time left, one line on a terminal, plain lines elsewhere. */
import { describe, expect, it } from 'vitest';
import { duration, Progress } from '../../src/runs/progress.js';

function progressOn(
  output: { isTTY?: boolean; columns?: number },
  options: { done?: number; total?: number } = {},
) {
  const written: string[] = [];
  let now = 100;
  const progress = new Progress({
    label: 'train',
    total: options.total ?? 10,
    unit: 'step',
    ...(options.done === undefined ? {} : { done: options.done }),
    output: { ...output, write: (text) => written.push(text) },
    clock: () => now,
  });
  return { progress, written, wait: (seconds: number) => (now += seconds) };
}

describe('elsewhere', () => {
  it('writes a line for each update', () => {
    const { progress, written, wait } = progressOn({});
    progress.update(0);
    wait(6);
    progress.update(2, { accuracy: '31 %' });
    progress.note('checkpoint written');
    wait(24);
    progress.update(10);
    progress.finish();
    expect(written).toEqual([
      'train step 0/10\n',
      'train step 2/10 · 3.0 s/step · 24 s left · accuracy 31 %\n',
      'checkpoint written\n',
      'train step 10/10 · 3.0 s/step · 30 s in all\n',
    ]);
  });

  it('says how far a long step is, half a minute after the last line', () => {
    const { progress, written, wait } = progressOn({});
    progress.within('step 0: episodes 1/64');
    wait(29);
    progress.within('step 0: episodes 2/64');
    wait(1);
    progress.within('step 0: episodes 3/64');
    wait(20);
    progress.update(1);
    wait(20);
    progress.within('step 1: episodes 4/64');
    expect(written).toEqual([
      'train step 0: episodes 3/64\n',
      'train step 1/10 · 50.0 s/step · 7 min 30 s left\n',
    ]);
  });

  it('measures a resumed run by its own steps', () => {
    const { progress, written, wait } = progressOn({}, { done: 90, total: 100 });
    wait(1);
    progress.update(94);
    expect(written).toEqual(['train step 94/100 · 4.0 steps/s · 2 s left\n']);
  });
});

describe('on a terminal', () => {
  it('says at once how far a step is, in the same line', () => {
    const { progress, written } = progressOn({ isTTY: true, columns: 80 });
    progress.within('step 0: episodes 1/64');
    progress.within('step 0: episodes 2/64');
    expect(written).toEqual(['train step 0: episodes 1/64', '\r\u001b[K', 'train step 0: episodes 2/64']);
  });

  it('redraws one line, and puts notes above it', () => {
    const { progress, written } = progressOn({ isTTY: true, columns: 80 });
    progress.update(5);
    progress.note('saved');
    progress.finish();
    const line = 'train ██████████░░░░░░░░░░ step 5/10';
    expect(written).toEqual([line, '\r\u001b[K', 'saved\n', line, '\n']);
  });

  it('never wraps', () => {
    const { progress, written } = progressOn({ isTTY: true, columns: 20 });
    progress.update(5, { loss: '0.1' });
    expect(written[0]).toHaveLength(19);
  });
});

it('durations read like a clock', () => {
  expect([5, 59.6, 200, 7500].map(duration)).toEqual(['5 s', '1 min 0 s', '3 min 20 s', '2 h 5 min']);
});
