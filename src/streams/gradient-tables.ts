/** The tables of gradient statistics. */
import { GROUPINGS } from '../gradients/groups.js';
import {
  float64,
  int32,
  name,
  optional,
  policy,
  type Specs,
  share,
  step,
  type Table,
  tokens,
  update,
} from './column-kinds.js';

const KINDS = ['embedding', 'q', 'k', 'v', 'o', 'gate', 'up', 'down', 'norm', 'head'] as const;

const scope = {
  scope: name(['total', 'kind', 'layer'], 'All parameters, those of one module kind, or those of one layer.'),
  kind: optional(name(KINDS, 'Module kind; null unless `scope` is kind.')),
  layer: optional(
    int32(
      'Layer; −1: the parameters of no layer (embedding, last norm, head). Null unless `scope` is layer.',
    ),
  ),
};

export const gradients = {
  name: 'gradients',
  description:
    'Gradients of groups of calls: one row for each group, grouping and scope of each optimizer step. ' +
    'Rows of grouping `policy` stand for the whole gradient.',
  columns: {
    step,
    update,
    policy,
    grouping: name(
      [...GROUPINGS, 'momentum', 'decay'],
      'What the calls of a group share; `policy`: nothing.',
    ),
    ...scope,
    role: optional(name('roles', 'Role of the group.')),
    slot: optional(int32('Slot of the group, from 0.')),
    turn: optional(int32('Turn of the group, from 0.')),
    method: name(['exact', 'sketch'], 'How the gradients were measured.'),
    norm: optional(float64('‖g_k‖ = √G_kk, before clipping.')),
    norm_error: optional(float64('Standard error of `norm`; null where it is exact.')),
    mass_share: optional(float64('√G_kk / Σ √G_ll over the groups of the same grouping.', share)),
    projection_share: optional(
      float64("⟨g_k, g⟩ / ‖g‖²: the group's part of the real direction, signed, sums to 1.", share),
    ),
    optimizer_share: optional(
      float64(
        "The group's part of the parameters' change after clipping and AdamW; null where not measured.",
        share,
      ),
    ),
    applied_norm: optional(
      float64('‖g_k‖ after interventions, of roles and of the whole; null where none acts on the policy.'),
    ),
    applied_share: optional(float64('Mass share of the role after interventions.', share)),
    dominance: optional(float64('Largest mass share of a role. In rows of grouping `policy`.', share)),
    effective_roles: optional(
      float64('exp(entropy of the mass shares of roles). In rows of grouping `policy`.', { unit: 'roles' }),
    ),
    members: optional(
      int32(
        'N: the slots of this group (in rows of grouping `policy`: the roles) that the next three are about.',
      ),
    ),
    coherence: optional(float64('‖Σ g_k‖ / Σ ‖g_k‖ over the members: 1 aligned, 1/√N random, 0 opposed.')),
    amplification: optional(float64('N · coherence: N aligned slots push N times as hard.')),
    cancellation: optional(float64('1 − coherence.')),
    updates: int32('U: optimizer steps of the policy in this step of the run.'),
    row_weight: optional(
      float64("w: mean weight of the group's response tokens in the loss; null without tokens."),
    ),
    split_half: optional(
      float64('r: cosine between the halves of the group, split by prompt; null where not measured.'),
    ),
    reliability: optional(float64('2r / (1 + r): the noise floor of cosines with this group.')),
    calls: int32("The group's calls."),
    tokens: int32("The group's response tokens.", tokens),
    token_share: optional(float64('Share of the response tokens of the update.', share)),
    advantage_mass: float64('Σ |advantage| · response tokens of the group.', tokens),
    advantage_share: optional(float64('Share of the advantage mass of the update.', share)),
    zero_advantage_share: optional(float64("Share of the group's calls whose advantage is 0.", share)),
    rows: optional(
      int32('Token rows computed for the group; null where a row counts for several.', { unit: 'rows' }),
    ),
  },
} satisfies Table<Specs>;

const first = (what: string) => `${what} of the first group.`;
const second = (what: string) => `${what} of the second group.`;

export const gradientPairs = {
  name: 'gradient_pairs',
  description:
    'Inner products between two groups of one policy: one row for each unordered pair, grouping and scope of ' +
    'each optimizer step. There are none between policies, whose gradients live in different spaces.',
  columns: {
    step,
    update,
    policy,
    grouping: name(GROUPINGS, 'What the calls of a group share.'),
    ...scope,
    role_a: optional(name('roles', first('Role'))),
    slot_a: optional(int32(first('Slot'))),
    turn_a: optional(int32(first('Turn'))),
    role_b: optional(name('roles', second('Role'))),
    slot_b: optional(int32(second('Slot'))),
    turn_b: optional(int32(second('Turn'))),
    gram: float64('G_kl = ⟨g_k, g_l⟩.'),
    gram_error: optional(float64('Standard error of `gram`; null where it is exact.')),
    cosine: optional(float64('G_kl / √(G_kk G_ll).')),
    applied_cosine: optional(
      float64('Cosine of two roles after interventions; null where none acts on the policy.'),
    ),
    corrected_cosine: optional(
      float64('Cosine over disjoint prompts / √(their split-half cosines); null where not measured.'),
    ),
    corrected_low: optional(float64('Lower end of its 95 % bootstrap interval over prompts.')),
    corrected_high: optional(float64('Upper end; a conflict is claimed only where it lies below 0.')),
  },
} satisfies Table<Specs>;
