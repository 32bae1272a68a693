/** What the test run says at its end about tests that it left out. */
import { allMissing } from './needs.js';

export default function summary(): () => void {
  return () => {
    for (const line of allMissing()) console.log(`Tests skipped: ${line}.`);
  };
}
