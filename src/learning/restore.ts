/** Puts back into the policies what a checkpoint holds: where a run goes on, and where it is rolled back to. */
import { policyFile } from '../runs/checkpoint.js';
import type { Trainer } from './trainer.js';

/** Parameters and optimizer states of the checkpoint in `folder`, whose name rank 0 tells the others. */
export async function restoreParameters(
  { policies, ranks }: Pick<Trainer, 'policies' | 'ranks'>,
  folder: string,
): Promise<void> {
  await ranks.lead('parameters of a checkpoint', async () => {
    for (const { name, freeze } of policies) {
      if (freeze) continue;
      await ranks.everywhere('restorePolicy', { policy: name, file: policyFile(folder, name) });
    }
  });
}
