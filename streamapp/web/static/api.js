// What the worker is asked and told. All addresses are relative to the page: a proxy may have it at a sub-path.

export const session = { name: null, role: null, reads: false, may: [], csrf: null, login: false, offsetMs: 0 };

export class Refused extends Error {
  constructor(status, body) {
    super(body.error || `the worker answered ${status}`);
    this.status = status;
    this.body = body;
  }
}

async function answer(path, options = {}) {
  const sent = Date.now();
  let reply;
  try {
    reply = await fetch(path, { credentials: "same-origin", cache: "no-store", signal: AbortSignal.timeout(40000), ...options });
  } catch {
    throw new Refused(0, { error: "no answer from the worker" });
  }
  const body = await reply.json().catch(() => ({}));
  if (!reply.ok) throw new Refused(reply.status, body);
  return { body, status: reply.status, sent, received: Date.now() };
}

export async function get(path) {
  return (await answer(path)).body;
}

function take({ body, sent, received }) {
  Object.assign(session, body);
  session.offsetMs = (sent + received) / 2 - new Date(body.at).getTime();
}

export async function loadSession() {
  take(await answer("session"));
}

const json = (body) => ({ method: "POST", headers: { "Content-Type": "application/json", "X-CSRF-Token": session.csrf || "" }, body: JSON.stringify(body) });

export async function login(token) {
  take(await answer("login", json({ token })));
}

export async function logout() {
  await answer("logout", json({}));
  await loadSession();
}

export const may = (command) => session.may.includes(command);

export function requestId() {
  // Not randomUUID: without TLS only this machine's pages have it.
  const bytes = crypto.getRandomValues(new Uint8Array(12));
  return "page-" + Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Decide about a dead letter: redrive or acknowledge. Returns it as it stands then. */
export async function decide(letterId, deed, reason) {
  return (await answer(`dead-letters/${encodeURIComponent(letterId)}/${deed}`, json({ reason }))).body;
}

/** Give a command. Returns its first result, or null if it is stored and nothing more is known yet. */
export async function command(name, body) {
  const { body: said, status } = await answer(`commands/${name}?wait=10`, json(body));
  return status === 200 ? said : null;
}
