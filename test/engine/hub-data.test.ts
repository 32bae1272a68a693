/** Data sets by their names on the hub: which files a name means, what is fetched of them, and tasks that read them. */
import { describe, expect, it, vi } from 'vitest';
import { chosenDataFiles, dataSetOnHub } from '../../src/engine/hub.js';
import { dataFilesFromHub } from '../../src/engine/hub-download.js';
import { createTask } from '../../src/tasks/registry.js';
import { errorOf, SHA, useHub } from './played-hub.js';

const hub = useHub();
const say = (line: string) => void hub.lines.push(line);

describe('a data set', () => {
  const row = (i: number) => `${JSON.stringify({ question: `What is ${i}?`, answer: `#### ${i}` })}\n`;
  const publish = () => {
    hub.files.set('README.md', Buffer.from('# About'));
    for (const part of ['main', 'socratic']) {
      hub.files.set(`${part}/train.jsonl`, Buffer.from([1, 2, 3, 4].map(row).join('')));
      hub.files.set(`${part}/test.jsonl`, Buffer.from(row(9)));
    }
  };
  const data = (text: string) => dataFilesFromHub(dataSetOnHub(text), say);
  const names = (paths: string[]) => paths.map((path) => path.slice(path.indexOf(SHA) + SHA.length + 1));

  it('gives the files that its name means, and only those are fetched', async () => {
    publish();
    expect(names(await data('hf:org/name/main'))).toEqual(['main/train.jsonl']);
    // The cache holds nothing but training rows now: the held-out ones are fetched, not taken from them.
    expect(names(await data('hf:org/name/main/test'))).toEqual(['main/test.jsonl']);
    hub.asked = [];
    expect(names(await data('hf:org/name/main'))).toEqual(['main/train.jsonl']);
    expect(hub.asked).toEqual([]);
    expect((await errorOf(data('hf:org/name'))).message).toMatch(
      /^hf:org\/name: has data files in main, socratic\. Name one: hf:org\/name\/main\.$/,
    );
    expect((await errorOf(data('hf:org/name/other'))).message).toMatch(
      /has no data file "other"\. Its data files are main\/train\.jsonl/,
    );
    vi.stubEnv('HF_HUB_OFFLINE', '1');
    expect((await errorOf(data('hf:org/name/socratic'))).message).toMatch(
      /has no data file "socratic"|lacks/,
    );
  });

  it('is the file of a task', async () => {
    publish();
    const error = vi.spyOn(console, 'error').mockImplementation(() => {});
    const task = await createTask({
      name: 'math',
      files: 'hf:org/name/main/train',
      evaluationFiles: 'hf:org/name/main/test',
    });
    // What a run records of it, so that it has to be readable files by then.
    expect(await task.split?.()).toMatchObject({
      rows: 4,
      files: [
        {
          file: expect.stringMatching(/main\/train\.jsonl$/),
          sha256: expect.stringMatching(/^[0-9a-f]{64}$/),
        },
      ],
    });
    error.mockRestore();
    expect(task.evaluation(10).map(({ answer }) => answer)).toEqual(['9']);
  });

  it('of several shards is whole or missing', () => {
    const wanted = dataSetOnHub('hf:org/name');
    const shards = ['data/train-00000-of-00002.parquet', 'data/train-00001-of-00002.parquet'];
    expect(
      chosenDataFiles(wanted, [...shards, 'data/test-00000-of-00001.parquet', 'dataset_info.json']),
    ).toEqual(shards);
  });

  it.each(['hf:name', 'hf:org/../x', 'hf:org/name@../x', 'hf:'])('%s is no name', (text) => {
    expect(() => dataSetOnHub(text)).toThrow(/is no name on the hub\. It takes hf:OWNER\/NAME/);
  });
});
