/**
 * The end of CI's output: each failure by its file, name and first line, then "N passed, N failed". A file that does not load has
 * no test that failed, and counts as one. Usage: summary.mjs RESULTS.json…, as vitest's JSON reporter writes them.
 */
import { readFileSync } from 'node:fs';
import { relative } from 'node:path';

let [passed, failed, skipped] = [0, 0, 0];
for (const file of process.argv.slice(2)) {
  const results = JSON.parse(readFileSync(file, 'utf8'));
  passed += results.numPassedTests;
  skipped += results.numPendingTests;
  for (const { name, status, message, assertionResults: tests } of results.testResults) {
    const failures = tests
      .filter((test) => test.status === 'failed')
      .map(({ fullName, failureMessages }) => [` > ${fullName}`, failureMessages[0]]);
    if (status === 'failed' && failures.length === 0) failures.push(['', message]);
    failed += failures.length;
    for (const [test, why = ''] of failures) {
      console.log(`failed: ${relative('.', name)}${test}: ${why.split('\n')[0]}`);
    }
  }
}
console.log(`${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ''}`);
