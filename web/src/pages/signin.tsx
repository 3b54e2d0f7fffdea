import { useState } from "preact/hooks";
import { type Session, api } from "../api";
import { message } from "../hooks";

export function SignIn({ problem, onSession }: { problem: string; onSession: (session: Session) => void }) {
  const [error, setError] = useState(problem);
  const [busy, setBusy] = useState(false);
  const submit = async (event: SubmitEvent) => {
    event.preventDefault();
    const form = new FormData(event.currentTarget as HTMLFormElement);
    setBusy(true);
    setError("");
    try {
      const pair = { access_key_id: form.get("id"), secret_access_key: form.get("secret") };
      onSession(await api<Session>("/v1/session", "POST", pair));
    } catch (caught) {
      setError(message(caught));
      setBusy(false);
    }
  };
  return (
    <main class="signin">
      <h1>Vidar</h1>
      <form onSubmit={submit}>
        <label>
          Access key id
          <input name="id" required autocomplete="username" autocapitalize="off" spellcheck={false} />
        </label>
        <label>
          Secret
          <input name="secret" type="password" required autocomplete="current-password" />
        </label>
        <button type="submit" class="primary" disabled={busy}>
          Sign in
        </button>
        <p role="alert" class="error">
          {error}
        </p>
      </form>
      <p>
        The root pair is shown by <code>vidar credentials show</code>.
      </p>
    </main>
  );
}
