import { useEffect, useState } from "preact/hooks";
import { api } from "../api";
import { Facets } from "../facets";
import { bytes, duration, time } from "../format";
import { message, streamHref } from "../hooks";

interface Result {
  kind: string;
  stream: string;
  producer_time?: string;
  duration_ms?: number;
  size_bytes?: number;
  codecs?: string[];
  protocol?: string;
  gap?: string;
}

interface Answer {
  results: Result[];
  total: number;
  indexed_watermark?: string;
  next_token: string | null;
}

const EXAMPLES = ["kind:gap", "kind:run", "gap:true", "codec:h264 height:>=720", "duration_ms:>5000", "protocol:rtsp"];
/** What stands before a colon, for completion. */
const FIELDS = [
  "kind:", "stream:", "device:", "tags.", "gap:", "time:", "protocol:", "source:", "duration_ms:", "codec:", "size_bytes:", "width:",
  "height:", "fps:", "bitrate:",
];

export function Search({ query }: { query: URLSearchParams }) {
  const asked = query.get("q");
  const [text, setText] = useState(asked ?? "");
  const [answer, setAnswer] = useState<Answer>();
  const [error, setError] = useState("");
  const ask = async (token?: string) => {
    try {
      const more = token === undefined ? "" : `&next_token=${encodeURIComponent(token)}`;
      const got = await api<Answer>(`/v1/search?q=${encodeURIComponent(asked ?? "")}&limit=50${more}`);
      setAnswer((before) => (token !== undefined && before ? { ...got, results: [...before.results, ...got.results] } : got));
      setError("");
    } catch (caught) {
      setError(message(caught));
    }
  };
  useEffect(() => {
    setText(asked ?? "");
    if (asked !== null) void ask();
  }, [asked]);
  const submit = (event: Event) => {
    event.preventDefault();
    location.hash = `#/search?q=${encodeURIComponent(text)}`;
  };
  return (
    <>
      <h1>Search</h1>
      <form class="row" role="search" onSubmit={submit}>
        <label class="grow">
          Query
          <input
            type="search"
            list="fields"
            value={text}
            placeholder="kind:gap stream:door-*"
            autocapitalize="off"
            spellcheck={false}
            onInput={(event) => setText(event.currentTarget.value)}
          />
        </label>
        <datalist id="fields">
          {FIELDS.map((field) => (
            <option key={field} value={`${text.replace(/\S*$/, "")}${field}`} />
          ))}
        </datalist>
        <button type="submit" class="primary">Search</button>
      </form>
      <p>
        {EXAMPLES.map((example) => (
          <a key={example} class="example" href={`#/search?q=${encodeURIComponent(example)}`}>{example}</a>
        ))}
      </p>
      {error && <p role="alert" class="error">{error}</p>}
      {answer && !error && (
        <>
          <p role="status">
            {answer.total} found{answer.indexed_watermark === undefined && "; the index catches up, there may be more"}
          </p>
          <Facets query={asked ?? ""} />
          <div class="scroll" tabIndex={0} role="region" aria-label="Results">
            <table>
              <thead>
                <tr>
                  <th>Time</th>
                  <th>Stream</th>
                  <th>Kind</th>
                  <th>Length</th>
                  <th>Size</th>
                  <th>Codecs, protocol</th>
                </tr>
              </thead>
              <tbody>
                {answer.results.map((result, index) => (
                  <Row key={index} result={result} />
                ))}
              </tbody>
            </table>
          </div>
          {answer.next_token !== null && (
            <button type="button" onClick={() => ask(answer.next_token ?? undefined)}>More</button>
          )}
        </>
      )}
    </>
  );
}

function Row({ result }: { result: Result }) {
  const at = result.producer_time === undefined ? undefined : Date.parse(result.producer_time);
  return (
    <tr>
      <td>{at === undefined ? "" : <a href={streamHref(result.stream, at)}>{time(at, true)}</a>}</td>
      <td>{result.stream}</td>
      <td>{result.kind}{result.gap ? `: ${result.gap}` : ""}</td>
      <td>{result.duration_ms === undefined ? "" : duration(result.duration_ms)}</td>
      <td>{result.size_bytes === undefined ? "" : bytes(result.size_bytes)}</td>
      <td>{[...(result.codecs ?? []), result.protocol].filter(Boolean).join(", ")}</td>
    </tr>
  );
}
