import { useEffect, useState } from "preact/hooks";

/** Asks now and every so often while the page is seen; what was last answered, and what went wrong last. */
export function usePolled<T>(ask: () => Promise<T>, every_ms: number, keys: unknown[]): [T | undefined, string, () => void] {
  const [answer, setAnswer] = useState<T>();
  const [error, setError] = useState("");
  const [asked, setAsked] = useState(0);
  useEffect(() => {
    let timer = 0;
    let gone = false;
    const again = async () => {
      if (!document.hidden) {
        try {
          const got = await ask();
          if (gone) return;
          setAnswer(got);
          setError("");
        } catch (caught) {
          if (gone) return;
          setError(message(caught));
        }
      }
      timer = window.setTimeout(again, every_ms);
    };
    void again();
    return () => {
      gone = true;
      clearTimeout(timer);
    };
  }, [...keys, asked]);
  return [answer, error, () => setAsked(asked + 1)];
}

export const message = (caught: unknown) => (caught instanceof Error ? caught.message : String(caught));

/** `#/PAGE/NAME?at=…`: the address of a view, which may be kept and sent. */
export interface Route {
  page: string;
  name: string;
  query: URLSearchParams;
}

function route(): Route {
  const [path = "", query = ""] = location.hash.replace(/^#\/?/, "").split("?", 2);
  const [page = "", name = ""] = path.split("/", 2);
  return { page, name: decoded(name), query: new URLSearchParams(query) };
}

/** What a person typed may be no encoding of anything: then it is meant as it is. */
function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

export function useRoute(): Route {
  const [now, setNow] = useState(route);
  useEffect(() => {
    const changed = () => setNow(route());
    addEventListener("hashchange", changed);
    return () => removeEventListener("hashchange", changed);
  }, []);
  return now;
}

export const streamHref = (name: string, at?: string | number) =>
  `#/stream/${encodeURIComponent(name)}${at === undefined ? "" : `?at=${encodeURIComponent(at)}`}`;
