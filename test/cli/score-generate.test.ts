/** `troupe score` and `troupe generate` on golden models: the values, the shapes of the JSON, and bad input. */
import { copyFileSync, cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { writeSmallTokenizer } from '../../src/engine/small-tokenizer.js';
import { readGolden } from '../model/support.js';
import { fails, golden, json, troupe } from './troupe.js';

const folder = mkdtempSync(join(tmpdir(), 'troupe-score-'));
/** A golden model with a tokenizer of 61 tokens at most, which it has room for. */
const model = join(folder, 'model');
const bare = golden('models/qwen3-tied');
afterAll(() => rmSync(folder, { recursive: true, force: true }));
