// Plays a stream at any instant by HLS: a window of the archive at a time, or its head.

import Hls from "hls.js";
import { message } from "./hooks";

/** Media that one playlist holds. */
const WINDOW_MS = 10 * 60_000;

export interface Events {
  /** Producer time of the picture that is shown, in milliseconds since 1970. */
  onTime: (ms: number) => void;
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
    this.load(`${this.path}/hls/live.m3u8`);
  }

  seek(ms: number) {
    if (this.seekInWindow(ms)) return;
    this.window = { start: ms, end: ms + WINDOW_MS };
    this.load(`${this.path}/hls/index.m3u8?start=${Math.round(ms)}&end=${Math.round(ms + WINDOW_MS)}`);
  }

  close() {
    this.closed = true;
    this.hls?.destroy();
    this.video.removeEventListener("timeupdate", this.moved);
    this.video.removeEventListener("ended", this.ended);
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

  private load(url: string) {
    this.events.onProblem("");
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
    if (date) this.events.onTime(date.getTime());
  };

  private readonly ended = () => {
    if (this.window) this.seek(this.window.end);
  };
}
