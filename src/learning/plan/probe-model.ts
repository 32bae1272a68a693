/** The model that the engine's times are measured with: the run's own, or one of its shape with fewer layers. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { nativeModelConfig } from '../../engine/configuration.js';
import { writeModelToTime } from '../../engine/random-model.js';
import { linearWeights } from './model-size.js';

/** Weights of the layers that are measured at most: of more, two numbers of layers are, which say what one takes. */
const MOST_WEIGHTS = 5e8;

export interface ProbeModel {
  layers: number;
  folder: string;
}

/** `json`: the model's config.json; `folder`: where it lies, if it is on disk. */
export async function withProbeModels<T>(
  json: Record<string, unknown>,
  folder: string | undefined,
  use: (models: readonly ProbeModel[]) => Promise<T>,
): Promise<T> {
  const shape = nativeModelConfig(json, folder ?? '--shape');
  const fitting = Math.max(4, Math.floor(MOST_WEIGHTS / (linearWeights(shape) / shape.layers)));
  if (folder !== undefined && fitting >= shape.layers) return await use([{ layers: shape.layers, folder }]);
  const most = Math.min(fitting, shape.layers);
  const numbers = most === shape.layers ? [most] : [Math.ceil(most / 4), most];
  const temporary = mkdtempSync(join(tmpdir(), 'troupe-plan-'));
  try {
    const models = numbers.map((layers): ProbeModel => {
      const own = mkdtempSync(join(temporary, `layers-${layers}-`));
      writeModelToTime({ ...json, num_hidden_layers: layers, torch_dtype: 'bfloat16' }, own);
      return { layers, folder: own };
    });
    return await use(models);
  } finally {
    rmSync(temporary, { recursive: true, force: true });
  }
}

export const configJson = (folder: string) =>
  JSON.parse(readFileSync(join(folder, 'config.json'), 'utf8')) as Record<string, unknown>;
