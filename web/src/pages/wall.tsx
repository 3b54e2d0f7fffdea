import { useEffect, useRef, useState } from "preact/hooks";
import { type Fragment, type Session, type Stream, type Timeline, api, streamPath, streams } from "../api";
import { bitRate, duration } from "../format";
import { streamHref, usePolled } from "../hooks";

const TILE_INTERVAL_MS = 5000;
/** Tiles that load at the same time: the server decodes few pictures at once. */
const LOADS_MAX = 3;

let loads = 0;
const waiting: (() => void)[] = [];

/** Runs when there is room. */
async function inTurn<T>(load: () => Promise<T>): Promise<T> {
  if (loads >= LOADS_MAX) await new Promise<void>((resolve) => waiting.push(resolve));
  loads += 1;
  try {
    return await load();
  } finally {
    loads -= 1;
    waiting.shift()?.();
  }
}

export function Wall({ session }: { session: Session }) {
  const [all, error] = usePolled(streams, 5000, []);
  const [filter, setFilter] = useState("");
  if (error && !all) return <p role="alert" class="error">{error}</p>;
  if (!all) return <p role="status">Loading …</p>;
  if (all.length === 0) {
    return (
      <>
        <h1>Streams</h1>
        <p>There are no streams yet.</p>
        {session.may_some.includes("push") && (
          <p>
            <a class="primary" href="#/start">
              Add the first one
            </a>
          </p>
        )}
      </>
    );
  }
  const words = filter.toLowerCase().split(/\s+/).filter(Boolean);
  const shown = all.filter((stream) => words.every((word) => textOf(stream).includes(word)));
  return (
    <>
      <h1>Streams</h1>
      <div class="row">
        <label>
          Filter by name, device or tag
          <input type="search" value={filter} onInput={(event) => setFilter(event.currentTarget.value)} />
        </label>
        <span role="status">
          {shown.length} of {all.length}
        </span>
      </div>
      <ul class="wall">
        {shown.map((stream) => (
          <Tile key={stream.name} stream={stream} />
        ))}
      </ul>
    </>
  );
}

function textOf(stream: Stream): string {
  const tags = Object.entries(stream.tags).map(([name, value]) => `${name}:${value}`);
  return [stream.name, stream.device, stream.live ? "live" : "", ...tags].join(" ").toLowerCase();
}

interface Health {
  at: number;
  bitsPerSecond: number;
  gaps: number;
}

async function health(name: string): Promise<Health | undefined> {
  const now = Date.now();
  const newest = await api<{ fragments: Fragment[] }>(`${streamPath(name)}/fragments?order=desc&limit=5`);
  const [last] = newest.fragments;
  if (last === undefined) return undefined;
  const lines = await api<Timeline>(`${streamPath(name)}/timeline?start=${now - 86_400_000}&end=${now}&limit=1000`);
  const sum = (of: (fragment: Fragment) => number) => newest.fragments.reduce((sum, fragment) => sum + of(fragment), 0);
  const bitsPerSecond = (sum((fragment) => fragment.size_bytes) * 8000) / Math.max(sum((fragment) => fragment.duration_ms), 1);
  return { at: Date.parse(last.producer_time) + last.duration_ms, bitsPerSecond, gaps: lines.gaps.length };
}

function Tile({ stream }: { stream: Stream }) {
  const tile = useRef<HTMLLIElement>(null);
  const [isSeen, setSeen] = useState(false);
  const [picture, setPicture] = useState<string>();
  const [state, setState] = useState<Health>();
  useEffect(() => {
    const observer = new IntersectionObserver((entries) => setSeen(entries.some((entry) => entry.isIntersecting)));
    if (tile.current) observer.observe(tile.current);
    return () => observer.disconnect();
  }, []);
  useEffect(() => {
    if (!isSeen) return;
    let timer = 0;
    let gone = false;
    const refresh = async () => {
      if (!document.hidden) {
        const src = `${streamPath(stream.name)}/image.jpg?width=480&at=${Date.now()}`;
        // One that fails leaves what was there.
        await inTurn(async () => {
          if (gone) return;
          const [got] = await Promise.all([health(stream.name).catch(() => undefined), loaded(src).then(() => !gone && setPicture(src), () => {})]);
          if (!gone && got) setState(got);
        });
      }
      if (!gone) timer = window.setTimeout(refresh, TILE_INTERVAL_MS);
    };
    void refresh();
    return () => {
      gone = true;
      clearTimeout(timer);
    };
  }, [isSeen, stream.name]);
  return (
    <li ref={tile}>
      <a href={streamHref(stream.name)}>
        {picture ? <img src={picture} alt="" width="480" height="270" /> : <span class="picture" />}
        <strong>{stream.name}</strong>
        <span class={stream.live ? "badge live" : "badge"}>{stream.live ? "live" : "off"}</span>
      </a>
      <p>
        {state ? (
          <>
            {stream.live ? bitRate(state.bitsPerSecond) : ""} last fragment {duration(Math.max(Date.now() - state.at, 0))} ago
            {state.gaps > 0 && <span class="bad"> · {state.gaps} gaps in 24 h</span>}
          </>
        ) : (
          "no fragments seen yet"
        )}
      </p>
    </li>
  );
}

/** Resolves once the browser has the picture. */
function loaded(src: string): Promise<void> {
  const image = new Image();
  image.src = src;
  return image.decode();
}
