/** HTTP servers for programs on this machine alone: `troupe watch` and `troupe serve`. */
import type { IncomingMessage, Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { TroupeError } from './errors.js';

export const HOST = '127.0.0.1';

/** Listens on a port of this machine; 0 takes a free one. Throws a TroupeError if it is taken. */
export async function listenHere(server: Server, port: number): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error) => {
      const hint = 'Choose another one with --port; 0 takes a free one.';
      reject(new TroupeError(`cannot be listened on: ${error.message}.`, { where: `port ${port}`, hint }));
    });
    server.listen(port, HOST, resolve);
  });
}

/** Of a server that listens. */
export const portOf = (server: Server): number => (server.address() as AddressInfo).port;

/** Whether a request names this machine: a web page elsewhere that points its own name here does not. */
export const namesThisMachine = ({ headers: { host } }: IncomingMessage, server: Server): boolean =>
  host === `${HOST}:${portOf(server)}` || host === `localhost:${portOf(server)}`;
