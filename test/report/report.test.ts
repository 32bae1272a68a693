/** `troupe report`: what the pages say, what they must not do, and runs that something is wrong with. */
import { spawnSync } from 'node:child_process';
import {
  appendFileSync,
  mkdirSync,
  readFileSync,
  renameSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { beforeEach, describe, expect, it } from 'vitest';
import type { Figure } from '../../src/report/figure.js';
import { report, standalone } from '../../src/report/page.js';
import { readRun } from '../../src/report/run-data.js';
import { SCHEMA_VERSION } from '../../src/streams/arrow-schema.js';
import { streamPath } from '../../src/streams/stream-files.js';
import type { TableName } from '../../src/streams/tables.js';
import { trainedRun } from '../learning/trained-run.js';
import { MadeUpRun, madeUp, type Row, type Words } from '../runs/made-up-run.js';
import { temporaryFolder } from '../runs/temporary.js';
import { open } from './browser.js';
import { cosine, evaluation, LAYERS, stepRows } from './measurements.js';

const STEPS = 60;

/** Rises from 40 to 80 %, and falls to 30 % at step 40. */
function cliffRun(): string {
  const run = new MadeUpRun();
  for (let step = 0; step < STEPS; step++) run.append(stepRows(step));
  for (const [step, right] of [8, 12, 16, 16, 6, 6, 5].entries()) run.append(evaluation(step * 10, right));
  run.release();
  return run.folder;
}

function written(...folders: string[]): string {
  const file = join(temporaryFolder(), 'report.html');
  writeFileSync(file, report(folders.map(readRun)).html);
  return file;
}

const merged = (parts: Partial<Record<TableName, Row[]>>[]) => {
  const rows: Partial<Record<TableName, Row[]>> = {};
  for (const part of parts) {
    for (const [table, list] of Object.entries(part) as [TableName, Row[]][]) {
      rows[table] = [...(rows[table] ?? []), ...list];
    }
  }
  return rows;
};

it('draws a count as 0 where nothing was counted, and nothing where nothing was measured', () => {
  const run = new MadeUpRun();
  for (let step = 0; step < 4; step++) {
    const { signals = [], ...others } = stepRows(step);
    const of = { step, phase: 'train', role: 'aggregator' };
    const counted = { ...of, signal: 'aggregator.unparsed', value: 3 };
    const measured = { ...of, signal: 'pick_right_share', value: step === 1 ? 1 : null };
    run.append({ ...others, signals: [...signals, measured, ...(step === 2 ? [counted] : [])] });
  }
  run.release();
  const { pictures } = report([readRun(run.folder)]);
  expect(pictures.get('aggregator-unparsed')?.numbers).toEqual(
    [0, 0, 3, 0].map((aggregator, step) => ({ step, aggregator })),
  );
  expect(pictures.get('pick-right-share')?.numbers).toEqual([{ step: 1, aggregator: 1 }]);
});

it('says what of the configuration changed on the way', () => {
  const folder = cliffRun();
  const changes = [{ step: 30, key: 'policies.defaults.learningRate', from: 0.001, to: 0.0005 }];
  writeFileSync(join(folder, 'changes.json'), JSON.stringify(changes));
  const { html } = report([readRun(folder)]);
  expect(html).toContain('Changed on the way: step 30: policies.defaults.learningRate 0.001 → 0.0005');
  expect(report([readRun(cliffRun())]).html).not.toContain('Changed on the way');
});

describe('pictures', () => {
  let pictures: ReturnType<typeof report>['pictures'];
  const numbers = (id: string) => pictures.get(id)?.numbers ?? [];
  beforeEach(() => {
    pictures ??= report([readRun(cliffRun())]).pictures;
  });

  it('show what the streams hold', () => {
    expect(numbers('mass-share')).toHaveLength(STEPS);
    expect(numbers('mass-share')[29]).toEqual({ step: 29, generator: 0.75, aggregator: 0.25 });
    expect(numbers('mass-share')[30]).toEqual({ step: 30, generator: 0.5, aggregator: 0.5 });
    expect(numbers('role-cosine')[0]).toEqual({ step: 0, 'generator × aggregator': 0.5 });
    expect(numbers('accuracy').map(({ step }) => step)).toEqual([0, 10, 20, 30, 40, 50, 60]);
    expect(numbers('accuracy').map((row) => row.sampled)).toEqual([0.4, 0.6, 0.8, 0.8, 0.3, 0.3, 0.25]);
  });

  it('show the Gram matrix of every layer at the start and at the end', () => {
    for (const [name, step] of [
      ['first', 0],
      ['last', STEPS - 1],
    ] as const) {
      const rows = numbers(`gram-shared-${name}`);
      for (const layer of LAYERS) {
        const own = rows.filter((row) => row.layer === layer);
        expect(own).toHaveLength(3);
        const between = own.find(({ a, b }) => a !== b);
        expect(between?.cosine).toBeCloseTo(cosine(layer, step), 12);
        const [first, second] = step < 30 ? [9, 1] : [1, 1];
        expect(own.flatMap(({ a, b, gram }) => (a === b ? gram : []))).toEqual([first, second]);
        expect(between?.gram).toBeCloseTo(cosine(layer, step) * Math.sqrt(first * second), 12);
      }
    }
    expect(numbers('layers-shared-generator-aggregator')).toHaveLength(STEPS * LAYERS.length);
  });

  it('can stand by themselves', async () => {
    const folder = temporaryFolder();
    const run = cliffRun();
    const done = spawnSync('node', ['build/js/cli/main.js', 'report', run, '--pictures', folder], {
      encoding: 'utf8',
    });
    expect(done.stderr).toBe('');
    expect(statSync(join(run, 'report.html')).size).toBeGreaterThan(10_000);
    for (const id of ['accuracy', 'gram-shared-last']) {
      const { page, noises } = await open(`file://${join(folder, `${id}.svg`)}`);
      // A browser shows a text node in the place of an SVG that is not well-formed.
      expect(await page.locator('svg svg').count()).toBeGreaterThan(0);
      expect(noises).toEqual([]);
    }
  });
});

describe('the page of a run', () => {
  it('opens without a network and asks for nothing', async () => {
    const { page, requests, noises } = await open(`file://${written(cliffRun())}`, { offline: true });
    expect(await page.locator('h2 .label').textContent()).toBe('cliff');
    const text = await page.locator('main').innerText();
    expect(text).toMatch(/Peak\s+80\.0 %\s*step 20/);
    expect(text).toMatch(/Terminal\s+25\.0 %\s*step 60/);
    expect(text).toMatch(/Below the peak since\s+step 40/);
    // Both episodes of a problem at the first step, before the peak, at the onset and at the end.
    expect(await page.locator('.episode').count()).toBe(8);
    expect(await page.locator('.episode .call').first().innerText()).toMatch(
      /generator slot 0, turn 0 · reward 1 · advantage 0\.5[\s\S]*The answer is 4\./,
    );
    const asked = await page.locator('.episode .asked').first().innerText();
    expect(asked).toMatch(/Question\s+2 \+ 2 at step 0\s+Right answer\s+4\s+Answer as it was read\s+4$/);
    await page.locator('.episode .call summary').first().click();
    expect(await page.locator('.episode .call').first().innerText()).toContain(
      '[user]\nWhat is 2 + 2 at step 0?',
    );
    expect(await page.locator('.episode .asked').nth(1).innerText()).toMatch(
      /Answer as it was read\s+none\s+Broken off\s+too long$/,
    );
    const widths = await page.locator('figure > svg').evaluateAll((all) => all.map((one) => one.clientWidth));
    expect(widths.length).toBeGreaterThan(12);
    expect(Math.min(...widths)).toBeGreaterThan(100);
    expect({ requests, noises }).toEqual({ requests: [], noises: [] });
  });

  it('gives all numbers behind a picture', async () => {
    const { page } = await open(`file://${written(cliffRun())}`);
    const [download] = await Promise.all([
      page.waitForEvent('download'),
      page.locator('#run-1-mass-share a').evaluate((link) => (link as unknown as { click(): void }).click()),
    ]);
    expect(download.suggestedFilename()).toBe('run-1-mass-share.csv');
    const lines = readFileSync(await download.path(), 'utf8').split('\n');
    expect(lines.slice(0, 2)).toEqual(['step,generator,aggregator', '0,0.75,0.25']);
    expect(lines).toHaveLength(STEPS + 1);
  });

  it('cannot be taken over by what a model, a workflow or a configuration says', async () => {
    const attack =
      '</pre></script><script>alert(1)</script><img src="http://127.0.0.1:9/x" onerror="alert(2)"><svg onload="alert(3)">';
    const words: Words = {
      roles: ['"><script>alert(4)</script>', "b' onload='alert(5)"],
      policies: [attack],
    };
    const run = new MadeUpRun(words, `workflow:\n  name: voting\nmodel:\n  path: '${attack}'\n`);
    for (let step = 0; step < 3; step++) run.append(stepRows(step, attack, words));
    run.append(evaluation(0, 3));
    run.release();
    const { page, requests, noises } = await open(`file://${written(run.folder)}`);
    expect(await page.locator('.episode .call > pre').first().textContent()).toBe(attack);
    expect(await page.locator('#run-1-mass-share .legend').innerText()).toContain(words.roles[0]);
    expect(await page.locator('script, img, [onload], [onerror]').count()).toBe(0);
    expect({ requests, noises }).toEqual({ requests: [], noises: [] });
  });
});

describe('runs that something is missing from', () => {
  it('shows an empty run', () => {
    const { html, pictures } = report([readRun(madeUp({}))]);
    expect(html).toContain('No step of this run has been recorded.');
    expect(pictures.size).toBe(0);
  });

  it('shows a run of one role', async () => {
    const { folder } = await trainedRun({ workflow: { name: 'single', prompts: 'small' } });
    const { pictures } = report([readRun(folder)]);
    // A step without a right answer has no gradient, and no share.
    const shares = pictures.get('mass-share')?.numbers.map(({ generator }) => generator);
    expect(new Set(shares)).toEqual(new Set([1]));
    expect([...pictures.keys()].filter((id) => /cosine|gram|layers/.test(id))).toEqual([]);
  });

  it('shows a role that never had a gradient, and one that never spoke', () => {
    const words: Words = { roles: ['generator', 'aggregator', 'silent'], policies: ['shared'] };
    const rows = Array.from({ length: 3 }, (_, step) => {
      const { gradients = [], ...others } = stepRows(step, 'text', words);
      const still = gradients.map((row) => (row.role === 'aggregator' ? { ...row, norm: 0 } : row));
      return { ...others, gradients: still.filter(({ role }) => role !== 'silent') };
    });
    const { pictures } = report([readRun(madeUp(merged(rows), words))]);
    expect(pictures.get('mass-share')?.numbers[0]).toEqual({ step: 0, generator: 1, aggregator: 0 });
  });

  it('names updates that were skipped', () => {
    const skipped = 'non-finite gradients: policy shared, layer 3, role aggregator';
    const rows = { ...stepRows(0), updates: [{ step: 0, policy: 'shared', skipped }] };
    expect(report([readRun(madeUp(rows))]).html).toContain(`update skipped: ${skipped}`);
  });

  it('shows all before the cut of a stream that was cut, and no step after it', () => {
    const run = cliffRun();
    const path = streamPath(run, 'gradients');
    truncateSync(path, statSync(path).size - 100);
    const { pictures, html } = report([readRun(run)]);
    expect(html).toMatch(/gradients\.arrows: its last \d+ bytes are no whole batch and are left out\./);
    expect(pictures.get('mass-share')?.numbers).toHaveLength(STEPS - 1);
    expect(pictures.get('role-cosine')?.numbers).toHaveLength(STEPS);
  });

  it('says which stream is none, and which has another version', () => {
    const run = cliffRun();
    const path = streamPath(run, 'signals');
    const bytes = readFileSync(path);
    const version = bytes.indexOf('troupe.schema');
    const value = String(SCHEMA_VERSION);
    // The value of the metadata stands near its key.
    const at =
      bytes.lastIndexOf(value, version) > version - 24
        ? bytes.lastIndexOf(value, version)
        : bytes.indexOf(value, version);
    bytes[at] = '7'.charCodeAt(0);
    writeFileSync(path, bytes);
    expect(() => readRun(run)).toThrow(/signals\.arrows.*version 7|version 7.*signals\.arrows/s);
    writeFileSync(path, 'no stream');
    expect(() => readRun(run)).toThrow(/signals\.arrows/);
  });

  it('reads past bytes that a crash left behind', () => {
    const run = cliffRun();
    appendFileSync(streamPath(run, 'roles'), Buffer.alloc(1000, 255));
    expect(report([readRun(run)]).pictures.get('entropy')?.numbers).toHaveLength(STEPS);
  });
});

describe('several runs', () => {
  it('stand in one page, with their accuracies beside each other', async () => {
    const study = temporaryFolder();
    mkdirSync(join(study, 'runs'));
    for (const [name, sharing, right] of [
      ['a', 'shared', 12],
      ['b', 'isolated', 16],
    ] as const) {
      const run = new MadeUpRun(undefined, `policies:\n  sharing: ${sharing}\n`);
      run.append(merged([stepRows(0), evaluation(0, 8), evaluation(1, right)]));
      run.release();
      renameSync(run.folder, join(study, 'runs', name));
    }
    const command = ['build/js/cli/main.js', 'report', study];
    expect(spawnSync('node', command, { encoding: 'utf8' }).stderr).toBe('');
    const { page, noises } = await open(`file://${join(study, 'report.html')}`);
    const rows = await page.locator('#runs > table tbody tr').allInnerTexts();
    expect(rows.map((row) => row.split(/\s+/).slice(0, 7).join(' '))).toEqual([
      'a 1 40.0 % 60.0 % 1',
      'b 1 40.0 % 80.0 % 1',
    ]);
    const titles = await page.locator('#runs figure h4').allInnerTexts();
    expect(titles.map((title) => title.split(': ')[1])).toEqual([
      'held-out accuracy',
      'gradient mass of generator',
      'gradient mass of aggregator',
      'cosine of generator × aggregator',
      'amplification of generator',
    ]);
    expect(await page.locator('#runs .legend').first().innerText()).toMatch(
      /shared \(n = 1\).*isolated \(n = 1\)/,
    );
    expect(noises).toEqual([]);
  });

  it('are one line where they differ in the seed alone, and one each where they differ in anything else', () => {
    const folders = [
      [1, 1e-4, 8],
      [2, 1e-4, 12],
      [1, 2e-4, 20],
    ].map(([seed, rate, right]) => {
      const run = new MadeUpRun(
        undefined,
        `seed: ${seed}\npolicies:\n  defaults:\n    learningRate: ${rate}\n`,
      );
      run.append(merged([stepRows(0), evaluation(0, 8), evaluation(1, right ?? 0)]));
      // The second seed has been evaluated once more than the first.
      if (seed === 2) run.append(evaluation(2, 20));
      run.release();
      return run.folder;
    });
    const { pictures } = report(folders.map(readRun));
    const [accuracy] = [...pictures].flatMap(([id, figure]) => (id.startsWith('accuracy-') ? [figure] : []));
    expect(accuracy?.numbers).toEqual([
      { step: 0, 'learningRate 0.0001 (n = 2)': 0.4, 'learningRate 0.0002 (n = 1)': 0.4 },
      { step: 1, 'learningRate 0.0001 (n = 2)': 0.5, 'learningRate 0.0002 (n = 1)': 1 },
    ]);
    expect(accuracy?.caption).toMatch(/n: runs that differ in their seeds alone.*band: from the lowest/);
    // Two seeds of one configuration are one line, whose file says as much.
    const alike = report(folders.slice(0, 2).map(readRun)).pictures;
    const svg = standalone([...alike.values()][0] as Figure);
    expect(svg).toContain('>all runs (n = 2)</text>');
    expect(
      [...svg.matchAll(/<text x="10" y="\d{3}">([^<]*)<\/text>/g)].map(([, line]) => line).join(' '),
    ).toMatch(/^n: runs that differ in their seeds alone.* highest of them\.$/);
  });

  it('are two lines where they were made from other files of a model', () => {
    const folders = ['a', 'b', 'b'].map((sha256, seed) => {
      const run = new MadeUpRun(undefined, `seed: ${seed}\n`);
      run.append(merged([stepRows(0), evaluation(0, 8)]));
      run.release();
      writeFileSync(join(run.folder, 'model.json'), JSON.stringify({ 'model.safetensors': sha256 }));
      return run.folder;
    });
    const { pictures } = report(folders.map(readRun));
    const [accuracy] = [...pictures].flatMap(([id, figure]) => (id.startsWith('accuracy-') ? [figure] : []));
    const names = Object.keys(accuracy?.numbers[0] ?? {}).map((name) =>
      name.replace(/[0-9a-f]{12}/, 'DIGEST'),
    );
    expect(names).toEqual(['step', 'model files DIGEST (n = 1)', 'model files DIGEST (n = 2)']);
  });

  it('show cosines corrected for noise seed by seed, with their intervals and how often there is one', () => {
    const folders = [1, 2].map((seed) => {
      const run = new MadeUpRun(undefined, `seed: ${seed}\n`);
      for (let step = 0; step < 4; step++) {
        const { gradients = [], gradient_pairs: pairs = [], ...others } = stepRows(step);
        // The floor is measured at every step, and lets a cosine be corrected at two of the first seed's.
        const known = seed === 1 && step >= 2;
        const floor = { split_half: known ? 0.25 : -0.1 };
        const corrected = {
          corrected_cosine: known ? -0.5 : null,
          corrected_low: step === 2 && known ? -0.75 : null,
          corrected_high: step === 2 && known ? -0.25 : null,
        };
        const total = (rows: Row[], more: Row) =>
          rows.map((row) => (row.scope === 'total' ? { ...row, ...more } : row));
        run.append({
          ...others,
          gradients: total(gradients, floor),
          gradient_pairs: total(pairs, corrected),
        });
      }
      run.append(evaluation(0, 8));
      run.release();
      return run.folder;
    });
    const { pictures } = report(folders.map(readRun));
    const found = [...pictures].filter(([id]) => /^(corrected-cosine|noise-floor)-/.test(id));
    expect(found.map(([, { title }]) => title.split(': ')[1])).toEqual([
      'cosine, corrected for noise, of generator × aggregator',
      'noise floor of generator',
      'noise floor of aggregator',
    ]);
    const [corrected, floor] = found.map(([, figure]) => figure);
    expect(corrected?.numbers).toEqual([
      {
        step: 2,
        'seed 1 (n = 1)': -0.5,
        'seed 1 (n = 1), low': -0.75,
        'seed 1 (n = 1), high': -0.25,
      },
      { step: 3, 'seed 1 (n = 1)': -0.5, 'seed 1 (n = 1), low': null, 'seed 1 (n = 1), high': null },
    ]);
    expect(corrected?.caption).toContain(
      'Steps with a value, of those measured: seed 1 2 of 4; seed 2 0 of 4.',
    );
    // One interval, one bar.
    expect(corrected?.svg().match(/<line [^>]*y1="[^"]*"[^>]*>/g)?.length).toBe(1);
    expect(floor?.numbers[0]?.['all runs (n = 2)']).toBeCloseTo(-0.1, 12);
    expect(floor?.numbers[3]?.['all runs (n = 2)']).toBeCloseTo(0.075, 12);

    const alone = report([readRun(folders[0] as string)]).pictures;
    expect(alone.get('corrected-cosine')?.numbers[0]).toEqual({
      step: 2,
      'generator × aggregator': -0.5,
      'generator × aggregator, low': -0.75,
      'generator × aggregator, high': -0.25,
    });
    expect(alone.get('noise-floor')?.caption).toContain('generator × aggregator: 2 of 4');
    expect(alone.get('noise-floor')?.numbers).toHaveLength(4);
    const none = report([readRun(folders[1] as string)]).pictures;
    expect(none.has('corrected-cosine')).toBe(false);
    expect(none.get('noise-floor')?.caption).toContain('generator × aggregator: 0 of 4');
  });

  it('do not grow with what a reader of one run needs', () => {
    const run = new MadeUpRun();
    for (let step = 0; step < 240; step++) run.append(stepRows(step));
    run.append(evaluation(0, 8));
    run.release();
    const lengthOf = (runs: number) =>
      report(Array.from({ length: runs }, () => readRun(run.folder))).html.length;
    // Forty runs are a few megabytes.
    expect(lengthOf(6) - lengthOf(3)).toBeLessThan(3 * 80_000);
    expect(lengthOf(1)).toBeGreaterThan(2 * 60_000);
  });

  it('needs a run or a study', () => {
    const folder = temporaryFolder();
    const done = spawnSync('node', ['build/js/cli/main.js', 'report', folder], { encoding: 'utf8' });
    expect(done.status).toBe(1);
    expect(done.stderr).toContain('is no run directory');
  });
});
