/** The settings of a project in words, the same in every place. */
export const POLICIES = {
  allow_in_worktree: "Allowed inside the worktree",
  ask: "Ask a person",
  deny: "Denied",
} as const;
export const NETWORKS = { on: "May reach the network", off: "Cut off from the network" } as const;
export const FALLBACKS = { native: "The native agent does it", fail: "The task fails" } as const;

/** Words as what a list to choose from takes. */
export const choices = <Value extends string>(words: Record<Value, string>) =>
  (Object.entries(words) as [Value, string][]).map(([value, label]) => ({ value, label }));
