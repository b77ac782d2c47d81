// The console: which view is shown, who is logged in, and the keys that work everywhere.

import { html, render, useEffect, useErrorBoundary, useState } from "./vendor/preact.js";
import { access, askJson, onAccess, setToken, token } from "./api.js";
import { Bulk, Info, Locks, Tokens } from "./admin.js";
import { Busy } from "./busy.js";
import { CopyAs } from "./copy.js";
import { Replay } from "./history.js";
import { Live } from "./live.js";
import { Metrics } from "./metrics.js";
import { Dialog } from "./parts.js";
import { SetAndGet } from "./seed.js";
import { Keys } from "./tree.js";
import { UndoBar } from "./undo.js";
import { Editor, inField, ValueView } from "./value.js";

const VIEWS = { keys: "Keys", seed: "Set and get", live: "Live", replay: "Replay", metrics: "Metrics", busy: "Busy", locks: "Locks", bulk: "Bulk", tokens: "Tokens", info: "Info" };
const EDITING = "keyrack-editing";
const SCHEME = "keyrack-scheme";

/** What the address says is shown. */
function place() {
  const [view, parameters = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const given = new URLSearchParams(parameters);
  return {
    view: view in VIEWS ? view : "keys",
    prefix: given.get("prefix") ?? "",
    key: given.get("key"),
    delimiter: given.get("delimiter") ?? "/",
  };
}

/** @param {ReturnType<typeof place>} to */
function address(to) {
  const parts = [];
  if (to.prefix) parts.push(`prefix=${encodeURIComponent(to.prefix)}`);
  if (to.delimiter !== "/") parts.push(`delimiter=${encodeURIComponent(to.delimiter)}`);
  if (to.key !== null) parts.push(`key=${encodeURIComponent(to.key)}`);
  return `#/${to.view}${parts.length ? `?${parts.join("&")}` : ""}`;
}

function App() {
  const [here, setHere] = useState(place());
  const [version, setVersion] = useState(0);
  const [undone, setUndone] = useState(0);
  const [editing, setEditing] = useState(sessionStorage.getItem(EDITING) === "1");
  const [dialog, setDialog] = useState("");
  const [creating, setCreating] = useState(/** @type {string | null} */ (null));
  const [who, setWho] = useState(/** @type {any} */ (undefined));
  const [login, setLogin] = useState(false);
  const [error, resetError] = useErrorBoundary();

  /** @param {Record<string, any>} change */
  const go = (change) => {
    if (change.refresh) setVersion((number) => number + 1);
    else if (change.create !== undefined) setCreating(change.create);
    else location.hash = address({ ...place(), ...change });
  };
  useEffect(() => {
    const moved = () => setHere(place());
    window.addEventListener("hashchange", moved);
    return () => window.removeEventListener("hashchange", moved);
  }, []);
  useEffect(() => {
    const look = async () => {
      setLogin(access.needed);
      if (access.needed) return;
      setWho(await whoAmI());
      setVersion((number) => number + 1);
    };
    look();
    return /** @type {() => void} */ (onAccess(look));
  }, []);
  useEffect(() => sessionStorage.setItem(EDITING, editing ? "1" : "0"), [editing]);
  useEffect(() => {
    /** @param {KeyboardEvent} event */
    const keyed = (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey || inField(event)) return;
      if (event.key === "/") {
        event.preventDefault();
        /** @type {HTMLInputElement | null} */ (document.getElementById("search"))?.select();
      } else if (event.key === "?") setDialog("help");
      else if (event.key === "Escape" && place().key !== null) go({ key: null });
    };
    document.addEventListener("keydown", keyed);
    return () => document.removeEventListener("keydown", keyed);
  }, []);
  useEffect(() => {
    document.title = here.key === null ? `${VIEWS[/** @type {keyof typeof VIEWS} */ (here.view)]} · Keyrack` : `${here.key} · Keyrack`;
  }, [here]);

  const mayWrite = !who || who.anonymous === undefined || mightWrite(who);
  const changed = () => setVersion((number) => number + 1);
  if (error) {
    return html`<main class="page"><div class="problem" role="alert"><strong>The console itself has failed</strong><p>${String(error.message)}</p><button onClick=${resetError}>Go on</button></div></main>`;
  }
  return html`<a class="skip" href="#main" onClick=${(/** @type {Event} */ event) => { event.preventDefault(); document.getElementById("main")?.focus(); }}>Skip to the content</a>
    <header class="top">
      <h1>Keyrack</h1>
      <nav aria-label="Views"><ul>${Object.entries(VIEWS).map(([name, title]) => html`<li><a href=${`#/${name}${here.prefix && ["keys", "live", "replay"].includes(name) ? `?prefix=${encodeURIComponent(here.prefix)}` : ""}`} aria-current=${here.view === name ? "page" : undefined}>${title}</a></li>`)}
        <li><a href="docs">API</a></li></ul></nav>
      <div class="top-tools">
        ${mayWrite && html`<label class="switch"><input type="checkbox" checked=${editing} onChange=${(/** @type {any} */ event) => setEditing(event.target.checked)} /> Edit</label>`}
        <button class="quiet" onClick=${() => setDialog("copy")}>Copy as</button>
        <${Scheme} />
        <button class="quiet" aria-label="Help: keys that work everywhere" onClick=${() => setDialog("help")}>?</button>
        ${token() ? html`<button class="quiet" onClick=${() => setToken("")}>Log out</button>` : who?.anonymous ? html`<button class="quiet" onClick=${() => setLogin(true)}>Log in</button>` : null}
      </div>
    </header>
    ${who === null && html`<p class="notice open" role="note">No access control: whoever reaches this service may read and change everything.</p>`}
    <${UndoBar} changed=${() => { changed(); setUndone((number) => number + 1); }} />
    <main id="main" tabindex=${here.view === "metrics" ? 0 : -1}>
      ${here.view === "keys" && html`<div class=${`split${here.key === null ? "" : " two"}`}>
        <${Keys} prefix=${here.prefix} selected=${here.key} delimiter=${here.delimiter} go=${go} version=${version} />
        ${here.key !== null && html`<${ValueView} name=${here.key} go=${go} editing=${editing} setEditing=${setEditing} mayWrite=${mayWrite} changed=${changed} undone=${undone} />`}</div>`}
      ${here.view === "seed" && html`<${SetAndGet} go=${go} />`}
      ${here.view === "live" && html`<${Live} key=${`${version} ${here.prefix}`} prefix=${here.prefix} go=${go} />`}
      ${here.view === "replay" && html`<${Replay} key=${`${version} ${here.prefix}`} prefix=${here.prefix} go=${go} />`}
      ${here.view === "metrics" && html`<${Metrics} key=${version} />`}
      ${here.view === "busy" && html`<${Busy} key=${version} />`}
      ${here.view === "locks" && html`<${Locks} key=${version} />`}
      ${here.view === "bulk" && html`<${Bulk} />`}
      ${here.view === "tokens" && html`<${Tokens} key=${version} who=${who} />`}
      ${here.view === "info" && html`<${Info} key=${version} />`}
    </main>
    ${creating !== null && html`<${NewKey} beginning=${creating} close=${() => setCreating(null)} made=${(/** @type {string} */ key) => { setCreating(null); changed(); go({ view: "keys", key }); }} />`}
    ${dialog === "help" && html`<${Help} close=${() => setDialog("")} />`}
    ${dialog === "copy" && html`<${CopyAs} close=${() => setDialog("")} />`}
    ${login && html`<${Login} close=${() => setLogin(false)} />`}`;
}

/** Who this page is to the server: null where there is no access control, undefined if unknown. */
async function whoAmI() {
  try {
    const { auth = "none" } = await askJson("GET", "/v1/info", undefined, { quiet: true });
    return auth === "none" ? null : await askJson("GET", "/v1/auth/self", undefined, { quiet: true });
  } catch {
    return undefined;
  }
}

/** Whether any rule of a token allows a write somewhere. @param {any} who */
function mightWrite(who) {
  const rules = (who.rules ?? []).map((/** @type {any} */ rule) => (typeof rule === "string" ? rule : rule.rule ?? ""));
  if (!rules.length) return true;
  return rules.some((/** @type {string} */ rule) => rule === "admin" || (!rule.startsWith("deny ") && /^(\S*,)?(set|write|all)(,\S*)? keys:/.test(rule)));
}

/** @param {any} given */
function NewKey({ beginning, close, made }) {
  const [name, setName] = useState(beginning);
  const base = { missing: true, type: "", size: 0, etag: "", endsAt: null, bytes: new Uint8Array(), from: 0 };
  return html`<${Dialog} title="New key" close=${close}>
    <label><span class="label">Key</span><input value=${name} spellcheck=${false} onInput=${(/** @type {any} */ event) => setName(event.target.value)} /></label>
    <${Editor} name=${name} base=${base} close=${close} saved=${() => made(name)} /><//>`;
}

/** @param {{close: () => void}} given */
function Login({ close }) {
  const [text, setText] = useState("");
  const [problem, setProblem] = useState("");
  const enter = async (/** @type {Event} */ event) => {
    event.preventDefault();
    setToken(text.trim());
    const { anonymous } = (await askJson("GET", "/v1/auth/self", undefined, { quiet: true }).catch(() => ({ anonymous: true })));
    if (anonymous) setProblem("The server does not accept this token.");
    else close();
  };
  return html`<${Dialog} title="Log in" close=${close}><form onSubmit=${enter}>
    <p>${access.reason || "Everything that you may do is decided by your token."} It is kept for this tab only, and forgotten when the tab is closed.</p>
    <label><span class="label">Token</span><input type="password" autocomplete="off" value=${text} placeholder="krk_…" onInput=${(/** @type {any} */ event) => setText(event.target.value)} /></label>
    ${problem && html`<p class="problem" role="alert">${problem}</p>`}
    <button class="primary">Log in</button></form><//>`;
}

const SCHEMES = { system: "System", light: "Light", dark: "Dark" };

function Scheme() {
  const [scheme, setScheme] = useState(localStorage.getItem(SCHEME) ?? "system");
  useEffect(() => {
    localStorage.setItem(SCHEME, scheme);
    document.documentElement.dataset.scheme = scheme;
  }, [scheme]);
  return html`<label><span class="hidden">Colours</span><select class="quiet" value=${scheme} onChange=${(/** @type {any} */ event) => setScheme(event.target.value)}>${Object.entries(SCHEMES).map(([name, title]) => html`<option value=${name}>${title}</option>`)}</select></label>`;
}

/** @param {{close: () => void}} given */
function Help({ close }) {
  const keys = [["/", "Jump to the search"], ["↑ ↓ Home End", "Move in the tree"], ["→ ←", "Open and close a folder"], ["Enter", "Show a key, open a folder"], ["e", "Edit the key that is shown"], ["u", "Undo the last deletion"], ["Ctrl+S", "Save"], ["Esc", "Close"], ["?", "This list"]];
  return html`<${Dialog} title="Keys" close=${close}><table class="table"><tbody>${keys.map(([key, what]) => html`<tr><th scope="row"><kbd>${key}</kbd></th><td>${what}</td></tr>`)}</tbody></table><//>`;
}

render(html`<${App} />`, /** @type {HTMLElement} */ (document.getElementById("app")));
