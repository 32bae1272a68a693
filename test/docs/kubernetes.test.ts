/**
 * Guards against a manifest in docs/distributed.md that a cluster would refuse. The schemas are Kubernetes' own
 * (test/golden/kubernetes.py), unknown keys being errors.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { expect, it } from 'vitest';
import { parseAllDocuments } from 'yaml';
import { z } from 'zod';
import { packageRoot } from '../../src/config/package.js';

const root = packageRoot();
const golden = gunzipSync(readFileSync(join(root, 'test/golden/kubernetes.json.gz'))).toString();
const { kinds, $defs } = JSON.parse(golden) as { kinds: Record<string, string>; $defs: object };
const schemaOf = (kind: string) =>
  z.fromJSONSchema({
    $schema: 'https://json-schema.org/draft/2020-12/schema',
    $ref: `#/$defs/${kinds[kind]}`,
    $defs,
  } as Parameters<typeof z.fromJSONSchema>[0]);

const [block = ''] =
  /(?<=```yaml\n)apiVersion.*?(?=```)/s.exec(readFileSync(join(root, 'docs/distributed.md'), 'utf8')) ?? [];
const documents = (text: string) => parseAllDocuments(text).map((document) => document.toJS());
const [service, job] = documents(block);

it('the Service and the Job are ones', () => {
  expect([service.kind, job.kind]).toEqual(['Service', 'Job']);
  const [ofService, ofJob] = [schemaOf('Service'), schemaOf('Job')];
  expect(ofService.safeParse(service).error).toBeUndefined();
  expect(ofJob.safeParse(job).error).toBeUndefined();
  const wrong = [
    ['restartPolicy: Never', 'restartPolice: Never'],
    ['completions: 2', 'completions: two'],
    ['- { name: WORLD_SIZE, value: "2" }', '- { name: WORLD_SIZE, value: 2 }'],
    ['      subdomain: troupe', '        subdomain: troupe'],
    ['apiVersion: batch/v1', 'apiVersion: batch/v2'],
  ] as const;
  for (const [right, changed] of wrong) {
    expect(block).toContain(right);
    // One more space is no YAML in some places; it is wrong, too.
    const read = () => ofJob.parse(documents(block.replace(right, changed))[1]);
    expect(read, changed).toThrow();
  }
});

it('its ranks find each other', () => {
  const { completions, parallelism, completionMode, template } = job.spec;
  const [{ env }] = template.spec.containers;
  const value = (name: string) => env.find((one: { name: string }) => one.name === name)?.value;
  expect([completions, parallelism]).toEqual([Number(value('WORLD_SIZE')), Number(value('WORLD_SIZE'))]);
  expect(completionMode).toBe('Indexed');
  // The host name of a pod of an indexed Job, in the domain of its headless Service.
  expect(value('MASTER_ADDR')).toBe(`${job.metadata.name}-0.${template.spec.subdomain}`);
  expect(template.spec.subdomain).toBe(service.metadata.name);
  expect(service.spec.selector).toEqual({ 'job-name': job.metadata.name });
});
