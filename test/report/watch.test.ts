/** `troupe watch` in a real browser, on a run that is being written. */
import { spawn } from 'node:child_process';
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { connect } from 'node:net';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { tableFromIPC } from 'apache-arrow';
import { afterEach, describe, expect, it } from 'vitest';
import { RunServer } from '../../src/report/server.js';
import { streamPath } from '../../src/streams/stream-files.js';
import { readStream } from '../../src/streams/stream-reader.js';
import { MadeUpRun } from '../runs/made-up-run.js';
import { open } from './browser.js';
import { evaluation, stepRows } from './measurements.js';

const opened = new Set<{ close(): unknown }>();
afterEach(async () => {
  for (const one of opened) await one.close();
  opened.clear();
});

async function served(): Promise<{ run: MadeUpRun; server: RunServer }> {
  const run = new MadeUpRun();
  opened.add({ close: run.release });
  const server = await RunServer.start(run.folder, 0);
  opened.add(server);
  return { run, server };
}

/** Makes another process hold the lock of a run: that of this one does not count here. Returns what ends it. */
function asAnotherProcess(folder: string): () => void {
  const child = spawn('sleep', ['600']);
  const kill = () => child.kill();
  const pid = child.pid as number;
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  const started = stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19];
  writeFileSync(join(folder, 'lock-1.json'), JSON.stringify({ host: hostname(), pid, started, holds: true }));
  opened.add({ close: kill });
  return () => {
    kill();
    rmSync(join(folder, 'lock-1.json'));
  };
}

/** The answer to a request with this Host header. */
interface Answer {
  status: number;
  body: string;
  allow: string | undefined;
}

function ask(url: string, host: string, method = 'GET'): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const sent = request(url, { method, headers: { host } }, (response) => {
      let body = '';
      response.on('data', (data) => {
        body += data;
      });
      const { statusCode: status = 0, headers } = response;
      response.on('end', () => resolve({ status, body, allow: headers.allow }));
    });
    sent.on('error', reject);
    sent.end();
  });
}

/** What a server says to these very bytes. */
function askRaw(url: string, request: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect(Number(new URL(url).port), '127.0.0.1', () => socket.write(request));
    let answer = '';
    socket.setEncoding('utf8').on('data', (text) => {
      answer += text;
    });
    socket.on('end', () => resolve(answer)).on('error', reject);
  });
}

describe('the live page', () => {
  it('shows steps as they land, and leaves open what was opened', async () => {
    const { run, server } = await served();
    const { page, requests, noises } = await open(server.url);
    const facts = page.locator('.facts');
    await facts.filter({ hasText: '0 of' }).waitFor();
    run.append({ ...stepRows(0), ...evaluation(0, 8) });
    await facts.filter({ hasText: '1 of' }).waitFor();
    await page.locator('#run-1-mass-share summary').click();
    const path = page.locator('#run-1-role-norm svg [aria-label=line] path').first();
    await page.locator('#run-1-mass-share tbody tr').nth(0).waitFor();

    for (const step of [1, 2]) run.append(stepRows(step));
    await facts.filter({ hasText: '3 of' }).waitFor();
    // The table comes after them.
    await page.locator('#run-1-mass-share tbody tr').nth(2).waitFor({ state: 'attached' });
    expect(await page.locator('#run-1-mass-share tbody tr').count()).toBe(3);
    expect(await page.locator('#run-1-mass-share details').evaluate((one) => one.hasAttribute('open'))).toBe(
      true,
    );
    expect(await page.locator('#run-1-role-norm details').evaluate((one) => one.hasAttribute('open'))).toBe(
      false,
    );
    expect((await path.getAttribute('d'))?.split('L')).toHaveLength(3);
    expect(noises).toEqual([]);
    expect(requests.every((url) => url.startsWith(server.url))).toBe(true);
  });

  it('runs nothing that a model says', async () => {
    const { run, server } = await served();
    const attack = '<img src=x onerror="alert(1)"><script>alert(2)</script>';
    const { page, noises } = await open(server.url);
    run.append(stepRows(0, attack));
    await page.locator('.episode .call > pre').first().waitFor();
    expect(await page.locator('.episode .call > pre').first().textContent()).toBe(attack);
    expect(await page.locator('main img, main script').count()).toBe(0);
    expect(noises).toEqual([]);
  });
});

describe('the server', () => {
  it('answers only those who ask for this machine', async () => {
    const { server } = await served();
    const { host, port } = new URL(server.url);
    expect(host).toMatch(/^127\.0\.0\.1:/);
    for (const name of [host, `localhost:${port}`]) {
      expect((await ask(`${server.url}content`, name)).status).toBe(200);
    }
    for (const name of ['example.com', `example.com:${port}`, '127.0.0.1', `127.0.0.1:1`]) {
      const { status, body } = await ask(`${server.url}content`, name);
      expect({ status, secret: body.includes('run-1') }).toEqual({ status: 403, secret: false });
    }
    for (const method of ['POST', 'OPTIONS', 'PUT']) {
      expect(await ask(server.url, host, method)).toMatchObject({ status: 405, allow: 'GET, HEAD' });
    }
    expect((await ask(`${server.url}tables/../config.yaml`, host)).status).toBe(404);
  });

  it('answers HEAD with the head of what GET gets', async () => {
    const { run, server } = await served();
    run.append(stepRows(0));
    const { host } = new URL(server.url);
    for (const path of ['', 'content', 'watch.js', 'tables/steps.arrows?follow', 'events']) {
      expect(await ask(`${server.url}${path}`, host, 'HEAD'), path).toMatchObject({ status: 200, body: '' });
    }
    expect(await ask(`${server.url}nothing`, host, 'HEAD')).toMatchObject({ status: 404, body: '' });
  });

  it('answers whatever is asked for, and goes on', async () => {
    const { server } = await served();
    const { host } = new URL(server.url);
    const odd = [
      '//',
      '///',
      '//[',
      '/\\',
      'http://',
      'http://[',
      '*',
      '?',
      '/%',
      '/%00',
      '//user@:1/',
      '/#',
      '',
    ];
    for (const target of odd) {
      const answer = await askRaw(
        server.url,
        `GET ${target} HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`,
      );
      expect({ target, answer }).toEqual({ target, answer: expect.stringMatching(/^HTTP\/1\.1 (400|404) /) });
    }
    expect((await ask(`${server.url}content?x=%`, host)).status).toBe(200);
  });

  it('gives the tables as Arrow streams', async () => {
    const { run, server } = await served();
    run.append(stepRows(0));
    const answer = await fetch(`${server.url}tables/gradients.arrows`);
    const table = tableFromIPC(await answer.arrayBuffer());
    const { table: expected } = readStream(streamPath(run.folder, 'gradients'));
    expect(table.toArray().map(String)).toEqual(expected.toArray().map(String));
    expect(table.numRows).toBe(8);
  });

  it('gives them as they are written until the run ends', async () => {
    const { run, server } = await served();
    run.append(stepRows(0));
    const end = asAnotherProcess(run.folder);
    const answer = await fetch(`${server.url}tables/steps.arrows?follow`);
    run.append(stepRows(1));
    end();
    const table = tableFromIPC(await answer.arrayBuffer());
    expect(table.getChild('step')?.toJSON()).toEqual([0, 1]);
  });

  it('ends with an error where a stream is none', async () => {
    const run = new MadeUpRun();
    run.release();
    writeFileSync(streamPath(run.folder, 'steps'), 'x'.repeat(100));
    const server = await RunServer.start(run.folder, 0);
    opened.add(server);
    await expect(server.ended).rejects.toThrow(/steps\.arrows/);
  });

  it('says that a port is taken', async () => {
    const { run, server } = await served();
    const { port } = new URL(server.url);
    await expect(RunServer.start(run.folder, Number(port))).rejects.toThrow(`port ${port}`);
  });
});
