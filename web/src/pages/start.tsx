import { useState } from "preact/hooks";
import { type Session, type Stream, api, streamPath, streams } from "../api";
import { message, streamHref, usePolled } from "../hooks";

interface Key {
  access_key_id: string;
  secret_access_key: string;
}

/** How to push, with the addresses of this server; shows the stream once it is there. */
export function Start({ session }: { session: Session }) {
  const [name, setName] = useState("cam-1");
  const [key, setKey] = useState<Key>();
  const [error, setError] = useState("");
  const [all] = usePolled(streams, 2000, []);
  const pushed = all?.find((stream) => stream.name === name);
  const makeKey = async () => {
    setError("");
    try {
      const wanted = { name: `pushes ${name}`, preset: "write", streams: [name] };
      setKey(await api<Key>("/v1/credentials", "POST", wanted));
    } catch (caught) {
      setError(message(caught));
    }
  };
  const id = key?.access_key_id ?? session.access_key_id;
  const secret = key?.secret_access_key ?? "SECRET";
  const rtsp = `rtsp://${id}:${secret}@${location.hostname}:${session.rtsp_port}/${name}`;
  const http = `${location.protocol}//${id}:${secret}@${location.host}${streamPath(name)}/media`;
  const plainRtsp = `rtsp://${location.hostname}:${session.rtsp_port}/${name}`;
  return (
    <>
      <h1>Add a stream</h1>
      <p>A stream comes into being with its first push.</p>
      <div class="row">
        <label>
          Name
          <input
            value={name}
            pattern="[A-Za-z0-9_.\-]{1,256}"
            onInput={(event) => {
              setName(event.currentTarget.value);
              setKey(undefined);
            }}
          />
        </label>
        {session.may_all.includes("operate") && (
          <button type="button" onClick={makeKey}>
            Make a key that may push it
          </button>
        )}
      </div>
      {error && (
        <p role="alert" class="error">
          {error}
        </p>
      )}
      <p>
        {key
          ? "The secret below is shown this once. Keep it."
          : "Put the secret of an access key in the place of SECRET, or make a key."}
      </p>
      <Appeared stream={pushed} />
      <Recipe title="ffmpeg, over RTSP" text={`ffmpeg -re -i INPUT -c copy -f rtsp -rtsp_transport tcp '${rtsp}'`} />
      <Recipe title="ffmpeg, over HTTP" text={`ffmpeg -re -i INPUT -c copy -f matroska -method PUT '${http}'`} />
      <Recipe
        title="A webcam"
        text={`ffmpeg -f v4l2 -i /dev/video0 -c:v libx264 -preset veryfast -tune zerolatency -g 30 -f rtsp -rtsp_transport tcp '${rtsp}'`}
      />
      <Recipe
        title="GStreamer"
        text={`gst-launch-1.0 videotestsrc is-live=true ! x264enc tune=zerolatency key-int-max=30 ! rtspclientsink protocols=tcp location='${rtsp}'`}
      />
      <Recipe
        title="A camera that is pulled from"
        text={`ffmpeg -rtsp_transport tcp -i rtsp://USER:PASSWORD@CAMERA/PATH -c copy -f rtsp -rtsp_transport tcp '${rtsp}'`}
      />
      <Recipe title="A camera that pushes by RTSP" text={`address ${plainRtsp}\nuser    ${id}\nsecret  ${secret}`} />
      {session.kvs_url === null ? (
        <section>
          <h2>kvssink</h2>
          <p>
            The compatible API is off. Start the server with <code>--kvs</code>.
          </p>
        </section>
      ) : (
        <Recipe
          title="kvssink"
          text={`AWS_ACCESS_KEY_ID=${id} AWS_SECRET_ACCESS_KEY=${secret} CONTROL_PLANE_URI=${session.kvs_url} \\\n  gst-launch-1.0 videotestsrc is-live=true ! x264enc bframes=0 key-int-max=30 ! h264parse ! kvssink stream-name=${name}`}
        />
      )}
    </>
  );
}

function Appeared({ stream }: { stream: Stream | undefined }) {
  return (
    <p role="status" class={stream?.live ? "good" : undefined}>
      {stream === undefined && "Waiting for the stream …"}
      {stream !== undefined && stream.totals.fragments === 0 && "The stream is there. Waiting for its first fragment …"}
      {stream !== undefined && stream.totals.fragments > 0 && (
        <>
          {stream.name} is {stream.live ? "being recorded" : "there"}. <a href={streamHref(stream.name)}>Watch it</a>
        </>
      )}
    </p>
  );
}

function Recipe({ title, text }: { title: string; text: string }) {
  const [copied, setCopied] = useState(false);
  const copy = () => navigator.clipboard.writeText(text).then(() => setCopied(true));
  return (
    <section class="recipe">
      <h2>{title}</h2>
      <pre tabIndex={0}>{text}</pre>
      {navigator.clipboard && (
        <button type="button" onClick={copy} aria-label={`Copy: ${title}`}>
          {copied ? "Copied" : "Copy"}
        </button>
      )}
    </section>
  );
}
