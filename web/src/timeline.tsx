import { useCallback, useEffect, useRef, useState } from "preact/hooks";
import { type Stream, type Timeline, api, streamPath } from "./api";
import { duration, time } from "./format";

export interface Marks {
  start?: number | undefined;
  end?: number | undefined;
}

interface View {
  start: number;
  end: number;
}

const SPAN_MS_MIN = 1000;
const SPAN_MS_MAX = 366 * 86_400_000;
const HEIGHT = 72;
/** Steps between the lines of the scale. */
const STEPS_MS = [
  100, 500, 1000, 5000, 15_000, 60_000, 300_000, 900_000, 3_600_000, 4 * 3_600_000, 86_400_000, 7 * 86_400_000, 30 * 86_400_000,
  120 * 86_400_000,
];

interface Props {
  stream: Stream;
  now: number | undefined;
  marks: Marks;
  onSeek: (ms: number) => void;
}

/** What is recorded when, from a year down to a second. */
export function TimelineCanvas({ stream, now, marks, onSeek }: Props) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const [view, setView] = useState<View>(() => initial(stream, now));
  const [lines, setLines] = useState<Timeline>();
  const [width, setWidth] = useState(800);
  const [pointed, setPointed] = useState<number>();

  // Only what is seen is asked for, once the view rests.
  useEffect(() => {
    let gone = false;
    const timer = setTimeout(async () => {
      const span = `start=${Math.floor(view.start)}&end=${Math.ceil(view.end)}`;
      const got = await api<Timeline>(`${streamPath(stream.name)}/timeline?${span}&limit=1000`).catch(() => undefined);
      // An answer that comes late is not of what is seen now.
      if (got && !gone) setLines(got);
    }, 150);
    return () => {
      gone = true;
      clearTimeout(timer);
    };
  }, [stream.name, view, stream.totals.fragments]);

  useEffect(() => {
    if (!canvas.current) return;
    const observer = new ResizeObserver(([entry]) => entry && setWidth(Math.round(entry.contentRect.width)));
    observer.observe(canvas.current);
    return () => observer.disconnect();
  }, []);

  useEffect(() => {
    if (canvas.current) draw(canvas.current, width, view, lines, now, marks);
  }, [width, view, lines, now, marks]);

  // The picture that plays stays in view.
  useEffect(() => {
    if (now !== undefined && (now < view.start || now > view.end)) setView(around(now, view.end - view.start));
  }, [now]);

  const zoom = useCallback((factor: number, about?: number) => {
    setView(({ start, end }) => {
      const span = Math.min(Math.max((end - start) * factor, SPAN_MS_MIN), SPAN_MS_MAX);
      const at = about ?? now ?? (start + end) / 2;
      const share = (at - start) / (end - start);
      return { start: at - span * share, end: at + span * (1 - share) };
    });
  }, [now]);

  const at = (event: { clientX: number }) => {
    const box = canvas.current?.getBoundingClientRect();
    return box ? view.start + ((event.clientX - box.left) / box.width) * (view.end - view.start) : view.start;
  };
  // Not passive: the page is not to scroll.
  useEffect(() => {
    const element = canvas.current;
    const turned = (event: WheelEvent) => {
      event.preventDefault();
      zoom(event.deltaY > 0 ? 1.25 : 0.8, at(event));
    };
    element?.addEventListener("wheel", turned, { passive: false });
    return () => element?.removeEventListener("wheel", turned);
  });
  const pressed = (event: KeyboardEvent) => {
    const span = view.end - view.start;
    const from = now ?? (view.start + view.end) / 2;
    const actions: Record<string, () => void> = {
      ArrowLeft: () => onSeek(from - span / 100),
      ArrowRight: () => onSeek(from + span / 100),
      PageUp: () => onSeek(from - span / 4),
      PageDown: () => onSeek(from + span / 4),
      Home: () => stream.totals.start && onSeek(Date.parse(stream.totals.start)),
      End: () => stream.totals.end && onSeek(Date.parse(stream.totals.end) - 2000),
      "+": () => zoom(0.5),
      "-": () => zoom(2),
    };
    const action = actions[event.key];
    if (action === undefined) return;
    event.preventDefault();
    action();
  };
  const { start, end } = bounds(stream);
  return (
    <section class="timeline" aria-label="Timeline">
      <canvas
        ref={canvas}
        height={HEIGHT}
        tabIndex={0}
        role="slider"
        aria-label="Instant"
        aria-valuemin={start}
        aria-valuemax={end}
        aria-valuenow={Math.round(now ?? end)}
        aria-valuetext={time(now ?? end)}
        onKeyDown={pressed}
        onClick={(event) => onSeek(at(event))}
        onPointerMove={(event) => setPointed(at(event))}
        onPointerLeave={() => setPointed(undefined)}
      />
      <div class="row">
        <button type="button" onClick={() => zoom(0.5)}>Zoom in</button>
        <button type="button" onClick={() => zoom(2)}>Zoom out</button>
        <button type="button" onClick={() => setView({ start, end: Math.max(end, start + SPAN_MS_MIN) })}>Everything</button>
        <span class="dim">
          {pointed === undefined ? `${time(view.start)}, ${duration(view.end - view.start)}` : time(pointed, view.end - view.start < 60_000)}
        </span>
        <span role="status">{lines && summary(lines)}</span>
      </div>
    </section>
  );
}

function bounds(stream: Stream): View {
  const end = stream.totals.end ? Date.parse(stream.totals.end) : Date.now();
  return { start: stream.totals.start ? Date.parse(stream.totals.start) : end - 3_600_000, end };
}

const around = (at: number, span: number): View => ({ start: at - span / 2, end: at + span / 2 });

function initial(stream: Stream, now: number | undefined): View {
  const { start, end } = bounds(stream);
  const span = Math.min(Math.max(end - start, 60_000) * 1.1, 3_600_000);
  return around(now ?? end - span * 0.4, span);
}

function summary({ runs, gaps, next_token }: Timeline): string {
  const more = next_token === null ? "" : " or more";
  return `${runs.length}${more} runs, ${gaps.length}${more} gaps in view`;
}

function draw(canvas: HTMLCanvasElement, width: number, view: View, lines: Timeline | undefined, now: number | undefined, marks: Marks) {
  const context = canvas.getContext("2d");
  if (!context || width === 0) return;
  const scale = devicePixelRatio;
  canvas.width = width * scale;
  canvas.height = HEIGHT * scale;
  context.scale(scale, scale);
  const style = getComputedStyle(canvas);
  const color = (name: string) => style.getPropertyValue(name);
  const x = (ms: number) => ((ms - view.start) / (view.end - view.start)) * width;
  const bar = (start: number, end: number, top: number, height: number) =>
    context.fillRect(x(start), top, Math.max(x(end) - x(start), 1), height);

  if (marks.start !== undefined && marks.end !== undefined) {
    context.fillStyle = color("--raised");
    bar(marks.start, marks.end, 0, HEIGHT);
  }
  const step = STEPS_MS.find((step) => ((view.end - view.start) / step) * 90 < width) ?? STEPS_MS[STEPS_MS.length - 1] ?? 1;
  // Lines stand at whole steps of local time.
  const zone = new Date(view.start).getTimezoneOffset() * 60_000;
  context.fillStyle = color("--dim");
  context.font = "12px system-ui, sans-serif";
  for (let at = Math.ceil((view.start - zone) / step) * step + zone; at < view.end; at += step) {
    context.fillRect(x(at), 18, 1, 6);
    const text = time(at, step < 1000);
    context.fillText(step >= 86_400_000 ? text.slice(0, 10) : text.slice(11), x(at) + 3, 13);
  }
  context.fillStyle = color("--recorded");
  for (const { start, end } of lines?.runs ?? []) {
    if (start && end) bar(Date.parse(start), Date.parse(end), 28, 32);
  }
  context.fillStyle = color("--gap");
  for (const { start, end } of lines?.gaps ?? []) {
    // Narrower than what is recorded: told apart without color, too.
    if (start && end) bar(Date.parse(start), Date.parse(end), 36, 16);
  }
  context.fillStyle = color("--text");
  for (const mark of [marks.start, marks.end]) {
    if (mark !== undefined) context.fillRect(x(mark), 24, 1, HEIGHT - 24);
  }
  if (now !== undefined) context.fillRect(x(now) - 1, 20, 3, HEIGHT - 20);
}
