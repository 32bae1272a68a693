/** What tells one model's folder from another's that has the same name. */
import { createHash } from 'node:crypto';
import { createReadStream, existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { TEMPLATE_FOLDER } from './chat-template.js';

/**
 * SHA-256, hexadecimal, of each file of a model's or an adapter's folder by its name there: weights, configuration,
 * tokenizer, chat templates. Reads them whole, at about a gigabyte a second.
 */
export async function modelDigests(folder: string): Promise<Record<string, string>> {
  const isPart = (name: string) => /\.(safetensors|json|jinja|gguf)$/.test(name);
  const templates = join(folder, TEMPLATE_FOLDER);
  const more = existsSync(templates) ? readdirSync(templates).map((name) => join(TEMPLATE_FOLDER, name)) : [];
  const digests: Record<string, string> = {};
  for (const name of [...readdirSync(folder), ...more].filter(isPart).sort()) {
    digests[name] = await fileDigest(join(folder, name));
  }
  return digests;
}

/** SHA-256 of a file, hexadecimal. */
export async function fileDigest(file: string): Promise<string> {
  const hash = createHash('sha256');
  await pipeline(createReadStream(file, { highWaterMark: 2 ** 20 }), hash);
  return hash.digest('hex');
}
