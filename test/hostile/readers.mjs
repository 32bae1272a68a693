/**
 * Every reader of files that others write, as a function of a folder that holds them. `corpora.ts` makes the sound
 * folders; what is read here has been damaged. A reader may take the files or refuse them with a TroupeError.
 */
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

const built = (file) => import(pathToFileURL(join(process.cwd(), 'build/js', file)).href);

const silent = () => undefined;
const temporary = (folder) => {
  const path = join(folder, 'written');
  rmSync(path, { recursive: true, force: true });
  return path;
};

export const READERS = {
  async streams() {
    const { readStream } = await built('streams/stream-reader.js');
    const { linesOf } = await built('cli/tail.js');
    const { addStreams } = await built('runs/read-history.js');
    const { History } = await built('judgement/history.js');
    const { verdict } = await built('judgement/verdict.js');
    const { runSchema } = await built('config/schema.js');
    const { exportParquet } = await built('runs/parquet.js');
    const { followStream } = await built('streams/follow.js');
    const { alarms } = runSchema.parse({});
    return async (folder, mutated) => {
      const path = join(folder, mutated);
      for await (const _ of followStream(path, { isLive: () => false }));
      linesOf(readStream(path).table);
      const history = new History();
      addStreams(history, folder);
      verdict(history, alarms);
      exportParquet(folder, temporary(folder));
    };
  },

  async report() {
    const { readRun } = await built('report/run-data.js');
    const { report } = await built('report/page.js');
    return (folder) => report([readRun(folder)]).html;
  },

  async run() {
    const { isInUse } = await built('config/lock.js');
    const { lockRun } = await built('runs/lock.js');
    const { readChanges } = await built('runs/run-directory.js');
    const { readRun } = await built('report/run-data.js');
    const { latestCheckpoint, pruneCheckpoints } = await built('runs/checkpoint.js');
    return async (folder) => {
      isInUse(folder);
      lockRun(folder)();
      readRun(folder);
      readChanges(folder);
      await latestCheckpoint(folder, silent);
      pruneCheckpoints(folder, 1);
    };
  },

  async model() {
    const { Session } = await built('engine/session.js');
    return async (folder) => {
      const session = new Session(async () => undefined);
      const rollout = { cacheBytes: 2 ** 24, maxBatch: 4, prefillTokens: 64, seed: 0, deterministic: true };
      await session.run('loadModel', { name: 'm', folder, dtype: 'float32', device: 'cpu', rollout });
      const optimizer = { betas: [0.9, 0.999], eps: 1e-8, weightDecay: 0 };
      const policy = {
        name: 'p',
        model: 'm',
        parameters: { kind: 'full' },
        trainable: false,
        optimizer,
        seed: 0,
      };
      await session.run('createPolicy', policy);
      await session.run('score', { policy: 'p', sequences: [Int32Array.of(0, 1, 2)], temperature: 1 });
    };
  },

  async tokenizer() {
    const { Tokenizer } = await built('engine/tokenizer.js');
    return (folder) => {
      const tokenizer = Tokenizer.load(folder);
      tokenizer.tokenBytes();
      const messages = [
        { role: 'system', content: 'Solve.' },
        { role: 'user', content: '1 + 2 = ? <|im_end|>' },
        { role: 'assistant', content: 'é3' },
      ];
      const { ids } = tokenizer.applyChatTemplate(messages);
      tokenizer.decode(ids);
      tokenizer.decode(ids, { skipSpecialTokens: false });
      tokenizer.encode('\u0000 12345 ﬁ 你好\n\n');
    };
  },

  async gguf() {
    const { importGguf } = await built('engine/gguf-model.js');
    return (folder) => importGguf(join(folder, 'model.gguf'), temporary(folder), { dtype: 'bfloat16' });
  },

  async config() {
    const { checkedConfig } = await built('cli/config.js');
    return (folder) => checkedConfig(join(folder, 'run.yaml'), []);
  },

  async study() {
    const { loadStudy } = await built('learning/study/matrix.js');
    return (folder) => loadStudy(join(folder, 'study.yaml'), []);
  },

  async sft() {
    const { loadConfig } = await built('config/load.js');
    const { sftSchema } = await built('learning/sft-schema.js');
    return (folder) => loadConfig(sftSchema, join(folder, 'sft.yaml'), []);
  },

  async prompts() {
    const { Prompts } = await built('workflows/prompts.js');
    return (folder) => {
      const prompts = new Prompts(join(folder, 'voting.yaml'));
      const fields = { question: '1 + 2', candidates: ['1', '2'], count: 2, answer: '3' };
      for (const name of ['generator', 'aggregator']) prompts.render(name, fields);
    };
  },

  math: () => dataReader('math'),
  code: () => dataReader('code'),

  /** The kinds of data files, whatever is in their rows. */
  async rows() {
    const { rowsOf } = await built('tasks/data-files/rows-of.js');
    return async (folder, mutated) => {
      for await (const _ of rowsOf(join(folder, mutated)));
    };
  },

  async split() {
    const { createTask } = await built('tasks/registry.js');
    return async (folder) => {
      const split = { file: join(folder, 'split.json') };
      const task = await createTask(
        { name: 'math', files: join(folder, 'rows.jsonl'), split },
        { warn: silent },
      );
      task.evaluation(10);
      task.train(0, 0);
    };
  },

  async answers() {
    const { gradeFile } = await built('tasks/grade-file.js');
    return async (folder) => {
      const file = join(folder, 'answers.jsonl');
      for await (const _ of gradeFile(file, { task: 'math', strict: false, skipped: silent }));
    };
  },

  async calls() {
    const { readJsonLines } = await built('config/json-lines.js');
    const { rowSchema } = await built('cli/gradients.js');
    const { readIds } = await built('cli/open-model.js');
    const model = { vocabularySize: 300, maxPositions: 1000 };
    return (folder, mutated) => {
      if (mutated === 'calls.jsonl') readJsonLines(join(folder, 'calls.jsonl'), rowSchema(model));
      else readIds(join(folder, 'ids.json'), model);
    };
  },
};

/** Rows of every kind of data file, and what the task makes of them. */
async function dataReader(name) {
  const { createTask } = await built('tasks/registry.js');
  return async (folder, mutated) => {
    const task = await createTask({ name, files: [join(folder, mutated)], holdout: 1 }, { warn: silent });
    const problem = task.train(0, 0);
    if (name === 'math') await task.grade([{ problem, text: String(problem.answer) }]);
    await task.close();
  };
}
