/**
 * Order of the test files: the longest first. Two run at a time, and a long one that comes last leaves a core idle. The runner
 * orders by size where it has not run them before, as in CI.
 */
import { BaseSequencer, type TestSpecification } from 'vitest/node';

/** By what they took when the suite ran alone; what is not listed comes after them. */
const LONGEST = [
  'tasks/code-cases',
  'learning/user-modules',
  'learning/rank-faults',
  'learning/run',
  'learning/alarm-actions',
  'cli/models',
  'tasks/sandbox',
  'learning/treatment',
  'engine/weights',
  'report/report',
  'hostile/hostile',
  'cli/study',
  'learning/bad-input',
  'learning/stopping',
  'cli/gradients',
  'runs/kill',
  'learning/sharing',
  'engine/process-group',
  'tasks/sandbox-limits',
  'learning/embedded',
  'streams/stream',
  'tasks/code',
  'learning/ranks',
];

export default class LongestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const place = ({ moduleId }: TestSpecification) => {
      const at = LONGEST.findIndex((name) => moduleId.endsWith(`/test/${name}.test.ts`));
      return at < 0 ? LONGEST.length : at;
    };
    return (await super.sort(files)).sort((a, b) => place(a) - place(b));
  }
}
