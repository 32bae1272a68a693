/** Names of the alarms' rules: keys of the configuration, and words of the stream `alarms`. */

/** Rules over a series of a role or policy: `alarms.trends`. */
export const TRENDS = [
  'kl',
  'perplexity',
  'entropy',
  'gradient_norm',
  'amplification',
  'coherence',
  'dominance',
  'format',
  'truncation',
] as const;
export type Trend = (typeof TRENDS)[number];

export const ALARM_RULES = ['accuracy', 'capture', ...TRENDS] as const;
/** A rule of `alarms`. */
export type AlarmRule = (typeof ALARM_RULES)[number];
