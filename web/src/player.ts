// Plays a stream at any instant by HLS: a window of the archive at a time, or its head.

import Hls from "hls.js";
import { type Fragment, api } from "./api";
import { message } from "./hooks";

/** Media that one playlist holds. */
const WINDOW_MS = 10 * 60_000;
/** About how long the parts are by which the head is followed. */
const PART_MS = 200;
/** Where the frame rate is not known. */
const FRAME_S = 1 / 25;

export interface Events {
  /** Producer time of the picture that is shown, in milliseconds since 1970. */
  onTime: (ms: number) => void;
  /** How far the picture is behind the clock of this browser, in milliseconds; undefined: it is not live. */
  onBehind: (ms: number | undefined) => void;
  onProblem: (text: string) => void;
}

export class Player {
  private hls: Hls | undefined;
  private window: { start: number; end: number } | undefined;
  private closed = false;

  constructor(
    private readonly video: HTMLVideoElement,
    private readonly path: string,
    private readonly events: Events,
  ) {
    video.addEventListener("timeupdate", this.moved);
    video.addEventListener("ended", this.ended);
  }

  live() {
    this.window = undefined;
    this.load(`${this.path}/hls/live.m3u8?part=${PART_MS}`);
  }

  /** `goesOn`: where nothing is recorded there, to what comes next. */
  seek(ms: number, goesOn = false) {
    if (this.seekInWindow(ms)) return;
    this.window = { start: ms, end: ms + WINDOW_MS };
    this.load(`${this.path}/hls/index.m3u8?start=${Math.round(ms)}&end=${Math.round(ms + WINDOW_MS)}`, goesOn);
  }

  close() {
    this.closed = true;
    this.hls?.destroy();
    this.video.removeEventListener("timeupdate", this.moved);
    this.video.removeEventListener("ended", this.ended);
  }

  /** How long a frame is shown, in seconds. */
  get frame_s(): number {
    const levels = this.hls?.levels ?? [];
    const fps = (levels[Math.max(this.hls?.currentLevel ?? 0, 0)] ?? levels[0])?.frameRate ?? 0;
    return fps > 0 ? 1 / fps : FRAME_S;
  }

  /** Within what is loaded, by the wall clock of its segments. */
  private seekInWindow(ms: number): boolean {
    if (this.window === undefined || ms < this.window.start || ms >= this.window.end) return false;
    const fragments = this.hls?.latestLevelDetails?.fragments ?? [];
    const found = fragments.find(({ programDateTime, duration }) => {
      const start = programDateTime ?? Number.NaN;
      return start <= ms && ms < start + duration * 1000;
    });
    if (found === undefined) return false;
    this.video.currentTime = found.start + (ms - (found.programDateTime ?? ms)) / 1000;
    return true;
  }

  /** Goes on with what was recorded next. */
  private async skip(ms: number) {
    try {
      const span = `start=${Math.round(ms)}&limit=1`;
      const { fragments } = await api<{ fragments: Fragment[] }>(`${this.path}/fragments?${span}`);
      const next = fragments[0];
      if (this.closed || this.window?.start !== ms) return;
      if (next === undefined) this.events.onProblem("Nothing is recorded after this.");
      else this.seek(Math.max(Date.parse(next.producer_time), ms + 1));
    } catch (caught) {
      this.events.onProblem(message(caught));
    }
  }

  private load(url: string, goesOn = false) {
    this.events.onProblem("");
    this.events.onBehind(undefined);
    this.hls?.destroy();
    if (!Hls.isSupported()) {
      this.events.onProblem("This browser has no Media Source Extensions: download the range instead.");
      return;
    }
    // No worker: it would be a script from a blob, which the policy of the pages does not allow, and there is no remuxing to do.
    const hls = new Hls({ enableWorker: false });
    this.hls = hls;
    hls.on(Hls.Events.ERROR, (_, data) => {
      if (!data.fatal || this.closed) return;
      const missing = data.response?.code === 404;
      if (missing && goesOn && this.window) {
        hls.destroy();
        void this.skip(this.window.start);
        return;
      }
      this.events.onProblem(missing ? "Nothing is recorded there." : `It does not play: ${data.details}`);
      hls.destroy();
    });
    hls.on(Hls.Events.MANIFEST_PARSED, () => {
      // Where it may not play by itself, the person starts it.
      this.video.play().catch((caught: unknown) => console.info(message(caught)));
    });
    hls.loadSource(url);
    hls.attachMedia(this.video);
  }

  private readonly moved = () => {
    const date = this.hls?.playingDate;
    if (!date) return;
    this.events.onTime(date.getTime());
    this.events.onBehind(this.window === undefined ? Date.now() - date.getTime() : undefined);
  };

  private readonly ended = () => {
    if (this.window) this.seek(this.window.end, true);
  };
}
