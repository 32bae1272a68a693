/**
 * LoRA adapters in PEFT's layout: a folder with adapter_config.json and adapter_model.safetensors, written, read, and
 * merged into the model under them. What PEFT would compute in another way than the engine does is refused.
 */
import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { checkSection, shown } from '../config/check.js';
import { TroupeError } from '../config/errors.js';
import { readJson } from '../config/json.js';
import type { AdapterConfig, ModuleKind, NativeParameterSet } from './native-model.js';
import { scope } from './scope.js';
import { ShardWriter } from './shards.js';
import { Tensor } from './tensor.js';
import { nameWeights, WeightFiles } from './weight-files.js';
import { addTensors, copyAll, type SavedFolder, writeFiles } from './weights.js';
import { writeFolder } from './whole-folder.js';

const WEIGHTS = 'adapter_model.safetensors';
const CONFIG = 'adapter_config.json';
/** What is read of an adapter's folder. */
export const ADAPTER_FILES = [CONFIG, WEIGHTS];
/** How PEFT names what belongs to a parameter of the model. */
const PREFIX = 'base_model.model.';

const MODULES: Partial<Record<ModuleKind, string>> = {
  q: 'q_proj',
  k: 'k_proj',
  v: 'v_proj',
  o: 'o_proj',
  gate: 'gate_proj',
  up: 'up_proj',
  down: 'down_proj',
};

export const isAdapter = (folder: string): boolean => existsSync(join(folder, CONFIG));

/** What adapter_config.json says, as far as the engine has it. */
export interface PeftConfig {
  rank: number;
  alpha: number;
  /** undefined: a pattern, which only PEFT reads; the tensors say which layers have an adapter. */
  targets: ModuleKind[] | undefined;
  /** Name or path of the model; undefined: not said. */
  base: string | undefined;
}

/** A key as PEFT writes it where it is not used; with any other value PEFT computes what the engine does not. */
const nothing = z
  .unknown()
  .refine(isUnused, {
    error: ({ input }) =>
      `is ${shown(input)}: PEFT computes that, the engine does not. Merge the adapter with PEFT ` +
      '(merge_and_unload) and name the model that it saves.',
  })
  .optional();

function isUnused(value: unknown): boolean {
  if (typeof value !== 'object') return value === undefined || value === false;
  return Object.keys(value ?? {}).length === 0;
}

const configSchema = z.looseObject({
  peft_type: z.literal('LORA'),
  r: z.int().min(1),
  lora_alpha: z.number().positive(),
  target_modules: z.union([z.string(), z.array(z.string())]),
  base_model_name_or_path: z.string().nullish(),
  bias: z.literal('none').optional(),
  init_lora_weights: z.union([z.boolean(), z.enum(['gaussian', 'orthogonal', 'eva'])]).optional(),
  ...Object.fromEntries(
    [
      'fan_in_fan_out',
      'use_dora',
      'use_rslora',
      'lora_bias',
      'modules_to_save',
      'rank_pattern',
      'alpha_pattern',
      'layers_to_transform',
      'exclude_modules',
      'target_parameters',
      'trainable_token_indices',
      'layer_replication',
      'alora_invocation_tokens',
      'use_qalora',
      'use_bdlora',
      'arrow_config',
      'kasa_config',
      'monteclora_config',
      'megatron_config',
    ].map((key) => [key, nothing]),
  ),
});

/** Reads FOLDER/adapter_config.json. Throws a TroupeError that names the key for what the engine does not compute. */
export function readPeftConfig(folder: string): PeftConfig {
  const file = join(folder, CONFIG);
  const json = checkSection(configSchema, readJson(file), { whole: 'the file', locate: () => file });
  const { r, lora_alpha, target_modules: modules, base_model_name_or_path: base } = json;
  return { rank: r, alpha: lora_alpha, targets: targetsOf(modules, file), base: base ?? undefined };
}

function targetsOf(modules: string | string[], file: string): ModuleKind[] | undefined {
  const kinds = Object.keys(MODULES) as ModuleKind[];
  if (typeof modules === 'string') return modules === 'all-linear' ? kinds : undefined;
  const found = modules.map((name) => kinds.find((kind) => MODULES[kind] === name.split('.').at(-1)));
  const strange = modules.find((_, i) => found[i] === undefined);
  if (strange === undefined) return kinds.filter((kind) => found.includes(kind));
  throw new TroupeError(
    `adapts ${strange}; the engine has adapters on ${Object.values(MODULES).join(', ')}.`,
    {
      where: file,
    },
  );
}

/** Copies the adapter of `folder` into `adapter` and commits. Throws a TroupeError where its tensors do not fit. */
export function loadAdapter(adapter: NativeParameterSet, folder: string): void {
  const hint = `An adapter is a folder with ${CONFIG} and ${WEIGHTS}.`;
  const files = WeightFiles.ofFile(folder, WEIGHTS, hint);
  const makes = 'the policy makes it';
  try {
    const wanted = adapter.parameters.map(({ name }) => name);
    copyAll(adapter, nameWeights(wanted, files.names, folder, 'the policy').sources, files, makes);
  } finally {
    files.close();
  }
}

/** Writes an adapter as PEFT reads it. `base`: name or folder of the model that it was trained on. */
export function saveAdapter(
  adapter: NativeParameterSet,
  config: AdapterConfig,
  base: string,
  { folder, files = {}, exact }: Pick<SavedFolder, 'folder' | 'files' | 'exact'>,
): void {
  const json = {
    peft_type: 'LORA',
    task_type: 'CAUSAL_LM',
    base_model_name_or_path: base,
    r: config.rank,
    lora_alpha: config.alpha,
    lora_dropout: 0,
    bias: 'none',
    fan_in_fan_out: false,
    inference_mode: true,
    target_modules: config.targets.map((kind) => MODULES[kind] ?? kind),
  };
  writeFolder(folder, (temporary) => {
    writeFileSync(join(temporary, CONFIG), `${JSON.stringify(json, null, 2)}\n`);
    writeFiles(temporary, files);
    scope(() => {
      const shards = new ShardWriter(temporary, WEIGHTS);
      addTensors(adapter, shards, { dtype: 'float32', exact });
      shards.finish();
    });
  });
}

/**
 * Parameters of the model with the adapter in them: W + alpha / rank · B A (Hu et al. 2021), computed in fp32. For
 * `saveWeights`; others come back as they are.
 */
export function mergedWith(
  adapter: NativeParameterSet,
  { rank, alpha }: AdapterConfig,
): (name: string, weight: Tensor) => Tensor {
  const names = new Set(adapter.parameters.map(({ name }) => name));
  return (name, weight) => {
    const part = (which: 'A' | 'B') => PREFIX + name.replace(/\.weight$/, `.lora_${which}.weight`);
    if (!names.has(part('A'))) return weight;
    return scope(() => {
      const [a, b] = (['A', 'B'] as const).map((which) =>
        Tensor.wrap(adapter.view(part(which)))
          .detach()
          .to('float32'),
      ) as [Tensor, Tensor];
      return weight.to('float32').add(b.matmul(a).mul(alpha / rank));
    });
  };
}
