// The HTTP API (docs/api), with the cookie of a session for credentials.

export class ApiError extends Error {
  constructor(
    readonly status: number,
    message: string,
  ) {
    super(message);
  }
}

/** Somebody else has to sign in. */
export const SIGNED_OUT = "vidar-signed-out";

export async function api<T>(path: string, method = "GET", body?: unknown): Promise<T> {
  const response = await fetch(path, {
    method,
    // Shows the server that a page of its own asks.
    headers: { "Vidar-Console": "1", ...(body === undefined ? {} : { "Content-Type": "application/json" }) },
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  if (response.ok) return (response.status === 204 ? undefined : await response.json()) as T;
  if (response.status === 401) dispatchEvent(new Event(SIGNED_OUT));
  const problem = (await response.json().catch(() => ({}))) as { detail?: string };
  throw new ApiError(response.status, problem.detail ?? response.statusText);
}

export interface Session {
  access_key_id: string;
  may_some: string[];
  may_all: string[];
  rtsp_port: number;
  kvs_url: string | null;
}

export interface Totals {
  fragments: number;
  size_bytes: number;
  stored_bytes: number;
  start: string | null;
  end: string | null;
}

export interface Stream {
  name: string;
  device: string;
  retention_hours: number;
  retention_bytes: number | null;
  tags: Record<string, string>;
  live: boolean;
  totals: Totals;
}

export interface Fragment {
  fragment_number: string;
  producer_time: string;
  duration_ms: number;
  size_bytes: number;
  codecs: string[];
}

export interface Span {
  start: string | null;
  end: string | null;
}

export interface Timeline {
  runs: (Span & { run: string; protocol: string })[];
  gaps: (Span & { cause: string; count: number })[];
  next_token: string | null;
}

export const streamPath = (name: string) => `/v1/streams/${encodeURIComponent(name)}`;

/** All streams that may be seen. */
export async function streams(): Promise<Stream[]> {
  const all: Stream[] = [];
  let token: string | null = null;
  do {
    const next: string = token === null ? "" : `&next_token=${encodeURIComponent(token)}`;
    const page: { streams: Stream[]; next_token: string | null } = await api(`/v1/streams?limit=1000${next}`);
    all.push(...page.streams);
    token = page.next_token;
  } while (token !== null);
  return all;
}
