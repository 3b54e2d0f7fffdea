import { useState } from "preact/hooks";
import { type Session, type Stream, api, streamPath, streams } from "../api";
import { bytes, duration, time } from "../format";
import { message, streamHref, usePolled } from "../hooks";

interface Preview {
  streams: { stream: string; reason: string; fragments: number; stored_bytes: number; start: string; end: string }[];
  totals: { fragments: number; stored_bytes: number };
}

interface Ready {
  status: string;
  search: { status: string; percent?: number };
}

export function Operate({ session }: { session: Session }) {
  const [all, error, again] = usePolled(streams, 5000, []);
  // 503 is an answer, too: the disk is full.
  const [ready] = usePolled<Ready>(async () => (await fetch("/readyz")).json(), 5000, []);
  const stored = (all ?? []).reduce((sum, stream) => sum + stream.totals.stored_bytes, 0);
  return (
    <>
      <h1>Operate</h1>
      <dl class="facts">
        <dt>Disk</dt>
        <dd>{ready?.status ?? "…"}</dd>
        <dt>Search</dt>
        <dd>{ready?.search.status ?? "…"}{ready?.search.percent === undefined ? "" : ` ${ready.search.percent} %`}</dd>
        <dt>Streams</dt>
        <dd>{all?.length ?? "…"}, {all?.filter((stream) => stream.live).length ?? "…"} live</dd>
        <dt>Stored</dt>
        <dd>{all ? bytes(stored) : "…"}</dd>
      </dl>
      {error && <p role="alert" class="error">{error}</p>}
      <h2>Retention</h2>
      <div class="scroll" tabIndex={0} role="region" aria-label="Retention of streams">
        <table>
          <thead>
            <tr>
              <th>Stream</th>
              <th>Stored</th>
              <th>Holds</th>
              <th>Keep</th>
            </tr>
          </thead>
          <tbody>{all?.map((stream) => <Row key={stream.name} stream={stream} session={session} onSaved={again} />)}</tbody>
        </table>
      </div>
    </>
  );
}

function Row({ stream, session, onSaved }: { stream: Stream; session: Session; onSaved: () => void }) {
  const { start, end } = stream.totals;
  return (
    <tr>
      <td><a href={streamHref(stream.name)}>{stream.name}</a></td>
      <td>{bytes(stream.totals.stored_bytes)}</td>
      <td>{start && end ? duration(Date.parse(end) - Date.parse(start)) : "nothing"}</td>
      <td>
        {session.may_some.includes("change") ? <Retention stream={stream} session={session} onSaved={onSaved} /> : `${stream.retention_hours} h`}
      </td>
    </tr>
  );
}

/** Says what would go before it is saved. */
function Retention({ stream, session, onSaved }: { stream: Stream; session: Session; onSaved: () => void }) {
  const [hours, setHours] = useState<number>();
  const [preview, setPreview] = useState<Preview>();
  const [said, setSaid] = useState("");
  const wanted = hours ?? stream.retention_hours;
  const changed = wanted !== stream.retention_hours;
  const mayPreview = session.may_all.includes("operate");
  const attempt = async (act: () => Promise<void>) => {
    setSaid("");
    await act().catch((caught) => setSaid(message(caught)));
  };
  const look = () =>
    attempt(async () => {
      const query = `stream=${encodeURIComponent(stream.name)}&retention_hours=${wanted}`;
      setPreview(await api<Preview>(`/v1/retention/preview?${query}`));
    });
  const save = () =>
    attempt(async () => {
      await api(streamPath(stream.name), "PATCH", { retention_hours: wanted });
      setPreview(undefined);
      setHours(undefined);
      setSaid("Saved.");
      onSaved();
    });
  return (
    <div class="row">
      <label>
        <span>Hours<span class="hidden"> of {stream.name}</span></span>
        <input
          type="number"
          min="1"
          max="87600"
          value={wanted}
          onInput={(event) => {
            setHours(event.currentTarget.valueAsNumber);
            setPreview(undefined);
            setSaid("");
          }}
        />
      </label>
      {changed && mayPreview && !preview && <button type="button" onClick={look}>What would go?</button>}
      {changed && (preview || !mayPreview) && <button type="button" class="primary" onClick={save}>Save</button>}
      <span role="status">
        {preview && describe(preview)}
        {said}
      </span>
    </div>
  );
}

function describe({ streams, totals }: Preview): string {
  if (totals.fragments === 0) return "Nothing would go.";
  const until = streams.map(({ end }) => Date.parse(end)).reduce((a, b) => Math.max(a, b), 0);
  return `${totals.fragments} fragments would go, ${bytes(totals.stored_bytes)}, all until ${time(until)}.`;
}
