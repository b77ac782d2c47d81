// One key: its value in several forms, and the editor.

import { html, useEffect, useLayoutEffect, useReducer, useRef, useState } from "./vendor/preact.js";
import { ask, keyPath, Problem, remove, store, value } from "./api.js";
import { hexRows, left, seconds, size, visible } from "./format.js";
import { announcer, Countdown, Dialog, ProblemBox, useSeconds, useSignal, VirtualList } from "./parts.js";
import { KeyHistory } from "./history.js";
import { ThreeWays } from "./merge.js";
import { offerUndo, UNDO_SECONDS } from "./undo.js";

const FIRST = 64 * 1024;
const WHOLE = 256 * 1024;
const IMAGES = new Set(["image/png", "image/jpeg", "image/gif", "image/webp", "image/avif", "image/bmp"]);

/** @typedef {import("./api.js").Value} Value */

/** @param {Uint8Array} bytes @returns {string | null} */
function asText(bytes) {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return null;
  }
}

/** @param {Value} found */
function isWhole(found) {
  return found.from === 0 && found.bytes.length === found.size;
}

/** The form in which a value is shown first. @param {Value} found */
function formOf(found) {
  const type = found.type.split(";")[0].trim().toLowerCase();
  if (IMAGES.has(type)) return "image";
  if (type === "application/json" || type.endsWith("+json")) return "json";
  return type.startsWith("text/") || asText(found.bytes) !== null ? "text" : "hex";
}

/** @param {{name: string, go: (change: Record<string, any>) => void, editing: boolean, setEditing: (on: boolean) => void, mayWrite: boolean, changed: () => void, undone: number}} given */
export function ValueView({ name, go, editing, setEditing, mayWrite, changed, undone }) {
  const [found, setFound] = useState(/** @type {Value | null} */ (null));
  const [problem, setProblem] = useState(/** @type {any} */ (null));
  const [form, setForm] = useState("");
  const [tries, again] = useReducer((number) => number + 1, 0);
  const [draft, setDraft] = useState(false);
  const [deleting, setDeleting] = useState(false);
  useSeconds();
  /** @param {number} most @param {AbortSignal} [signal] */
  const load = async (most, signal) => {
    try {
      let got = await value(name, 0, most, signal);
      if (!got.missing && !isWhole(got) && got.size <= WHOLE) got = await value(name, 0, got.size, signal);
      setFound(got);
      setProblem(null);
      setForm((before) => before || (got.missing ? "" : formOf(got)));
    } catch (error) {
      if (!signal?.aborted) setProblem(error);
    }
  };
  useSignal((signal) => {
    setFound(null);
    setForm("");
    setDraft(false);
    load(FIRST, signal);
  }, [name]);
  useSignal((signal) => {
    if (tries || (undone && !draft)) load(FIRST, signal);
  }, [tries, undone]);
  // With the value, not after it is painted: who sees it may press the key at once.
  useLayoutEffect(() => {
    /** @param {KeyboardEvent} event */
    const keyed = (event) => {
      if (event.key !== "e" || event.ctrlKey || event.metaKey || event.altKey || inField(event)) return;
      event.preventDefault();
      if (mayWrite && found && !found.missing) {
        setEditing(true);
        setDraft(true);
      }
    };
    document.addEventListener("keydown", keyed);
    return () => document.removeEventListener("keydown", keyed);
  }, [found, mayWrite]);

  const text = found && !found.missing ? asText(found.bytes) : null;
  const forms = ["text", "json", "hex", ...(found && IMAGES.has(found.type.split(";")[0].trim().toLowerCase()) ? ["image"] : []), "history"];
  return html`<section class="value" aria-labelledby="value-title">
    <header class="value-head">
      <h2 id="value-title" tabindex="-1"><code>${visible(name)}</code></h2>
      <button class="quiet" aria-label="Close this key" onClick=${() => go({ key: null })}>✕</button>
    </header>
    <${ProblemBox} problem=${problem} again=${() => again(0)} />
    ${!found && !problem && html`<p role="status">Loading…</p>`}
    ${found?.missing && html`<p class="notice">There is no such key now. It may have been deleted or have ended: its history says which.</p>`}
    ${found && !found.missing && html`<dl class="facts">
      <div><dt>Type</dt><dd>${visible(found.type)}</dd></div><div><dt>Size</dt><dd>${size(found.size)}</dd></div>
      <div><dt>TTL</dt><dd><${Countdown} endsAt=${found.endsAt} /></dd></div><div><dt>ETag</dt><dd><code>${found.etag}</code></dd></div>
    </dl>`}
    ${found && html`<div class="tools">
      <div class="tabs" role="tablist" aria-label="Forms">${forms.map((one) => html`<button role="tab" id=${`tab-${one}`} aria-controls="form" aria-selected=${form === one} onClick=${() => setForm(one)}>${one}</button>`)}</div>
      <span class="grow"></span>
      <button onClick=${() => again(0)}>Reload</button>
      ${!found.missing && html`<button onClick=${() => download(name)}>Download</button>`}
      ${!found.missing && mayWrite && editing && html`<button onClick=${() => setDraft(true)} disabled=${draft}>Edit</button><button class="danger" onClick=${() => setDeleting(true)}>Delete</button>`}
      ${!found.missing && mayWrite && !editing && html`<button onClick=${() => { setEditing(true); setDraft(true); }}>Edit</button>`}
    </div>`}
    ${found && draft && html`<${Editor} name=${name} base=${found} close=${() => setDraft(false)} saved=${() => { setDraft(false); again(0); changed(); }} />`}
    ${found && !draft && html`<div id="form" role="tabpanel" aria-labelledby=${`tab-${form}`} tabindex="0" class="form">
      ${form === "history" || found.missing ? html`<${KeyHistory} name=${name} />` : null}
      ${!found.missing && form === "text" && html`<${Text} text=${text} />`}
      ${!found.missing && form === "json" && html`<${Json} text=${text} whole=${isWhole(found)} />`}
      ${!found.missing && form === "hex" && html`<${Hex} name=${name} found=${found} />`}
      ${!found.missing && form === "image" && html`<${Image} found=${found} />`}
      ${!found.missing && form !== "history" && form !== "hex" && !isWhole(found) && html`<p class="notice">These are the first ${size(found.bytes.length)} of ${size(found.size)}. <button onClick=${() => load(found.size)}>Show all of it</button></p>`}
    </div>`}
    ${deleting && found && html`<${Dialog} title="Delete this key?" close=${() => setDeleting(false)}>
      <p><code>${visible(name)}</code>, ${size(found.size)}. It is deleted only if nobody has changed it since it was shown.</p>
      <${DeleteButton} name=${name} etag=${found.etag} done=${() => { setDeleting(false); changed(); again(0); }} />
    <//>`}
  </section>`;
}

/** @param {any} given */
function DeleteButton({ name, etag, done }) {
  const [problem, setProblem] = useState(/** @type {any} */ (null));
  const act = () => remove(name, etag, UNDO_SECONDS).then((answer) => {
    done();
    offerUndo(name, answer);
  }, setProblem);
  return html`<${ProblemBox} problem=${problem} /><button class="danger" onClick=${act}>Delete</button>`;
}

/** Whether a key was pressed in something to type in. @param {KeyboardEvent} event */
export function inField(event) {
  const node = /** @type {HTMLElement} */ (event.target);
  return ["INPUT", "TEXTAREA", "SELECT"].includes(node.tagName) || node.isContentEditable || document.querySelector("dialog[open]") !== null;
}

/** @param {{text: string | null}} given */
function Text({ text }) {
  if (text === null) return html`<p class="notice">This is not text in UTF-8. Look at it as hex.</p>`;
  return html`<pre class="text">${text}</pre>`;
}

/** @param {{text: string | null, whole: boolean}} given */
function Json({ text, whole }) {
  if (text === null) return html`<p class="notice">This is not text in UTF-8. Look at it as hex.</p>`;
  if (!whole) return html`<p class="notice">Only a whole value can be read as JSON.</p><${Text} text=${text} />`;
  try {
    JSON.parse(text);
  } catch (error) {
    return html`<p class="notice">This is no JSON: ${String(/** @type {Error} */ (error).message)}</p><${Text} text=${text} />`;
  }
  return html`<div class="json"><${JsonNode} source=${text.trim()} depth=${0} name=${null} /></div>`;
}

/**
 * The members of a JSON object or the items of an array, each as its own text: numbers stay as they
 * are written, members that repeat are all there.
 * @param {string} source
 */
export function partsOf(source) {
  /** @type {{name: string | null, source: string}[]} */
  const parts = [];
  const isObject = source[0] === "{";
  let depth = 0;
  let from = 1;
  let colon = -1;
  for (let at = 0; at < source.length; at += 1) {
    const one = source[at];
    if (one === '"') at = endOfString(source, at);
    else if (one === "{" || one === "[") depth += 1;
    else if (one === ":" && depth === 1 && colon < 0) colon = at;
    if (one === "}" || one === "]") depth -= 1;
    if ((one === "," && depth === 1) || (depth === 0 && at > 0)) {
      const name = isObject && colon > 0 ? JSON.parse(source.slice(from, colon)) : null;
      const content = source.slice(isObject && colon > 0 ? colon + 1 : from, at).trim();
      if (content) parts.push({ name, source: content });
      from = at + 1;
      colon = -1;
      if (depth === 0) break;
    }
  }
  return parts;
}

/** @param {string} source @param {number} at */
function endOfString(source, at) {
  for (let index = at + 1; ; index += 1) {
    if (source[index] === "\\") index += 1;
    else if (source[index] === '"' || index >= source.length) return index;
  }
}

const FOLDED = "keyrack-json-depth";
const MOST_PARTS = 200;

/** @param {{source: string, depth: number, name: string | null}} given */
function JsonNode({ source, depth, name }) {
  const openTo = Number(localStorage.getItem(FOLDED) ?? 2);
  const [open, setOpen] = useState(depth < openTo);
  const [most, setMost] = useState(MOST_PARTS);
  const label = name === null ? null : html`<span class="json-name">${JSON.stringify(name)}: </span>`;
  if (source[0] !== "{" && source[0] !== "[") {
    const kind = source[0] === '"' ? "string" : /[-\d]/.test(source[0]) ? "number" : "word";
    return html`<div class="json-leaf">${label}<span class=${`json-${kind}`}>${source}</span></div>`;
  }
  const parts = open ? partsOf(source) : [];
  const [first, last] = source[0] === "{" ? "{}" : "[]";
  const fold = () => {
    setOpen(!open);
    localStorage.setItem(FOLDED, String(open ? depth : Math.max(openTo, depth + 1)));
  };
  return html`<div class="json-node"><button class="quiet fold" aria-expanded=${open} onClick=${fold}>${open ? "▾" : "▸"}</button>${label}${first}${open ? "" : html`<span class="dim"> … </span>${last}`}
    ${open && html`<div class="json-parts">${parts.slice(0, most).map((part) => html`<${JsonNode} source=${part.source} name=${part.name} depth=${depth + 1} />`)}
      ${parts.length > most && html`<button onClick=${() => setMost(most * 10)}>${parts.length - most} more</button>`}</div>${last}`}
  </div>`;
}

const HEX_PAGE = 16 * 1024;

/** Rows of 16 bytes; pages are fetched as they come into sight. @param {{name: string, found: Value}} given */
function Hex({ name, found }) {
  const pages = useRef(/** @type {Map<number, Uint8Array | "coming">} */ (new Map()));
  const [, render] = useReducer((number) => number + 1, 0);
  useEffect(() => {
    pages.current.clear();
    for (let at = 0; at < found.bytes.length; at += HEX_PAGE) pages.current.set(at, found.bytes.subarray(at, at + HEX_PAGE));
    if (!isWhole(found)) pages.current.delete(Math.floor(found.bytes.length / HEX_PAGE) * HEX_PAGE);
    render(0);
  }, [found]);
  /** @param {number} start */
  const fetchPage = async (start) => {
    pages.current.set(start, "coming");
    try {
      pages.current.set(start, (await value(name, start, HEX_PAGE)).bytes);
    } catch {
      pages.current.delete(start);
    }
    render(0);
  };
  const rows = Math.ceil(found.size / 16);
  /** @param {number} index */
  const row = (index) => {
    const start = Math.floor((index * 16) / HEX_PAGE) * HEX_PAGE;
    const bytes = pages.current.get(start);
    if (!bytes) fetchPage(start);
    if (!bytes || bytes === "coming") return html`<div class="hex-row" role="listitem">…</div>`;
    const [shown] = hexRows(bytes.subarray(index * 16 - start, index * 16 - start + 16), index * 16);
    return html`<div class="hex-row" role="listitem"><span class="dim">${shown?.offset}</span>  ${shown?.codes}  <span class="hex-text">${shown?.text}</span></div>`;
  };
  return html`<${VirtualList} rows=${rows} height=${20} row=${row} label="Bytes in hexadecimal" />`;
}

/** @param {{found: Value}} given */
function Image({ found }) {
  const [address, setAddress] = useState("");
  useEffect(() => {
    if (!isWhole(found)) return undefined;
    const made = URL.createObjectURL(new Blob([/** @type {BlobPart} */ (found.bytes)], { type: found.type.split(";")[0] }));
    setAddress(made);
    return () => URL.revokeObjectURL(made);
  }, [found]);
  return address ? html`<img class="picture" src=${address} alt="The value as a picture" />` : null;
}

/** @param {string} name */
async function download(name) {
  const path = keyPath(name);
  const bytes = path === null ? (await value(name, 0, Infinity)).bytes : await (await ask("GET", path)).blob();
  const made = URL.createObjectURL(bytes instanceof Blob ? bytes : new Blob([/** @type {BlobPart} */ (bytes)]));
  const link = document.createElement("a");
  link.href = made;
  link.download = name.split("/").pop()?.replace(/[^\w.-]/g, "_") || "value";
  link.click();
  URL.revokeObjectURL(made);
}

/**
 * The editor. `base` is what was shown; with `base.missing` a key is made.
 * @param {{name: string, base: Value, close: () => void, saved: (etag: string) => void}} given
 */
export function Editor({ name, base, close, saved }) {
  const whole = base.missing || isWhole(base);
  const before = base.missing ? "" : asText(base.bytes);
  const [text, setText] = useState(before ?? "");
  const [type, setType] = useState(base.missing ? "text/plain; charset=utf-8" : base.type);
  const [ttl, setTtl] = useState(base.endsAt === null ? "none" : "keep");
  const [span, setSpan] = useState("");
  const [problem, setProblem] = useState(/** @type {any} */ (null));
  const [theirs, setTheirs] = useState(/** @type {Value | null} */ (null));
  const [etag, setEtag] = useState(base.missing ? null : base.etag);
  const area = useRef(/** @type {HTMLTextAreaElement | null} */ (null));
  useEffect(() => area.current?.focus(), []);
  const isJson = /^application\/json\b|\+json\b/i.test(type);
  const wrong = isJson && jsonProblem(text);

  const save = async () => {
    if (wrong) {
      setProblem(new Error(wrong));
      return;
    }
    try {
      const stored = await store(name, text, { type, ttl: secondsOf(ttl, span, base.endsAt), etag });
      announcer.say("Saved");
      saved(stored);
    } catch (error) {
      if (error instanceof Problem && error.status === 412) setTheirs(await value(name, 0, WHOLE));
      else setProblem(error);
    }
  };
  /** @param {KeyboardEvent} event */
  const keyed = (event) => {
    if ((event.ctrlKey || event.metaKey) && event.key === "s") {
      event.preventDefault();
      save();
    } else if (event.key === "Escape" && !theirs) close();
  };
  if (!whole) return html`<p class="notice">This value is too long for the editor (${size(base.size)}). Download it, change it, and store it with curl.</p><button onClick=${close}>Close</button>`;
  if (before === null) return html`<p class="notice">This is not text in UTF-8, and the editor is for text. Download it, change it, and store it with curl.</p><button onClick=${close}>Close</button>`;
  if (theirs) {
    return html`<${ThreeWays} base=${before} yours=${text} theirs=${theirs.missing ? null : asText(theirs.bytes) ?? "(bytes that are not text)"}
      choose=${(/** @type {string} */ chosen) => { setText(chosen); setEtag(theirs.missing ? null : theirs.etag); setTheirs(null); setProblem(null); }} close=${close} />`;
  }
  return html`<form class="editor" onKeyDown=${keyed} onSubmit=${(/** @type {Event} */ event) => { event.preventDefault(); save(); }}>
    <${ProblemBox} problem=${problem} />
    <label class="label" for="editor-text">Value</label>
    <textarea id="editor-text" ref=${area} value=${text} spellcheck=${false} onInput=${(/** @type {any} */ event) => setText(event.target.value)}></textarea>
    ${wrong && html`<p class="notice" role="status">${wrong}</p>`}
    <div class="bar">
      <label><span class="label">Media type</span><input list="types" value=${type} onInput=${(/** @type {any} */ event) => setType(event.target.value)} /></label>
      <datalist id="types"><option value="text/plain; charset=utf-8" /><option value="application/json" /><option value="application/octet-stream" /></datalist>
      <label><span class="label">TTL</span><select value=${ttl} onChange=${(/** @type {any} */ event) => setTtl(event.target.value)}>
        ${base.endsAt !== null && html`<option value="keep">keep (${left(base.endsAt - performance.now())})</option>`}
        <option value="none">none</option><option value="set">set…</option></select></label>
      ${ttl === "set" && html`<label><span class="label">Ends in</span><input class="short" value=${span} placeholder="90s, 5m, 1h" onInput=${(/** @type {any} */ event) => setSpan(event.target.value)} /></label>`}
      <span class="grow"></span>
      <button type="button" onClick=${close}>Cancel</button>
      <button class="primary" title="Ctrl+S">Save</button>
    </div>
  </form>`;
}

/** @param {string} ttl @param {string} span @param {number | null} endsAt */
function secondsOf(ttl, span, endsAt) {
  if (ttl === "none") return null;
  if (ttl === "keep") return endsAt === null ? null : Math.max(0.001, Number(((endsAt - performance.now()) / 1000).toFixed(3)));
  const found = seconds(span);
  if (!(found >= 0.001)) throw new Error("A TTL is a number of seconds, or like 90s, 5m, 1h, 2d.");
  return found;
}

/** What is wrong with a text that should be JSON, or "". @param {string} text */
function jsonProblem(text) {
  try {
    JSON.parse(text);
    return "";
  } catch (error) {
    return `This is no JSON: ${/** @type {Error} */ (error).message}`;
  }
}

