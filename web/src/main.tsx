import { render } from "preact";
import type { ComponentType } from "preact";
import { useEffect, useState } from "preact/hooks";
import { ApiError, SIGNED_OUT, type Session, api } from "./api";
import { message, useRoute } from "./hooks";
import { SignIn } from "./pages/signin";
import { Operate } from "./pages/operate";
import { Search } from "./pages/search";
import { Start } from "./pages/start";
import { Wall } from "./pages/wall";
import "./style.css";

const PAGES = [
  { page: "", title: "Streams" },
  { page: "search", title: "Search" },
  { page: "operate", title: "Operate" },
  { page: "start", title: "Add a stream" },
];

function App() {
  // Undefined: not asked yet; null: nobody.
  const [session, setSession] = useState<Session | null>();
  const [error, setError] = useState("");
  const route = useRoute();
  useEffect(() => {
    api<Session>("/v1/session").then(setSession, (caught) => {
      if (!(caught instanceof ApiError && caught.status === 404)) setError(message(caught));
      setSession(null);
    });
    const out = () => setSession(null);
    addEventListener(SIGNED_OUT, out);
    return () => removeEventListener(SIGNED_OUT, out);
  }, []);
  const title = PAGES.find(({ page }) => page === route.page)?.title ?? route.name;
  useEffect(() => {
    document.title = session ? `${title} · Vidar` : "Vidar";
  }, [title, session]);

  if (session === undefined) return null;
  if (session === null) return <SignIn problem={error} onSession={setSession} />;
  const signOut = () => api("/v1/session", "DELETE").finally(() => setSession(null));
  return (
    <>
      <header>
        <a class="skip" href="#main" onClick={skip}>
          Skip to content
        </a>
        <strong>Vidar</strong>
        <nav aria-label="Pages">
          {PAGES.map(({ page, title }) => (
            <a key={page} href={`#/${page}`} aria-current={page === route.page ? "page" : undefined}>
              {title}
            </a>
          ))}
        </nav>
        <span class="who">{session.access_key_id}</span>
        <button type="button" onClick={signOut}>
          Sign out
        </button>
      </header>
      <main id="main" tabIndex={-1}>
        <Page route={route} session={session} />
      </main>
    </>
  );
}

// The hash is the address of a page: it cannot also be that of an element.
function skip(event: Event) {
  event.preventDefault();
  document.getElementById("main")?.focus();
}

function Page({ route, session }: { route: ReturnType<typeof useRoute>; session: Session }) {
  switch (route.page) {
    case "":
      return <Wall session={session} />;
    case "stream":
      return <Lazy name={route.name} at={route.query.get("at")} session={session} />;
    case "search":
      return <Search query={route.query} />;
    case "operate":
      return <Operate session={session} />;
    case "start":
      return <Start session={session} />;
    default:
      return <p role="alert">There is no such page.</p>;
  }
}

interface StreamProps {
  name: string;
  at: string | null;
  session: Session;
}

/** The player is most of the code: it comes when it is needed. */
function Lazy(props: StreamProps) {
  const [Loaded, setLoaded] = useState<ComponentType<StreamProps>>();
  useEffect(() => {
    void import("./pages/stream").then(({ StreamPage }) => setLoaded(() => StreamPage));
  }, []);
  return Loaded ? <Loaded key={props.name} {...props} /> : <p role="status">Loading …</p>;
}

const app = document.getElementById("app");
if (app) render(<App />, app);
