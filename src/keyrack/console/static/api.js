// Everything that is asked of the server goes through here: the token, the log of requests that
// "copy as" uses, problems, and streams. The page holds no cookie and no credentials but the token.

/**
 * @typedef {{type: string, title: string, status: number, detail: string, [member: string]: any}} ProblemBody
 * @typedef {{method: string, path: string, headers: Record<string, string>, body: string | Uint8Array | null}} Asked
 * @typedef {{key: string, revision: string, type: string, size: number, ttl?: number, value?: any}} Entry
 * @typedef {{keys: Entry[], folders: string[], next: string | null, revision: string, filtered: boolean}} Page
 * @typedef {{kind: string, id: string, data: any}} StreamEvent
 */

/** The directory that the page is served from; works behind a proxy at any path. */
const HOME = new URL(".", document.baseURI);
const TOKEN = "keyrack-token";
const LOGGED = 50;

/** A failure that the server has explained, or that kept it from being asked. */
export class Problem extends Error {
  /** @param {ProblemBody} body */
  constructor(body) {
    super(body.detail || body.title);
    this.body = body;
    this.status = body.status;
  }
}

/** @type {Asked[]} */
const log = [];
const listeners = new Set();

/** The latest requests of this page, newest first. Event streams and polls are left out. */
export function requests() {
  return log;
}

/** @param {() => void} listener Called when the need to log in may have changed. */
export function onAccess(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

export const access = { needed: false, reason: "" };

export function token() {
  return sessionStorage.getItem(TOKEN) ?? "";
}

/** @param {string} text */
export function setToken(text) {
  if (text) sessionStorage.setItem(TOKEN, text);
  else sessionStorage.removeItem(TOKEN);
  access.needed = false;
  for (const listener of listeners) listener();
}

/**
 * A path below the page's directory, as a URL.
 * @param {string} path
 */
export function url(path) {
  return new URL(path.replace(/^\//, ""), HOME);
}

/**
 * The path of a key. Browsers take a path that is only dots for a step up, also when it is escaped:
 * such a key has no path, and is named in the body of a batch.
 * @param {string} key
 * @returns {string | null}
 */
export function keyPath(key, beginning = "/v1/keys/") {
  return key === "." || key === ".." ? null : beginning + encodeURIComponent(key);
}

/**
 * Ask, and return the answer, whatever its status. Throws a Problem when there is none.
 * @param {string} method
 * @param {string} path
 * @param {{headers?: Record<string, string>, body?: string | Uint8Array | null, signal?: AbortSignal, quiet?: boolean}} options
 */
export async function ask(method, path, { headers = {}, body = null, signal, quiet = false } = {}) {
  if (!quiet) {
    const { Range: _, ...lasting } = headers;
    log.unshift({ method, path, headers: lasting, body });
    log.length = Math.min(log.length, LOGGED);
  }
  const all = token() ? { ...headers, Authorization: `Bearer ${token()}` } : headers;
  let answer;
  try {
    answer = await fetch(url(path), {
      method, headers: all, body: /** @type {BodyInit | null} */ (body), signal, cache: "no-store", credentials: "omit", redirect: "error",
    });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Problem({ type: "", title: "The server does not answer", status: 0, detail: "The server does not answer. It is asked again when you try again." });
  }
  if (answer.status === 401) {
    access.needed = true;
    access.reason = token() ? "The server does not accept this token." : "The server asks for a token.";
    for (const listener of listeners) listener();
  }
  return answer;
}

/**
 * The Problem that an answer with an error status carries.
 * @param {Response} answer
 */
export async function problemOf(answer) {
  const text = await answer.text();
  const known = { type: "", title: answer.statusText || `Status ${answer.status}`, status: answer.status, detail: "" };
  try {
    const body = JSON.parse(text);
    return new Problem({ ...known, ...body, detail: body.detail ?? body.message ?? "" });
  } catch {
    return new Problem({ ...known, detail: text.slice(0, 300) });
  }
}

/**
 * Ask, and return the JSON of a good answer; throw the Problem of any other.
 * @param {string} method
 * @param {string} path
 * @param {any} [json]
 * @param {{headers?: Record<string, string>, signal?: AbortSignal, quiet?: boolean}} options
 */
export async function askJson(method, path, json, options = {}) {
  const headers = { ...options.headers };
  if (json !== undefined) headers["Content-Type"] ??= "application/json";
  const answer = await ask(method, path, { ...options, headers, body: json === undefined ? null : JSON.stringify(json) });
  if (!answer.ok) throw await problemOf(answer);
  return answer.status === 204 ? null : answer.json();
}

/**
 * A query string in which everything is escaped, spaces as %20.
 * @param {Record<string, string | number | boolean | null | undefined>} members
 */
export function query(members) {
  const given = Object.entries(members).filter(([, value]) => value !== undefined && value !== null && value !== false && value !== "");
  return given.length ? `?${given.map(([name, value]) => `${name}=${encodeURIComponent(String(value))}`).join("&")}` : "";
}

/**
 * One page of keys and folders in order.
 * @param {{prefix?: string, after?: string | null, limit?: number, delimiter?: string, signal?: AbortSignal}} wanted
 * @returns {Promise<Page>}
 */
export async function page({ prefix = "", after = null, limit = 200, delimiter = "", signal }) {
  const answer = await askJson("GET", `/v1/keys${query({ prefix, after, limit, delimiter })}`, undefined, { signal });
  return { folders: [], next: null, filtered: false, ...answer };
}

/** @typedef {{missing: boolean, type: string, size: number, etag: string, endsAt: number | null, bytes: Uint8Array, from: number}} Value */

/**
 * A key's value, or the part of it that begins at `from` and has at most `most` bytes.
 * @param {string} key
 * @param {number} from
 * @param {number} most
 * @param {AbortSignal} [signal]
 * @returns {Promise<Value>}
 */
export async function value(key, from, most, signal) {
  const path = keyPath(key);
  if (path === null) return valueByBatch(key);
  const headers = { Range: `bytes=${from}-${from + most - 1}` };
  const answer = await ask("GET", path, { headers, signal });
  if (answer.status === 404) return { missing: true, type: "", size: 0, etag: "", endsAt: null, bytes: new Uint8Array(), from: 0 };
  if (answer.status === 416) return value(key, 0, most, signal);
  if (!answer.ok) throw await problemOf(answer);
  const range = /^bytes (\d+)-\d+\/(\d+)$/.exec(answer.headers.get("Content-Range") ?? "");
  const bytes = await firstBytes(answer, range ? most : from + most);
  const ttl = answer.headers.get("Keyrack-TTL");
  return {
    missing: false,
    type: answer.headers.get("Content-Type") ?? "application/octet-stream",
    size: range ? Number(range[2]) : Number(answer.headers.get("Content-Length") ?? bytes.length),
    etag: answer.headers.get("ETag") ?? "",
    endsAt: ttl === null ? null : performance.now() + Number(ttl) * 1000,
    bytes: range ? bytes : bytes.subarray(from),
    from: range ? Number(range[1]) : Math.min(from, bytes.length),
  };
}

/**
 * At most `most` bytes of a body; the rest is not fetched.
 * @param {Response} answer
 * @param {number} most
 */
async function firstBytes(answer, most) {
  if (!answer.body) return new Uint8Array();
  const reader = answer.body.getReader();
  const parts = [];
  let length = 0;
  while (length < most) {
    const { done, value: part } = await reader.read();
    if (done) break;
    parts.push(part);
    length += part.length;
  }
  if (length >= most) await reader.cancel();
  const all = new Uint8Array(length);
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all.subarray(0, most);
}

/**
 * @param {string} key
 * @returns {Promise<Value>}
 */
async function valueByBatch(key) {
  const { results } = await askJson("POST", "/v1/batch", { operations: [{ op: "get", key }] });
  const found = results[0];
  if (!found.existed) return { missing: true, type: "", size: 0, etag: "", endsAt: null, bytes: new Uint8Array(), from: 0 };
  const text = typeof found.value === "string" ? found.value : JSON.stringify(found.value);
  const bytes = found.encoding === "base64" ? fromBase64(text) : new TextEncoder().encode(text);
  return {
    missing: false, type: found.type ?? (typeof found.value === "string" ? "text/plain; charset=utf-8" : "application/json"),
    size: bytes.length, etag: `"${found.revision}"`, endsAt: found.ttl === undefined ? null : performance.now() + found.ttl * 1000, bytes, from: 0,
  };
}

/** @param {string} text */
function fromBase64(text) {
  return Uint8Array.from(atob(text), (one) => one.charCodeAt(0));
}

/**
 * Store a value. Returns its ETag; throws a Problem (412 when the condition does not hold).
 * @param {string} key
 * @param {string | Uint8Array} body
 * @param {{type: string, ttl: number | null, etag: string | null}} how `etag` null: only if the key is new.
 */
export async function store(key, body, { type, ttl, etag }) {
  const path = keyPath(key);
  if (path === null) return storeByBatch(key, body, { ttl, etag });
  const headers = { "Content-Type": type, ...(etag ? { "If-Match": etag } : { "If-None-Match": "*" }) };
  const answer = await ask("PUT", path + query({ ttl }), { headers, body });
  if (!answer.ok) throw await problemOf(answer);
  return answer.headers.get("ETag") ?? "";
}

/**
 * @param {string} key
 * @param {string | Uint8Array} body
 * @param {{ttl: number | null, etag: string | null}} how
 */
async function storeByBatch(key, body, { ttl, etag }) {
  const condition = etag ? { if_match: bare(etag) } : { if_none_match: "*" };
  const value = typeof body === "string" ? body : new TextDecoder().decode(body);
  const { results } = await askJson("POST", "/v1/batch", { operations: [{ op: "set", key, value, ...condition, ...(ttl ? { ttl } : {}) }] });
  return `"${results[0].revision}"`;
}

/** An ETag as a batch names it. @param {string} etag */
function bare(etag) {
  return etag.replaceAll('"', "");
}

/**
 * Remove a key, only at this ETag if one is given, so that it can be undone for some seconds.
 * @param {string} key
 * @param {string | null} etag
 * @param {number} undo
 * @returns {Promise<{undo?: string | null, until?: string | null}>}
 */
export async function remove(key, etag, undo) {
  const path = keyPath(key);
  if (path === null) {
    return askJson("POST", "/v1/batch", { operations: [{ op: "delete", key, ...(etag ? { if_match: bare(etag) } : {}) }], undo });
  }
  const answer = await ask("DELETE", path + query({ undo }), { headers: etag ? { "If-Match": etag } : {} });
  if (!answer.ok) throw await problemOf(answer);
  return answer.json();
}

/**
 * Server-sent events, by fetch, so that the token goes into a header. Ends when the stream ends.
 * @param {string} path
 * @param {(event: StreamEvent) => void} take
 * @param {AbortSignal} signal
 */
export async function stream(path, take, signal) {
  const answer = await ask("GET", path, { headers: { Accept: "text/event-stream" }, signal, quiet: true });
  if (!answer.ok) throw await problemOf(answer);
  const reader = /** @type {ReadableStream<Uint8Array>} */ (answer.body).getReader();
  const decoder = new TextDecoder();
  let rest = "";
  for (;;) {
    const { done, value: part } = await reader.read();
    if (done) return;
    rest += decoder.decode(part, { stream: true });
    const blocks = rest.split("\n\n");
    rest = /** @type {string} */ (blocks.pop());
    for (const block of blocks) {
      const event = parsed(block);
      if (event) take(event);
    }
  }
}

/**
 * @param {string} block
 * @returns {StreamEvent | null}
 */
function parsed(block) {
  const event = { kind: "message", id: "", data: "" };
  for (const line of block.split("\n")) {
    const at = line.indexOf(":");
    const content = line.slice(at + 1).replace(/^ /, "");
    if (line.startsWith("event:")) event.kind = content;
    else if (line.startsWith("id:")) event.id = content;
    else if (line.startsWith("data:")) event.data += content;
  }
  if (!event.data && event.kind === "message") return null;
  return { ...event, data: event.data ? JSON.parse(event.data) : null };
}

/**
 * Watch changes and go on after interruptions, until `signal` ends it.
 * @param {{prefixes: string[], since?: string, signal: AbortSignal}} wanted
 * @param {(event: StreamEvent) => void} take
 * @param {(state: "connected" | "waiting", problem?: Problem) => void} tell
 */
export async function watch({ prefixes, since, signal }, take, tell) {
  let position = since ?? "";
  let pause = 500;
  while (!signal.aborted) {
    try {
      tell("connected");
      const parameters = [...prefixes.map((one) => `prefix=${encodeURIComponent(one)}`), ...(position ? [`since=${position}`] : [])];
      await stream(`/v1/watch${parameters.length ? `?${parameters.join("&")}` : ""}`, (event) => {
        pause = 500;
        if (event.id) position = event.id;
        take(event);
      }, signal);
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof Problem && error.status === 410) position = "";
      else if (error instanceof Problem && [400, 401, 403].includes(error.status)) {
        tell("waiting", error);
        return;
      }
      tell("waiting", error instanceof Problem ? error : undefined);
    }
    await new Promise((resolve) => setTimeout(resolve, pause));
    pause = Math.min(pause * 2, 5000);
  }
}
