// Numbers and times as people read them.

const BYTES = ["B", "KB", "MB", "GB", "TB", "PB"];

export function bytes(count: number): string {
  const power = Math.min(Math.floor(Math.log10(Math.max(count, 1)) / 3), BYTES.length - 1);
  return `${(count / 1000 ** power).toFixed(power === 0 ? 0 : 1)} ${BYTES[power]}`;
}

export function bitRate(bitsPerSecond: number): string {
  return bitsPerSecond >= 1e6 ? `${(bitsPerSecond / 1e6).toFixed(1)} Mbit/s` : `${Math.round(bitsPerSecond / 1e3)} kbit/s`;
}

export function duration(ms: number): string {
  const s = Math.round(ms / 1000);
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${s % 60} s`;
  if (s < 86_400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86_400)} d ${Math.floor((s % 86_400) / 3600)} h`;
}

const two = (value: number) => String(value).padStart(2, "0");

/** In the time zone of the browser. */
export function time(ms: number, withMillis = false): string {
  const at = new Date(ms);
  const date = `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`;
  const clock = `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
  return `${date} ${clock}${withMillis ? `.${String(at.getMilliseconds()).padStart(3, "0")}` : ""}`;
}
