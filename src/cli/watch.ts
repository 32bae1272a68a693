/** `troupe watch RUN`: the page of a run in a browser on this machine, as its steps land. */
import type { CommandModule } from 'yargs';
import { RunServer } from '../report/server.js';
import { checkPort, portOption } from './options.js';

interface Arguments {
  run: string;
  port: number;
}

export const watchCommand: CommandModule<object, Arguments> = {
  builder: (yargs) =>
    yargs
      .positional('run', { type: 'string', demandOption: true, describe: 'Run directory' })
      .option('port', portOption(8420)),
  handler: async ({ run, port }) => {
    checkPort(port);
    const server = await RunServer.start(run, port);
    console.log(`${server.url} shows ${run}; Ctrl-C ends it.`);
    const stop = () => void server.close();
    process.once('SIGINT', stop);
    process.once('SIGTERM', stop);
    try {
      await server.ended;
    } finally {
      await server.close();
    }
  },
};
