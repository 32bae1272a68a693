/**
 * `troupe play [CONFIG]`: one episode on the screen, every rendered prompt, response, reading, claim and reward. With
 * `--text FILE` the responses are given, and no model is loaded.
 */
import type { CommandModule } from 'yargs';
import { TroupeError } from '../config/errors.js';
import { loadRunConfig } from '../config/load.js';
import { printable } from '../config/thrown.js';
import { divertOutput } from '../config/user-code.js';
import { Engine } from '../engine/engine.js';
import { type Played, type PlayedCall, play, readTexts, TextAnswers } from '../learning/play.js';
import { openParts, setUp } from '../learning/setup.js';
import { repeated } from './options.js';

interface Arguments {
  config: string | undefined;
  text: string | undefined;
  problem: number;
  set: string[];
}

export const playCommand: CommandModule<object, Arguments> = {
  builder: (yargs) =>
    yargs
      .positional('config', {
        type: 'string',
        describe: 'File or name of a preset; default: the default run',
      })
      .option('text', {
        type: 'string',
        describe: "YAML file of responses instead of a model's: a text or a list of texts for each role",
      })
      .option('problem', { type: 'number', default: 0, describe: 'Index of the training problem' })
      .option('set', repeated('Override a key, e.g. --set workflow.name=eval-opt')),
  handler: async (args) => {
    if (!Number.isSafeInteger(args.problem) || args.problem < 0) {
      throw new TroupeError(`is ${args.problem}; it takes a whole number from 0.`, { where: '--problem' });
    }
    const { played, notes } = await playConfig(args);
    for (const line of describe(played)) console.log(line);
    for (const note of [...played.failed, ...notes]) console.error(note);
    if (played.failed.length > 0 || played.episode.error !== undefined) process.exitCode = 1;
  },
};

/** Standard output is kept for the episode: users' files may print. */
async function playConfig({ config: file, text, problem, set }: Arguments) {
  using _output = divertOutput();
  const { config, locate } = loadRunConfig(file ?? 'default', set);
  if (text === undefined) {
    await using engine = new Engine();
    const trainer = await setUp(engine, config, { trainable: false, locate });
    try {
      const parts = { ...trainer, folder: trainer.model.folder };
      return { played: await play(parts, (request) => engine.complete(request), problem), notes: [] };
    } finally {
      await trainer.close();
    }
  }
  const parts = await openParts(config, { trainable: false, locate });
  try {
    const { roles } = parts.open.workflow;
    const answers = new TextAnswers(readTexts(text, roles), roles, parts.chat, text);
    const played = await play({ ...parts, chat: answers.chat }, answers.complete, problem);
    return { played, notes: answers.unused() };
  } finally {
    await parts.close();
  }
}

/** The lines of the screen. */
export function describe({ episode, calls }: Played): string[] {
  const { problem, answer, grade, counts, error } = episode;
  return [
    `problem ${printable(problem.id)}`,
    ...block(problem.question),
    ...(problem.answer === undefined ? [] : [`right answer ${printable(problem.answer)}`]),
    ...calls.flatMap(describeCall),
    '',
    ...(error === undefined ? ['answer', ...block(answer)] : [`broken off: ${printable(error)}`]),
    `graded ${grade.correct ? 'right' : 'wrong'} (${printable(grade.reason)}), reward ${grade.reward}`,
    ...Object.entries(counts).map(([name, count]) => `count ${printable(name)} ${count}`),
  ];
}

function describeCall({ call, prompt, extracted, formed, reward }: PlayedCall, index: number): string[] {
  const { role, slot, turn, policy, completion } = call;
  const form = formed === undefined ? [] : [formed ? 'well-formed' : 'not of the form that is asked for'];
  const read = [
    call.unread ? 'the workflow cannot read it' : 'the workflow can read it',
    ...form,
    extracted === undefined ? 'no answer in it' : `the answer in it is ${oneLine(extracted)}`,
  ];
  return [
    '',
    `call ${index}: ${role}, slot ${slot}, turn ${turn}, policy ${policy}`,
    `  prompt, ${call.prompt.length} tokens`,
    ...block(prompt),
    `  response, ${completion.ids.length} tokens, ended by ${completion.finish}`,
    ...block(call.text),
    `  reading: ${read.join('; ')}`,
    ...claimOf(call),
    `  reward ${reward ?? 'failed'}`,
  ];
}

function claimOf({ claimed, ownGrade }: PlayedCall['call']): string[] {
  if (claimed === undefined) return ['  claims nothing'];
  const verdict = ownGrade === undefined ? 'not graded' : ownGrade.correct ? 'rightly' : 'wrongly';
  return [
    `  claims that this is ${claimed.accepts ? 'right' : 'wrong'}: ${oneLine(claimed.text)} (${verdict})`,
  ];
}

const block = (text: string) =>
  printable(text)
    .split('\n')
    .map((line) => `  | ${line}`);

const oneLine = (text: string) =>
  JSON.stringify(printable(text.length > 100 ? `${text.slice(0, 99)}…` : text));
