/** `troupe grade --task math|code FILE.jsonl`: verdicts on answers that any program recorded. */
import type { CommandModule } from 'yargs';
import { TroupeError } from '../config/errors.js';
import { percent } from '../config/percent.js';
import { gradeFile } from '../tasks/grade-file.js';

interface Arguments {
  file: string;
  task: 'math' | 'code';
  strict: boolean;
  python: string | undefined;
  json: boolean;
}

export const gradeCommand: CommandModule<object, Arguments> = {
  builder: (yargs) =>
    yargs
      .positional('file', { type: 'string', demandOption: true, describe: 'File of answers' })
      .option('task', {
        choices: ['math', 'code'] as const,
        demandOption: true,
        describe: 'math: by the last \\boxed{} or final answer. code: by running it in a sandbox',
      })
      .option('strict', {
        type: 'boolean',
        default: false,
        describe: 'A line that cannot be graded is an error instead of being skipped',
      })
      .option('python', { type: 'string', describe: 'Python interpreter that runs the programs' })
      .option('json', {
        type: 'boolean',
        default: false,
        describe: 'One {"correct", "reason", "line"} for each graded line, instead of a summary',
      }),
  handler: async ({ file, task, strict, python, json }) => {
    const reasons = new Map<string, number>();
    let skipped = 0;
    const verdicts = gradeFile(file, {
      task,
      strict,
      ...(python === undefined ? {} : { python }),
      skipped: (message) => {
        skipped++;
        console.error(`skipped ${message}.`);
      },
    });
    for await (const verdict of verdicts) {
      if (json) console.log(JSON.stringify(verdict));
      reasons.set(verdict.reason, (reasons.get(verdict.reason) ?? 0) + 1);
    }
    if (skipped > 0) console.error(`${skipped} line${skipped === 1 ? '' : 's'} of ${file} skipped.`);
    if (reasons.size === 0) throw new TroupeError('holds nothing that can be graded.', { where: file });
    if (!json) printSummary(reasons);
  },
};

/** Of at least one verdict. */
function printSummary(reasons: ReadonlyMap<string, number>): void {
  const total = [...reasons.values()].reduce((sum, count) => sum + count, 0);
  const correct = reasons.get('correct') ?? 0;
  console.log(`${correct} of ${total} correct (${percent(correct / total)})`);
  for (const [reason, count] of [...reasons].sort(([, a], [, b]) => b - a)) {
    if (reason !== 'correct') console.log(`  ${reason}: ${count}`);
  }
}
