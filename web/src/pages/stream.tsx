import { useCallback, useEffect, useRef, useState } from "preact/hooks";
import { type Session, type Stream, api, streamPath } from "../api";
import { bytes, time } from "../format";
import { message, usePolled } from "../hooks";
import { Player } from "../player";
import { type Marks, TimelineCanvas } from "../timeline";

const RATES = [0.25, 0.5, 1, 2, 4, 8];

/** A stream: player and timeline. `at`: milliseconds since 1970, or RFC 3339; without it, live. */
export function StreamPage({ name, at, session }: { name: string; at: string | null; session: Session }) {
  const [stream, error] = usePolled(() => api<Stream>(streamPath(name)), 5000, [name]);
  const video = useRef<HTMLVideoElement>(null);
  const player = useRef<Player | undefined>(undefined);
  const [now, setNow] = useState<number>();
  const [isLive, setLive] = useState(at === null);
  const [behind, setBehind] = useState<number>();
  const [problem, setProblem] = useState("");
  const [rate, setRate] = useState(1);
  const [marks, setMarks] = useState<Marks>({});

  const seek = useCallback((ms: number) => {
    setLive(false);
    setNow(ms);
    player.current?.seek(ms);
    history.replaceState(null, "", `#/stream/${encodeURIComponent(name)}?at=${Math.round(ms)}`);
  }, [name]);
  const goLive = useCallback(() => {
    setLive(true);
    player.current?.live();
    history.replaceState(null, "", `#/stream/${encodeURIComponent(name)}`);
  }, [name]);

  useEffect(() => {
    if (!video.current) return;
    const made = new Player(video.current, streamPath(name), { onTime: setNow, onBehind: setBehind, onProblem: setProblem });
    player.current = made;
    const start = at === null ? Number.NaN : /^\d+$/.test(at) ? Number(at) : Date.parse(at);
    if (Number.isNaN(start)) goLive();
    else seek(start);
    return () => made.close();
  }, [name, at]);

  useEffect(() => {
    if (video.current) video.current.playbackRate = rate;
  }, [rate]);

  const step = (frames: number) => {
    if (!video.current) return;
    video.current.pause();
    video.current.currentTime += frames * (player.current?.frame_s ?? 0);
  };
  const toggle = () => {
    const element = video.current;
    if (element) void (element.paused ? element.play().catch(() => {}) : element.pause());
  };
  useEffect(() => {
    const pressed = (event: KeyboardEvent) => {
      const on = event.target as HTMLElement;
      if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|SELECT|TEXTAREA|BUTTON|A|VIDEO)$/.test(on.tagName)) return;
      const actions: Record<string, () => void> = {
        " ": toggle,
        k: toggle,
        ",": () => step(-1),
        ".": () => step(1),
        j: () => now !== undefined && seek(now - 10_000),
        l: () => now !== undefined && seek(now + 10_000),
        i: () => setMarks((marks) => ({ ...marks, start: now })),
        o: () => setMarks((marks) => ({ ...marks, end: now })),
      };
      const action = actions[event.key];
      if (action === undefined) return;
      event.preventDefault();
      action();
    };
    addEventListener("keydown", pressed);
    return () => removeEventListener("keydown", pressed);
  }, [now, seek]);

  if (error && !stream) return <p role="alert" class="error">{error}</p>;
  return (
    <>
      <h1>
        {name} {stream && <span class={stream.live ? "badge live" : "badge"}>{stream.live ? "live" : "off"}</span>}
      </h1>
      <video ref={video} class="player" controls muted playsInline aria-label={`Pictures of ${name}`} />
      {problem && <p role="alert" class="error">{problem}</p>}
      <div class="row" role="group" aria-label="Playback">
        <output class="clock">{now === undefined ? "…" : time(now, true)}</output>
        {behind !== undefined && (
          <span class="dim behind" title="The clock of this browser less that of the producer">
            {(behind / 1000).toFixed(1)} s behind
          </span>
        )}
        <button type="button" onClick={() => now !== undefined && seek(now - 10_000)}>−10 s</button>
        <button type="button" onClick={() => step(-1)} aria-label="One frame back">‹</button>
        <button type="button" onClick={toggle}>Play / pause</button>
        <button type="button" onClick={() => step(1)} aria-label="One frame on">›</button>
        <button type="button" onClick={() => now !== undefined && seek(now + 10_000)}>+10 s</button>
        <button type="button" onClick={goLive} aria-pressed={isLive}>Live</button>
        <label>
          Speed
          <select value={rate} onChange={(event) => setRate(Number(event.currentTarget.value))}>
            {RATES.map((rate) => (
              <option key={rate} value={rate}>{rate}×</option>
            ))}
          </select>
        </label>
        <Jump onTime={seek} />
      </div>
      {stream && <TimelineCanvas stream={stream} now={now} marks={marks} onSeek={seek} />}
      <Export name={name} marks={marks} now={now} session={session} onMarks={setMarks} />
      {stream && (
        <p class="dim">
          {stream.totals.fragments} fragments, {bytes(stream.totals.stored_bytes)} on disk. Keys: space plays and pauses, comma and dot step,
          j and l go 10 s, i and o mark; on the timeline arrows move, plus and minus zoom.
        </p>
      )}
    </>
  );
}

function Jump({ onTime }: { onTime: (ms: number) => void }) {
  const [text, setText] = useState("");
  const submit = (event: Event) => {
    event.preventDefault();
    const ms = Date.parse(text);
    if (!Number.isNaN(ms)) onTime(ms);
  };
  return (
    <form class="row" onSubmit={submit}>
      <label>
        Go to
        <input type="datetime-local" step="1" required value={text} onInput={(event) => setText(event.currentTarget.value)} />
      </label>
      <button type="submit">Go</button>
    </form>
  );
}

interface ExportProps {
  name: string;
  marks: Marks;
  now: number | undefined;
  session: Session;
  onMarks: (marks: Marks) => void;
}

/** A marked range as a file, or as a link that expires. */
function Export({ name, marks, now, session, onMarks }: ExportProps) {
  const [said, setSaid] = useState("");
  const { start, end } = marks;
  const good = start !== undefined && end !== undefined && end > start;
  const clip = (kind: string) =>
    `${streamPath(name)}/clip.${kind}?start=${Math.round(start ?? 0)}&end=${Math.round(end ?? 0)}`;
  const link = async () => {
    try {
      const path_prefix = `${streamPath(name)}/clip.mp4`;
      const signed = await api<{ token: string }>("/v1/sign", "POST", { path_prefix, expires_s: 86_400 });
      const url = `${location.origin}${clip("mp4")}&token=${encodeURIComponent(signed.token)}`;
      await navigator.clipboard.writeText(url);
      setSaid("The link is copied. It plays for a day, for whoever has it.");
    } catch (caught) {
      setSaid(message(caught));
    }
  };
  return (
    <div class="row" role="group" aria-label="Export">
      <button type="button" onClick={() => onMarks({ ...marks, start: now })}>Mark start</button>
      <button type="button" onClick={() => onMarks({ ...marks, end: now })}>Mark end</button>
      <span>
        {start === undefined ? "–" : time(start, true)} to {end === undefined ? "–" : time(end, true)}
      </span>
      {good && (
        <>
          <a class="primary" href={clip("mp4")} download={`${name}-${Math.round(start)}.mp4`}>Download MP4</a>
          <a href={clip("mkv")} download={`${name}-${Math.round(start)}.mkv`}>Matroska</a>
          {navigator.clipboard && session.may_some.includes("read") && (
            <button type="button" onClick={link}>Copy a link that expires</button>
          )}
        </>
      )}
      <span role="status">{said}</span>
    </div>
  );
}
