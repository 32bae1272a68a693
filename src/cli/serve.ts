/** `troupe serve RUN|MODEL`: the roles of a run over the OpenAI API, on this machine only. */
import type { CommandModule } from 'yargs';
import { TroupeError } from '../config/errors.js';
import { divertOutput } from '../config/user-code.js';
import { Engine } from '../engine/engine.js';
import { loadServed, type Served, type ServeOptions } from '../learning/serving/served.js';
import { ApiServer } from '../learning/serving/server.js';
import { checkPort, portOption, repeated } from './options.js';

/** Milliseconds in which answers may go out when the engine has ended. */
const GRACE = 1000;

interface Arguments {
  target: string;
  checkpoint: string | undefined;
  port: number;
  set: string[];
}

export const serveCommand: CommandModule<object, Arguments> = {
  builder: (yargs) =>
    yargs
      .positional('target', { type: 'string', demandOption: true, describe: 'Run directory, or a model' })
      .option('checkpoint', {
        type: 'string',
        describe: 'Of a run: last (default), best, or the number of a step',
      })
      .option('port', portOption(8421))
      .option('set', repeated('Override a key, e.g. --set rollout.sampling.maxTokens=512')),
  handler: async ({ target, checkpoint, port, set }) => {
    checkPort(port);
    const ended = new Promise<undefined>((resolve) => {
      process.once('SIGINT', () => resolve(undefined));
      process.once('SIGTERM', () => resolve(undefined));
    });
    await using engine = new Engine();
    const served = await load(engine, target, { set, ...(checkpoint !== undefined && { checkpoint }) });
    const server = await ApiServer.start(served, port);
    console.log(`${server.url} answers as ${[...served.models.keys()].join(', ')}; Ctrl-C ends it.`);
    const failure = await Promise.race([ended, engine.failure]);
    // Who waits for an answer is told that there will be none.
    await server.close(failure === undefined ? 0 : GRACE);
    if (failure !== undefined)
      throw new TroupeError(`the engine has ended: ${failure.message}`, { where: target });
  },
};

/** A run's workflow is a user's file, which may print. */
async function load(engine: Engine, target: string, options: Omit<ServeOptions, 'warn'>): Promise<Served> {
  using _output = divertOutput();
  return await loadServed(engine, target, { ...options, warn: (message) => console.error(message) });
}
