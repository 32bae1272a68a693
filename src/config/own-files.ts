/**
 * Files of the user's that decide what a run does beside its configuration, its data and its model: modules, Python files,
 * prompts. Ranks compare them (learning/fingerprint.ts).
 */
const files = new Set<string>();

/** Called by whoever reads one. */
export function addOwnFile(path: string): void {
  files.add(path);
}

/** Those that this process has read. */
export const ownFiles = (): string[] => [...files];
