/**
 * A thread that watches the main one (user-code.ts starts it): where a user's function never comes back, it asks the
 * debugger which one, ends it there, and says so. Code of this program may keep the main thread as long as it needs.
 */
import { type Debugger, type InspectorNotification, Session } from 'node:inspector';
import { parentPort, workerData } from 'node:worker_threads';

/**
 * [0]: a count that the main thread raises as long as it goes round; [1]: seconds that it may stand still, 0: no limit;
 * [2]: 1 from when a function is ended until the main thread has heard of it.
 */
export type Beats = Int32Array<SharedArrayBuffer>;

/** A function that did not come back. */
export interface Blocked {
  /** Where its source is, "file:///…". */
  url: string;
  name: string;
  seconds: number;
}

/** Milliseconds between two looks. They are counted: a machine that sleeps stops them too. */
const LOOK = 500;

const beats = workerData.beats as Beats;
const own = workerData.own as string[];

/** The innermost function of a stack that is neither this program's, nor Node's, nor a package's. */
function blamed(frames: readonly Debugger.CallFrame[], urls: ReadonlyMap<string, string>) {
  for (const { functionName, location } of frames) {
    const url = urls.get(location.scriptId) ?? '';
    const isOwn = own.some((folder) => url.startsWith(folder)) || url.includes('/node_modules/');
    if (url.startsWith('file:') && !isOwn) return { url: url.replace(/\?.*$/, ''), name: functionName };
  }
  return undefined;
}

/** Stops the main thread, ends the user's function that it is in, and resolves with it; undefined: it is in none. */
function endBlocked(): Promise<Omit<Blocked, 'seconds'> | undefined> {
  const session = new Session();
  const urls = new Map<string, string>();
  session.connectToMainThread();
  session.on(
    'Debugger.scriptParsed',
    ({ params }: InspectorNotification<Debugger.ScriptParsedEventDataType>) =>
      urls.set(params.scriptId, params.url),
  );
  return new Promise((resolve) => {
    session.on('Debugger.paused', ({ params }: InspectorNotification<Debugger.PausedEventDataType>) => {
      const found = blamed(params.callFrames, urls);
      if (found !== undefined) {
        Atomics.store(beats, 2, 1);
        session.post('Runtime.terminateExecution');
      }
      // Ending the debugging lets the main thread go on.
      session.post('Debugger.disable', () => {
        session.disconnect();
        resolve(found);
      });
    });
    session.post('Debugger.enable');
    session.post('Debugger.pause');
  });
}

let seen = Atomics.load(beats, 0);
let still = 0;
let looking = false;

setInterval(() => {
  const now = Atomics.load(beats, 0);
  const seconds = Atomics.load(beats, 1);
  still = now === seen ? still + LOOK / 1000 : 0;
  seen = now;
  if (seconds === 0 || still < seconds || looking) return;
  looking = true;
  void endBlocked().then((found) => {
    looking = false;
    still = 0;
    if (found !== undefined) parentPort?.postMessage({ ...found, seconds } satisfies Blocked);
  });
}, LOOK);
