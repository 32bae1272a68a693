/**
 * Who plays which role in an evaluation. A line-up gives every role of the workflow a player: the base model, or a policy
 * of a checkpoint of a run. What is asked for (checkpoints of a run, roles of other runs, roles put back to the base)
 * becomes a list of line-ups here; evaluate.ts has them play.
 */
import { basename } from 'node:path';
import { TroupeError } from '../../config/errors.js';
import { unknownName } from '../../config/nearest.js';
import type { RunConfig } from '../../config/schema.js';
import { policyOf, type ResolvedPolicy, resolvePolicies } from '../../policies/routing.js';
import {
  type Checkpoint,
  findCheckpoint,
  listCheckpoints,
  parseWhich,
  policyFile,
} from '../../runs/checkpoint.js';
import { loadRun } from '../../runs/run-config.js';
import { checkWorkflow } from '../../workflows/registry.js';
import { parsePolicyPath } from '../trained-policy.js';

/** A policy of a checkpoint. */
export interface TrainedPlayer {
  run: string;
  config: RunConfig;
  checkpoint: Checkpoint;
  policy: ResolvedPolicy;
}

/** 'base': the model itself. */
export type Player = 'base' | TrainedPlayer;

export interface Lineup {
  /** "step 20", "generator=a aggregator=b", "base". */
  name: string;
  players: Record<string, Player>;
}

/** What line-ups are asked for. */
export interface LineupRequest {
  /** Run whose policies play the roles that `roles` does not name; without it, the base plays them. */
  run?: string | undefined;
  /** last, best, the number of a step, or all (every kept one). */
  checkpoints: readonly string[];
  /** Also the base in every role. */
  base: boolean;
  /** Players of single roles, as text: base, or RUN[@CHECKPOINT][:POLICY]. Several of a role: each with each of the others. */
  roles: Readonly<Record<string, readonly string[]>>;
  /** Also every line-up with each of its trained roles put back to the base, and the base. */
  ablate: boolean;
}

type Warn = (message: string) => void;

/** Throws a TroupeError where a run, a checkpoint, a policy or a role is not there. */
export async function lineupsOf(
  request: LineupRequest,
  roles: readonly string[],
  warn: Warn,
): Promise<Lineup[]> {
  for (const role of Object.keys(request.roles)) {
    if (!roles.includes(role)) throw unknownName('role', role, roles, '--role');
  }
  const named = await namedPlayers(request.roles, roles, warn);
  const others = roles.filter((role) => !Object.hasOwn(request.roles, role));
  const rests = await restOf(request, others, warn);
  const lineups = rests.flatMap((rest) => named.map((some) => joined(rest, some, roles)));
  const base: Lineup = { name: 'base', players: Object.fromEntries(roles.map((role) => [role, 'base'])) };
  const ablated = request.ablate ? lineups.flatMap((lineup) => ablations(lineup)) : [];
  const all = [...lineups, ...ablated, ...(request.base || request.ablate ? [base] : [])];
  return all.filter((one, i) => all.findIndex((other) => lineupKey(other) === lineupKey(one)) === i);
}

/** What tells a line-up's parameters from others': the checksum of each role's policy. */
export function lineupKey({ players }: Lineup): string {
  return JSON.stringify(Object.entries(players).map(([role, player]) => [role, playerKey(player)]));
}

export function playerKey(player: Player): string {
  if (player === 'base') return 'base';
  const { freeze, start } = player.policy;
  if (freeze) return start === null ? 'base' : `start ${start}`;
  const { checkpoint, policy } = player;
  const name = policyFile('', policy.name);
  return checkpoint.files[name]?.sha256 ?? `${checkpoint.folder}:${policy.name}`;
}

/** "voting-1@20:generator", or "base". */
export function playerName(player: Player): string {
  if (player === 'base') return player;
  return `${basename(player.run)}@${player.checkpoint.step}:${player.policy.name}`;
}

type Part = { name: string; players: Record<string, Player> };

/** The product of the players that are named for each role; one empty part where none is. */
async function namedPlayers(
  given: LineupRequest['roles'],
  roles: readonly string[],
  warn: Warn,
): Promise<Part[]> {
  let parts: Part[] = [{ name: '', players: {} }];
  for (const role of roles) {
    if (!Object.hasOwn(given, role)) continue;
    const texts = given[role] ?? [];
    const players = await Promise.all(texts.map((text) => parsePlayer(text, role, warn)));
    parts = parts.flatMap((part) =>
      players.map((player, i) => ({
        name: `${part.name} ${role}=${shortName(texts[i] ?? '')}`.trim(),
        players: { ...part.players, [role]: player },
      })),
    );
  }
  return parts;
}

const shortName = (text: string) => (text === 'base' ? text : basename(text));

/** What plays the roles that are not named: the base, or the policies of the run at each checkpoint. */
async function restOf(request: LineupRequest, roles: readonly string[], warn: Warn): Promise<Part[]> {
  const { run } = request;
  if (run === undefined || roles.length === 0) {
    return [{ name: 'base', players: Object.fromEntries(roles.map((role) => [role, 'base'])) }];
  }
  const checkpoints = await checkpointsOf(run, request.checkpoints, warn);
  return Promise.all(
    checkpoints.map(async (checkpoint) => {
      const players = roles.map(async (role) => [role, await playerOf(run, checkpoint, role)] as const);
      return { name: `step ${checkpoint.step}`, players: Object.fromEntries(await Promise.all(players)) };
    }),
  );
}

async function checkpointsOf(run: string, which: readonly string[], warn: Warn): Promise<Checkpoint[]> {
  const found: Checkpoint[] = [];
  for (const one of which) {
    const some =
      one === 'all' ? listCheckpoints(run, warn) : [await findCheckpoint(run, parseWhich(one), warn)];
    if (some.length === 0) throw new TroupeError('has no checkpoint yet.', { where: run });
    found.push(...some.filter(({ folder }) => found.every((other) => other.folder !== folder)));
  }
  return found;
}

/** Every role in the workflow's order, whoever named it. */
function joined(rest: Part, named: Part, roles: readonly string[]): Lineup {
  const players = { ...rest.players, ...named.players };
  const name = Object.keys(rest.players).length === 0 ? named.name : `${rest.name} ${named.name}`.trim();
  return { name, players: Object.fromEntries(roles.map((role) => [role, players[role] ?? 'base'])) };
}

function ablations({ name, players }: Lineup): Lineup[] {
  return Object.keys(players).flatMap((role) => {
    if (players[role] === 'base') return [];
    return [{ name: `${name} ${role}=base`, players: { ...players, [role]: 'base' as const } }];
  });
}

/** base, or RUN[@CHECKPOINT][:POLICY]: without a checkpoint the last, without a policy the one that plays the role. */
async function parsePlayer(text: string, role: string, warn: Warn): Promise<Player> {
  if (text === 'base') return 'base';
  const path = parsePolicyPath(text);
  if (path === undefined) {
    throw new TroupeError(`"${text}" is no run directory.`, {
      where: `--role ${role}`,
      hint: 'It takes base, or RUN, RUN@best, RUN@20, RUN:POLICY.',
    });
  }
  const { run, checkpoint, policy } = path;
  return playerOf(run, await findCheckpoint(run, checkpoint, warn), role, policy);
}

async function playerOf(run: string, checkpoint: Checkpoint, role: string, wanted?: string): Promise<Player> {
  const { config } = loadRun(run);
  const { workflow } = await checkWorkflow(config.workflow);
  const policies = resolvePolicies(config.policies, workflow.roles);
  const policy = choosePolicy(policies, { run, role, wanted });
  // Its checkpoint holds nothing of it. Without a start of its own it is the base.
  if (policy.freeze && policy.start !== null) {
    throw new TroupeError(`policy ${policy.name} was frozen at ${policy.start}: the run has nothing of it.`, {
      where: run,
      hint: `Say who plays it: --role ${role}=base, or --role ${role}=RUN.`,
    });
  }
  return { run, config, checkpoint, policy };
}

function choosePolicy(
  policies: readonly ResolvedPolicy[],
  { run, role, wanted }: { run: string; role: string; wanted: string | undefined },
): ResolvedPolicy {
  const names = policies.map(({ name }) => name);
  const [only] = policies;
  if (wanted !== undefined) {
    const found = policies.find(({ name }) => name === wanted);
    if (found === undefined) throw unknownName('policy', wanted, names, run);
    return found;
  }
  if (policies.some(({ roles }) => roles.includes(role))) return policyOf(policies, role);
  // A policy that was trained in every role of another workflow plays any role.
  if (policies.length === 1 && only !== undefined) return only;
  throw new TroupeError(`has no policy for the role "${role}", but ${names.join(', ')}.`, {
    where: run,
    hint: `Say who plays it: --role ${role}=base, or --role ${role}=${run}:${names[0]}.`,
  });
}
