/** temporary */
import { join } from 'node:path';
import { copyFileSync } from 'node:fs';
import { type NativeParameterSet, native } from './native.js';
import { noGrad, scope, Tensor } from './tensor.js';

export function loadWeights(parameters: NativeParameterSet, folder: string): void {
  const file = native().openSafetensors(join(folder, 'model.safetensors'));
  noGrad(() =>
    scope(() => {
      for (const { name } of parameters.parameters) {
        Tensor.wrap(parameters.view(name)).copy_(Tensor.wrap(file.tensor(name)));
      }
    }),
  );
  file.dispose();
  parameters.commit();
}
export function saveWeights(parameters: NativeParameterSet, from: string, folder: string): void {
  const tensors = Object.fromEntries(parameters.parameters.map(({ name }) => [name, parameters.view(name)]));
  native().saveSafetensors(join(folder, 'model.safetensors'), tensors, { format: 'pt' });
  for (const f of ['config.json', 'tokenizer.json', 'tokenizer_config.json', 'chat_template.jinja', 'generation_config.json'])
    copyFileSync(join(from, f), join(folder, f));
}
export function saveAdapter(..._: unknown[]): void {}
