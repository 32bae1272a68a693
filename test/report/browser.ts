/** A real browser, and all that pages did which they should not do. */
import { existsSync } from 'node:fs';
import { type Browser, chromium, type Page } from 'playwright-core';
import { afterAll } from 'vitest';

/** Debian's package chromium; TROUPE_CHROMIUM names another one. */
const executablePath = process.env.TROUPE_CHROMIUM ?? '/usr/bin/chromium';

let browser: Promise<Browser> | undefined;
afterAll(async () => await (await browser)?.close());

export interface OpenedPage {
  page: Page;
  /** Addresses that it asked for, beside its own. */
  requests: string[];
  /** Errors, messages of the console, dialogs. */
  noises: string[];
}

export async function open(url: string, settings: { offline?: boolean } = {}): Promise<OpenedPage> {
  if (!existsSync(executablePath)) {
    throw new Error(`${executablePath} is missing: apt-get install chromium, or set TROUPE_CHROMIUM.`);
  }
  browser ??= chromium.launch({ executablePath, args: ['--no-sandbox'] });
  const context = await (await browser).newContext({ viewport: { width: 1400, height: 1000 }, ...settings });
  const page = await context.newPage();
  const [requests, noises]: string[][] = [[], []];
  page.on('request', (request) => request.url() !== url && requests?.push(request.url()));
  page.on('console', (message) => noises?.push(message.text()));
  page.on('pageerror', (error) => noises?.push(String(error)));
  page.on('dialog', (dialog) => {
    noises?.push(dialog.message());
    void dialog.dismiss();
  });
  await page.goto(url);
  return { page, requests: requests ?? [], noises: noises ?? [] };
}
