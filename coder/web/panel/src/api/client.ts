/**
 * Requests to the API, in the types that its OpenAPI description gives. A failure is an `ApiError` whose message is the API's own
 * sentence, or one that says that it could not be reached.
 */
import createClient from "openapi-fetch";
import type { components, paths } from "./schema";

export type Schemas = components["schemas"];
export type Task = Schemas["Task"];
export type Session = Schemas["Session"];
export type OneSession = Schemas["OneSession"];
export type Change = Schemas["Change"];
export type ListedChange = Schemas["ListedChange"];
export type ChangedFile = Schemas["ChangedFile"];
export type Decision = Schemas["Decision"];
export type Permission = Schemas["Permission"];
export type Project = Schemas["Project"];
export type Agent = Schemas["Agent"];
export type Comment = Schemas["Comment"];

export class ApiError extends Error {
  readonly status: number;
  readonly code: string;
  /** Further facts of the problem. */
  readonly facts: Record<string, unknown>;

  constructor(status: number, code: string, message: string, facts: Record<string, unknown> = {}) {
    super(message);
    this.status = status;
    this.code = code;
    this.facts = facts;
  }
}

const KEY = "coder.key";
const listeners = new Set<() => void>();
let lost = false;

function keep(value: string | null, gone: boolean): void {
  if (value === null) localStorage.removeItem(KEY);
  else localStorage.setItem(KEY, value);
  lost = gone;
  for (const listener of listeners) listener();
}

/** The half of the login that this origin's pages keep; null when nobody is logged in. */
export const key = {
  get: () => localStorage.getItem(KEY),
  set(value: string | null): void {
    keep(value, false);
  },
  /** The service does not know this login any more: it is over here as well. */
  lose(): void {
    if (key.get() !== null) keep(null, true);
  },
  /** Whether the last login ended because the service does not know it any more. */
  wasLost: () => lost,
  listen(listener: () => void): () => void {
    listeners.add(listener);
    return () => listeners.delete(listener);
  },
};

const client = createClient<paths>({ baseUrl: "/", credentials: "same-origin" });
client.use({
  onRequest({ request }) {
    const known = key.get();
    if (known !== null) request.headers.set("X-Coder-Key", known);
    return request;
  },
});
export const { GET, POST, PUT, PATCH, DELETE } = client;

interface Answer<T> {
  data?: T;
  error?: unknown;
  response: Response;
}

/** What a request answers; throws an `ApiError` for everything that is not a good answer. */
export async function told<T>(request: Promise<Answer<T>>): Promise<T> {
  let answer: Answer<T>;
  try {
    answer = await request;
  } catch {
    throw new ApiError(
      0,
      "unreachable",
      "The service cannot be reached; is it running? This page tries again by itself.",
    );
  }
  const { data, error, response } = answer;
  if (response.ok && data !== undefined) return data;
  const problem = typeof error === "object" && error !== null ? (error as Record<string, unknown>) : {};
  if (response.status === 401) key.lose();
  throw new ApiError(
    response.status,
    String(problem.code ?? "error"),
    String(problem.detail ?? `The service answered ${response.status} without a reason; its log says why.`),
    problem,
  );
}
