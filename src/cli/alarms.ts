/**
 * `troupe alarms RUN…`: cliff, label and alarms of runs, finished or not, and over all of them how often each rule
 * raised a false alarm. The rules are each run's own; --set tries others on what was recorded.
 */
import type { CommandModule } from 'yargs';
import { percent } from '../config/percent.js';
import { type AlarmRate, alarmRates } from '../judgement/alarm-rates.js';
import { describeCapture } from '../judgement/capture.js';
import { History } from '../judgement/history.js';
import { describeRole } from '../judgement/roles-at-end.js';
import { type Verdict, verdict } from '../judgement/verdict.js';
import { accuracy } from '../learning/accuracy.js';
import { describeAlarm } from '../learning/alarms.js';
import { findRuns } from '../runs/find-runs.js';
import { addStreams } from '../runs/read-history.js';
import { loadRun } from '../runs/run-config.js';
import { repeated } from './options.js';

interface Arguments {
  runs: string[];
  set: string[];
  json: boolean;
}

export const alarmsCommand: CommandModule<object, Arguments> = {
  builder: (yargs) =>
    yargs
      .positional('runs', {
        type: 'string',
        array: true,
        demandOption: true,
        describe: 'Run directories or studies',
      })
      .option('set', repeated('Try another rule, e.g. --set alarms.window=10'))
      .option('json', { type: 'boolean', default: false, describe: 'One JSON object on standard output' }),
  handler: ({ runs: folders, set, json }) => {
    const runs = findRuns(folders);
    const verdicts = runs.map((run) => verdictOf(run, set));
    const rates = alarmRates(verdicts);
    if (json) console.log(JSON.stringify({ runs: runs.map((run, i) => ({ run, ...verdicts[i] })), rates }));
    else show(runs, verdicts, rates);
  },
};

function verdictOf(run: string, set: readonly string[]): Verdict {
  const { config } = loadRun(run, set);
  const history = new History();
  addStreams(history, run, (message) => console.error(message));
  return verdict(history, config.alarms);
}

function show(runs: readonly string[], verdicts: readonly Verdict[], rates: readonly AlarmRate[]): void {
  for (const [i, run] of runs.entries()) {
    const { label, cliff, captures, roles, alarms } = verdicts[i] as Verdict;
    console.log(`${run}  ${label ?? 'not evaluated twice'}`);
    if (cliff !== null) {
      const { first, peak, current, drop, onset } = cliff;
      console.log(
        `  accuracy ${percent(first.accuracy)}, peak ${percent(peak.accuracy)} at step ${peak.step}, ` +
          `now ${percent(current.accuracy)} at step ${current.step}`,
      );
      if (drop !== null) {
        const since = onset === null ? '' : `, since step ${onset}`;
        console.log(
          `  drop ${percent(drop.difference)} (95 % interval ${percent(drop.low)} to ${percent(drop.high)}, paired)${since}`,
        );
      }
    }
    for (const capture of captures) console.log(`  captured: ${describeCapture(capture)}`);
    for (const role of roles) {
      if (role.deadSince !== null) console.log(`  ${role.role} ${describeRole(role)}`);
    }
    for (const alarm of alarms) console.log(`  step ${alarm.step}: ${describeAlarm(alarm)}`);
  }
  const failed = rates[0]?.failed ?? 0;
  console.log(`\nrule            false alarms (95 % interval)      warned of ${failed} failed  median lead`);
  for (const { rule, sound, falseAlarms, warned, medianLead } of rates) {
    const { mean, low, high } = accuracy(falseAlarms, sound);
    const shown = `${falseAlarms}/${sound} = ${percent(mean)} (${percent(low)} to ${percent(high)})`;
    const lead = medianLead === null ? '–' : `${medianLead} steps`;
    console.log(`${rule.padEnd(16)}${shown.padEnd(34)}${String(warned).padEnd(20)}${lead}`);
  }
}
