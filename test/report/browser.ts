/** A real browser, and all that pages did which they should not do. */
import { type Browser, chromium, type Page } from 'playwright-core';
import { afterAll, TestRunner } from 'vitest';
import { chromiumPath as executablePath, needs } from '../needs.js';

let browser: Promise<Browser> | undefined;
afterAll(async () => await (await browser)?.close());

export interface OpenedPage {
  page: Page;
  /** Addresses that it asked for, beside its own. */
  requests: string[];
  /** Errors, messages of the console, dialogs. */
  noises: string[];
}

/** Opens the page; a test that comes here skips where there is no browser. */
export async function open(url: string, settings: { offline?: boolean } = {}): Promise<OpenedPage> {
  const test = TestRunner.getCurrentTest();
  if (test !== undefined) needs('chromium')(test.context);
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
