import { useEffect, useState } from "preact/hooks";
import { api } from "./api";
import { duration, time } from "./format";
import { message } from "./hooks";

interface Group {
  key: string;
  count: number;
  gap_ms: number;
}

interface Counted {
  groups: Group[];
  group_count: number;
  interval_ms: number | null;
}

/** What results are counted by, beside time. */
const FACETS = [
  { by: "stream", title: "Streams" },
  { by: "kind", title: "Kinds" },
  { by: "codec", title: "Codecs" },
  { by: "protocol", title: "Protocols" },
  { by: "gap", title: "Causes of gaps" },
];
const GROUPS_MAX = 6;
const BARS_MAX = 1000;
const BARS_MIN = 8;
const LOOKS_MAX = 4;

const count = (query: string, by: string, limit: number, span = "") =>
  api<Counted>(`/v1/search/aggregate?q=${encodeURIComponent(query)}&by=${by}&limit=${limit}${span}`);

/** By time. The length of a bar is chosen from all that is recorded: where all is in few of them, a closer look is taken. */
async function overTime(query: string): Promise<Counted> {
  let found = await count(query, "time", BARS_MAX);
  for (let looks = 0; looks < LOOKS_MAX; looks++) {
    const { groups, interval_ms } = found;
    if (groups.length === 0 || groups.length >= BARS_MIN || interval_ms === null || interval_ms <= 1000) break;
    const starts = groups.map(({ key }) => Date.parse(key));
    const [start, end] = [Math.min(...starts), Math.max(...starts) + interval_ms];
    const closer = await count(query, "time", BARS_MAX, `&start=${start}&end=${end}`);
    if (closer.interval_ms === null || closer.interval_ms >= interval_ms) break;
    found = closer;
  }
  return found;
}

/** A query with one more term. */
function narrowed(query: string, term: string): string {
  const whole = /\bOR\b/.test(query) ? `(${query})` : query;
  return `#/search?q=${encodeURIComponent(`${whole} ${term}`.trim())}`;
}

/** A value as the query language takes it. */
const quoted = (value: string) => (/^[\w.-]+$/.test(value) ? value : `"${value.replace(/["\\]/g, "\\$&")}"`);

/** Results of a query over time and by what they are; each leads to the same query with one term more. */
export function Facets({ query }: { query: string }) {
  const [byTime, setByTime] = useState<Counted>();
  const [facets, setFacets] = useState<Counted[]>([]);
  const [error, setError] = useState("");
  useEffect(() => {
    let gone = false;
    const all = [overTime(query), ...FACETS.map(({ by }) => count(query, by, GROUPS_MAX))];
    Promise.all(all).then(
      ([times, ...others]) => {
        if (gone) return;
        setByTime(times);
        setFacets(others);
        setError("");
      },
      (caught: unknown) => gone || setError(message(caught)),
    );
    return () => {
      gone = true;
    };
  }, [query]);
  if (error) return <p role="alert" class="error">{error}</p>;
  return (
    <>
      {byTime && byTime.interval_ms !== null && byTime.groups.length > 0 && (
        <Histogram query={query} groups={byTime.groups} interval_ms={byTime.interval_ms} />
      )}
      <div class="facets">
        {FACETS.map(({ by, title }, index) => {
          const found = facets[index];
          if (found === undefined || found.groups.length === 0) return null;
          const rest = found.group_count - found.groups.length;
          return (
            <section key={by}>
              <h2>{title}</h2>
              <ul>
                {found.groups.map(({ key, count, gap_ms }) => (
                  <li key={key}>
                    <a href={narrowed(query, `${by}:${quoted(key)}`)}>{key}</a>
                    <span class="dim">{count}{gap_ms > 0 && `, ${duration(gap_ms)} missing`}</span>
                  </li>
                ))}
              </ul>
              {rest > 0 && <p class="dim">and {rest} more</p>}
            </section>
          );
        })}
      </div>
    </>
  );
}

/** Bars, at least as wide as can be seen. */
function Histogram({ query, groups, interval_ms }: { query: string; groups: Group[]; interval_ms: number }) {
  const starts = groups.map(({ key }) => Date.parse(key));
  const first = Math.min(...starts);
  const bars = Math.round((Math.max(...starts) - first) / interval_ms) + 1;
  const most = Math.max(...groups.map(({ count }) => count));
  return (
    <figure>
      <figcaption class="dim">
        {time(first)} to {time(first + bars * interval_ms)}, {duration(interval_ms)} a bar, at most {most} results
      </figcaption>
      <svg class="histogram" viewBox={`0 0 ${bars} 1`} preserveAspectRatio="none" role="group" aria-label="Results over time">
        {groups.map(({ key, count }, index) => {
          const start = starts[index] ?? first;
          const [from, to] = [start, start + interval_ms].map((ms) => new Date(ms).toISOString());
          const height = Math.max(count / most, 0.03);
          return (
            <a key={key} href={narrowed(query, `time:[${from} TO ${to}}`)} aria-label={`${time(start)}: ${count}`}>
              <rect x={(start - first) / interval_ms + 0.05} y={1 - height} width={0.9} height={height} />
            </a>
          );
        })}
      </svg>
    </figure>
  );
}
