/** Every command that README and docs show, and how the tests run it at a size that fits a test. */
import { join } from 'node:path';
import { pythonPath } from '../needs.js';

/** What makes a training run as short as can be. */
export const SMALL = [
  'steps=1',
  'rollout.promptsPerStep=2',
  'rollout.episodesPerPrompt=2',
  'evaluation.problems=2',
  'checkpoints.every=0',
]
  .map((setting) => `--set ${setting}`)
  .join(' ');
// SmolLM2 in bf16 takes minutes a step on processors without that type.
const SMALL_SMOLLM2 = `${SMALL} --set model.dtype=float32`;
/** What a second rank was measured with (docs/distributed.md). */
const MEASURED_RANKS = [
  'OMP_NUM_THREADS=1 npx troupe train --ranks 2',
  ...[
    'steps=2 model.path=smollm2-135m model.dtype=float32 task.name=arithmetic workflow.name=voting',
    'workflow.prompts=short policies.sharing=shared policies.defaults.parameters=full gradients.groups=[]',
    'rollout.promptsPerStep=2 rollout.episodesPerPrompt=2 rollout.sampling.maxTokens=8 rollout.cacheBytes=67108864',
    'learning.skipZeroAdvantage=false evaluation.every=0 evaluation.problems=1 evaluation.greedy=false',
    'checkpoints.every=0 checkpoints.keepBest=false',
  ]
    .join(' ')
    .split(' ')
    .map((setting) => `--set ${setting}`),
].join(' ');

export interface Elsewhere {
  /** File that runs it, and what of it stands there. */
  by: string;
  as: string;
}

/** The runs and the study in the folder that commands name. */
export const runsIn = (folder: string) => ({
  RUN: join(folder, 'run'),
  OTHER: join(folder, 'other'),
  STUDY: join(folder, 'study'),
});

/** How each command is run with its files in `folder`: as it stands (true), as another one, or somewhere else. */
export function commandsIn(folder: string): Record<string, true | string | Elsewhere> {
  const { RUN, OTHER, STUDY } = runsIn(folder);
  const STUDY_PART = `--folder ${STUDY} --only workflow=single --only seed=0 --only model=troupe-0.3m ${SMALL}`;
  return {
    'npm ci && npx troupe train': { by: 'test/install/install.test.ts', as: 'npm' },
    'npm ci && npm test': { by: '.ci/run', as: 'npm ci' },
    'npx troupe train': `npx troupe train --run ${join(folder, 'default')} ${SMALL}`,
    'npx troupe train configs/smollm2-arithmetic.yaml': `npx troupe train configs/smollm2-arithmetic.yaml --run ${join(folder, 'smollm2')} ${SMALL_SMOLLM2}`,
    'npx troupe train configs/smollm2-arithmetic.yaml --set steps=1': `npx troupe train configs/smollm2-arithmetic.yaml --run ${join(folder, 'smollm2-step')} ${SMALL_SMOLLM2}`,
    'npx troupe train configs/smollm2-arithmetic.yaml --set policies.sharing=shared': `npx troupe train configs/smollm2-arithmetic.yaml --set policies.sharing=shared --run ${join(folder, 'smollm2-shared')} ${SMALL_SMOLLM2}`,
    'npx troupe train configs/smollm2-gsm8k.yaml --set task.files=[gsm8k-train.jsonl] --set workflow.name=W --set policies.sharing=S': `npx troupe train configs/smollm2-gsm8k.yaml --set task.files=[${join(folder, 'gsm8k-train.jsonl')}] --set task.holdout=2 --set workflow.name=voting --set policies.sharing=shared --run ${join(folder, 'gsm8k')} ${SMALL_SMOLLM2}`,
    'npx troupe train --set policies.sharing=shared --set workflow.name=orch-workers': `npx troupe train --set policies.sharing=shared --set workflow.name=orch-workers --run ${join(folder, 'matrix')} ${SMALL}`,
    'npx troupe config': true,
    'npx troupe play': true,
    'npx troupe play configs/examples/debate.yaml': true,
    'npx troupe play --text configs/examples/texts.yaml --set workflow.name=voting': true,
    'npx troupe doctor': true,
    'npx troupe train --set sinks=[tensorboard]': `npx troupe train --set sinks=[tensorboard] --run ${join(folder, 'sinks')} ${SMALL}`,
    // A program that stays.
    'tensorboard --logdir runs': { by: 'test/runs/sinks.test.ts', as: 'tensorboard.backend' },
    'npx troupe train --resume': { by: 'test/learning/run.test.ts', as: "'--resume'" },
    ...Object.fromEntries(
      [
        ['', ''],
        [' --set steps=400', ' --set steps=2'],
        [
          ' --set policies.defaults.learningRate=1e-5 --set evaluation.every=5',
          ' --set policies.defaults.learningRate=1e-5 --set evaluation.every=5',
        ],
        [' --restart', ' --restart'],
      ].map(([shown, run], i) => {
        const copy = join(folder, `changed-${i}`);
        const command = `npx troupe train --resume runs/NAME${shown}`;
        return [command, `cp -r ${RUN} ${copy} && npx troupe train --resume ${copy}${run}`];
      }),
    ),
    'npx troupe train --set policies.overrides.generator.start=runs/NAME:generator': `npx troupe train --set model.path=troupe-0.3m --set policies.overrides.generator.start=${RUN}:generator --run ${join(folder, 'started')} ${SMALL}`,
    'npx troupe init --shape troupe-0.3m build/troupe-0.3m --seed 1 --dtype float32': `npx troupe init --shape troupe-0.3m ${join(folder, 'small')} --seed 1 --dtype float32`,
    'npx troupe sft configs/embedded/troupe-0.3m-forms.yaml': `npx troupe sft configs/embedded/troupe-0.3m-forms.yaml --set steps=1 --set model.path=${join(folder, 'small')} --set output=${join(folder, 'forms')}`,
    'npx troupe sft configs/embedded/troupe-0.3m.yaml': `npx troupe sft configs/embedded/troupe-0.3m.yaml --set steps=1 --set model.path=${join(folder, 'small')} --set output=${join(folder, 'taught')}`,
    'npx troupe train --set model.path=troupe-1m --set steps=40': `npx troupe train --set model.path=troupe-1m --run ${join(folder, 'larger')} ${SMALL}`,
    'npx troupe train --set seed=N': `npx troupe train --set seed=3 --run ${join(folder, 'seed')} ${SMALL}`,
    'npx troupe train my-run.yaml --set policies.sharing=shared --set rollout.sampling.temperature=0.7': `npx troupe train ${join(folder, 'my-run.yaml')} --set policies.sharing=shared --set rollout.sampling.temperature=0.7 --run ${join(folder, 'my-run')}`,
    'npx troupe train configs/examples/debate.yaml': `npx troupe train configs/examples/debate.yaml --run ${join(folder, 'debate')} ${SMALL}`,
    'npx troupe eval --set model.path=M --set workflow.name=W --set evaluation.problems=250':
      'npx troupe eval --set model.path=troupe-0.3m --set workflow.name=single --set evaluation.problems=2',
    ...Object.fromEntries(
      [
        'npx troupe eval runs/NAME',
        'npx troupe eval runs/NAME --base --samples 8',
        'npx troupe eval runs/NAME --checkpoint all --base',
        'npx troupe eval runs/NAME --samples 16 --k 1 --k 4 --k 16',
        'npx troupe eval runs/NAME --ablate',
        'npx troupe eval runs/NAME --set workflow.name=eval-opt --role evaluator=base',
        'npx troupe eval runs/a --role generator=runs/a --role generator=runs/b --role aggregator=runs/a --role aggregator=runs/b',
      ].map((command) => [
        command,
        `${command.replaceAll('runs/NAME', RUN).replaceAll('runs/a', RUN).replaceAll('runs/b', OTHER)} --set evaluation.problems=2`,
      ]),
    ),
    'npx troupe tail runs/NAME --table gradients': `npx troupe tail ${RUN} --table gradients > ${join(folder, 'gradients.arrows')}`,
    'npx troupe export runs/NAME --parquet FOLDER': `npx troupe export ${RUN} --parquet ${join(folder, 'parquet')}`,
    'node bench/stages.mjs --shape 4b --sequences 64 --prompt 16 --calls 2 --length 128': {
      by: 'scripts/check-benches.mjs',
      as: 'stages.mjs',
    },
    'node bench/stages.mjs --shape tiny --parameters full --sequences 4 --prompt 16 --calls 12 --length 32 --rows 128 --groups 4':
      { by: 'scripts/check-benches.mjs', as: 'stages.mjs' },
    'python bench/role_table.py RUN…': `${pythonPath} bench/role_table.py ${RUN} ${OTHER}`,
    // The shape of 8 GB is the shape of a million parameters here.
    'npx troupe init --shape qwen3-4b build/qwen3-4b --seed 1': `npx troupe init --shape troupe-1m ${join(folder, 'random')} --seed 1`,
    'npx troupe train configs/qwen3-4b-step.yaml': `npx troupe train configs/qwen3-4b-step.yaml --set model.path=${join(folder, 'random')} --run ${join(folder, 'step')}`,
    'npx troupe plan configs/qwen3-4b-step.yaml --shape qwen3-4b --device h100': true,
    "npx troupe plan study-math-voting-shared --set 'task={name: arithmetic, style: words}' --set 'gradients.groups=[role]' --shape qwen3-4b --response-tokens 1000 --devices 16 --hosts 2": true,
    'npx troupe plan CONFIG --device h100': 'npx troupe plan default --device h100',
    'npx troupe train CONFIG --ranks 2': `npx troupe train --ranks 2 --run ${join(folder, 'ranks')} ${SMALL}`,
    [MEASURED_RANKS]: `${MEASURED_RANKS.replace('smollm2-135m', 'troupe-0.3m')} --run ${join(folder, 'two-ranks')}`,
    'torchrun --no-python --nproc-per-node 2 -- node_modules/.bin/troupe train CONFIG --run runs/NAME': {
      by: 'test/learning/killed-ranks.ts',
      as: 'TORCHELASTIC_RESTART_COUNT',
    },
    'srun --ntasks 2 node_modules/.bin/troupe train CONFIG --run runs/NAME': {
      by: 'test/engine/rank-place.test.ts',
      as: 'SLURM_PROCID',
    },
    'npx troupe grade --task math FILE': `npx troupe grade --task math ${join(folder, 'answers.jsonl')}`,
    'npx troupe export runs/NAME --policy generator --adapter FOLDER': `npx troupe train --set policies.defaults.parameters=lora --run ${join(folder, 'lora')} ${SMALL} && npx troupe export ${join(folder, 'lora')} --policy generator --adapter ${join(folder, 'adapter')}`,
    'npx troupe export runs/NAME --policy generator --merged FOLDER': `npx troupe export ${RUN} --policy generator --merged ${join(folder, 'merged')}`,
    'npx troupe config FILE': `npx troupe config ${join(folder, 'my-run.yaml')}`,
    'npx troupe train --resume RUN': `npx troupe train --resume ${RUN} --set steps=2`,
    'npx troupe train configs/examples/reasoning.yaml': {
      by: 'test/tasks/python-task.test.ts',
      as: 'configs/examples/reasoning.yaml',
    },
    'npx troupe report runs/NAME': `npx troupe report ${RUN}`,
    'npx troupe report runs/a runs/b -o both.html': `npx troupe report ${RUN} ${OTHER} -o ${join(folder, 'both.html')}`,
    'npx troupe report runs/NAME --pictures pictures': `npx troupe report ${RUN} --pictures ${join(folder, 'pictures')}`,
    'npx troupe study configs/lab/arithmetic.yaml': `npx troupe study configs/lab/arithmetic.yaml ${STUDY_PART}`,
    'npx troupe study configs/lab/arithmetic.yaml --list': true,
    'npx troupe report runs/lab-arithmetic': `npx troupe report ${STUDY} -o ${join(folder, 'study.html')}`,
    'npx troupe report runs/lab-arithmetic --pictures …': `npx troupe report ${STUDY} -o ${join(folder, 'study.html')} --pictures ${join(folder, 'study-pictures')}`,
    // It writes beside itself, and keeps what is there of other studies.
    'python docs/lab/collect.py runs/lab-arithmetic runs/lab-arithmetic-hot runs/lab-mini-programs runs/lab-smollm2': `cp docs/lab/collect.py docs/lab/*.arrow ${folder} && ${pythonPath} ${join(folder, 'collect.py')} ${STUDY}`,
    'python docs/lab/tables.py': `${pythonPath} docs/lab/tables.py`,
    'python docs/lab/captures.py': `${pythonPath} docs/lab/captures.py`,
    'npx troupe serve troupe-1m --port 8421 &': { by: 'test/learning/serving.test.ts', as: 'loadServed' },
    'lm_eval run --tasks my_task --include_path tasks --model local-completions --model_args model=troupe-1m,base_url=http://127.0.0.1:8421/v1/completions,tokenizer=models/troupe-1m,max_length=512,num_concurrent=4':
      { by: 'test/learning/serving.test.ts', as: 'lm_eval 0.4.13' },
    'npx troupe serve runs/NAME': { by: 'test/learning/serving.test.ts', as: 'loadServed' },
    'curl http://127.0.0.1:8421/v1/chat/completions -H \'Content-Type: application/json\' -d \'{"model": "generator", "messages": [{"role": "user", "content": "7+8"}]}\'':
      { by: 'test/learning/serving.test.ts', as: '/v1/chat/completions' },
    'npx troupe watch runs/NAME': { by: 'test/report/watch.test.ts', as: 'watch' },
    'curl http://127.0.0.1:8420/tables/gradients.arrows > now.arrows': {
      by: 'test/report/watch.test.ts',
      as: 'tables/gradients.arrows',
    },
    'curl http://127.0.0.1:8420/tables/gradients.arrows?follow | …': {
      by: 'test/report/watch.test.ts',
      as: '?follow',
    },
  };
}
