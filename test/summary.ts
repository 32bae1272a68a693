/** What the test run says at its end about tests that it left out: for each reason that one gave, how many. */
import type { TestProject } from 'vitest/node';

export default function summary({ vitest }: TestProject): () => void {
  return () => {
    const reasons = new Map<string, number>();
    for (const module of vitest.state.getTestModules()) {
      for (const test of module.children.allTests('skipped')) {
        const result = test.result();
        const reason = result.state === 'skipped' ? result.note : undefined;
        if (reason !== undefined) reasons.set(reason, 1 + (reasons.get(reason) ?? 0));
      }
    }
    for (const [reason, count] of reasons) console.log(`Tests skipped (${count}): ${reason}.`);
  };
}
