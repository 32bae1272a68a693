/**
 * Entry of the engine worker: receives commands, runs them one after another, and decodes in between.
 *
 * Completions are only submitted when their message arrives; the loop then runs one decode iteration at a time
 * and looks at its messages after each, so cancelling and new calls never wait for a whole phase. Commands that
 * touch parameters (train, load, save) wait until no completion is in flight and run alone; those that only read them
 * run between two iterations.
 */
import { setImmediate as nextTurn } from 'node:timers/promises';
import { parentPort } from 'node:worker_threads';
import { caught, refuseExit, watchStray } from '../config/user-code.js';
import type {
  CancelMessage,
  CommandName,
  Commands,
  RequestMessage,
  ResponseMessage,
  WireError,
} from './protocol.js';
import { type Handlers, Session } from './session.js';
import { turn } from './turns.js';
import type { CompletionRequest } from './types.js';

if (parentPort === null) throw new Error('engine/worker.ts is the engine thread; use Engine from engine.ts.');
const port = parentPort;

// A loss is a user's file too. What it leaves behind fails the command that runs or comes next.
let strayError: Error | undefined;
refuseExit();
watchStray((error) => {
  strayError ??= error;
});

const session = new Session(() => {
  turn(true);
  return nextTurn();
});
const commands: RequestMessage[] = [];
let running = false;

/** Commands that only read parameters, and so need not wait until nothing is decoded. */
const ANY_TIME: ReadonlySet<CommandName> = new Set(['likeliest']);

const CANCELLED: WireError = { name: 'TroupeError', message: 'the command was cancelled.' };

function toWire(error: unknown): WireError {
  const { name, message, stack } = caught(error);
  return stack === undefined ? { name, message } : { name, message, stack };
}

function answer(message: ResponseMessage): void {
  port.postMessage(message);
}

async function execute(message: RequestMessage): Promise<void> {
  try {
    const value = await session.run(message.command as keyof Handlers, message.argument, message.id);
    const stray = strayError;
    strayError = undefined;
    if (stray === undefined) answer({ id: message.id, value });
    else answer({ id: message.id, error: toWire(stray) });
  } catch (error) {
    answer({ id: message.id, error: toWire(error) });
  }
}

async function loop(): Promise<void> {
  if (running) return;
  running = true;
  try {
    while (commands.length > 0 || session.decoding) {
      turn(true);
      if (session.decoding) {
        for (const { id, part, completion, error } of session.decodeOnce()) {
          if (part !== undefined) answer({ id, part });
          else if (completion !== undefined) answer({ id, value: completion });
          else answer({ id, error: toWire(error) });
        }
        const next = commands[0];
        if (next !== undefined && ANY_TIME.has(next.command)) {
          commands.shift();
          await execute(next);
        }
      } else {
        const next = commands.shift();
        if (next !== undefined) await execute(next);
      }
      await nextTurn();
    }
  } finally {
    running = false;
    turn(false);
  }
}

port.on('message', (message: RequestMessage | CancelMessage) => {
  if (message.kind === 'cancel') {
    const waiting = commands.findIndex(({ id }) => id === message.id);
    if (waiting < 0) session.cancel(message.id);
    else commands.splice(waiting, 1).forEach(({ id }) => void answer({ id, error: CANCELLED }));
  } else if (message.command === 'complete') {
    try {
      session.submit(message.id, message.argument as CompletionRequest);
    } catch (error) {
      answer({ id: message.id, error: toWire(error) });
    }
  } else if (message.command === 'count') {
    try {
      answer({ id: message.id, value: session.count(message.argument as Commands['count'][0]) });
    } catch (error) {
      answer({ id: message.id, error: toWire(error) });
    }
  } else {
    commands.push(message);
  }
  void loop();
});
