// Where did my key go, and what happened under a prefix: from the log of changes. Values are not in it.

import { html, useEffect, useMemo, useRef, useState } from "./vendor/preact.js";
import { askJson, keyPath, query, stream } from "./api.js";
import { count, moment, visible } from "./format.js";
import { announcer, ProblemBox, useSignal, VirtualList } from "./parts.js";

const MOST = 100000;

/** @param {{name: string}} given */
export function KeyHistory({ name }) {
  const [found, setFound] = useState(/** @type {any} */ (null));
  const [problem, setProblem] = useState(/** @type {any} */ (null));
  useSignal((signal) => {
    const path = keyPath(name, "/v1/events/");
    if (path === null) return;
    askJson("GET", path, undefined, { signal }).then(setFound, (error) => signal.aborted || setProblem(error));
  }, [name]);
  if (problem) return html`<${ProblemBox} problem=${problem} />`;
  if (!found) return html`<p role="status">Loading…</p>`;
  if (!found.events.length) return html`<p class="notice">The log of changes does not mention this key. It keeps the latest changes only.</p>`;
  return html`<table class="table"><caption class="label">The latest changes of this key; values are not kept</caption>
    <thead><tr><th>When</th><th>What</th><th>Revision</th></tr></thead>
    <tbody>${found.events.map((/** @type {any} */ one) => html`<tr><td class="number">${moment(new Date(one.time))}</td><td><span class=${`kind kind-${one.event}`}>${one.event}</span></td><td class="number dim">${one.revision}</td></tr>`)}</tbody></table>`;
}

/** @typedef {{kind: string, key: string, revision: string, time: number}} Change */

/**
 * All changes of a prefix that the log still has, oldest first.
 * @param {string} prefix
 * @param {AbortSignal} signal
 * @returns {Promise<Change[]>}
 */
async function changesOf(prefix, signal) {
  const oldest = (await askJson("GET", "/v1/info", undefined, { signal, quiet: true })).oldest_revision;
  const controller = new AbortController();
  signal.addEventListener("abort", () => controller.abort());
  /** @type {Change[]} */
  const found = [];
  const since = oldest ?? (await oldestOf(prefix, signal));
  try {
    await stream(`/v1/watch${query({ prefix, since })}`, (event) => {
      if (event.kind === "synced" || found.length >= MOST) controller.abort();
      else if (event.data?.key !== undefined) found.push({ kind: event.kind, key: event.data.key, revision: event.id, time: Date.parse(event.data.time) || event.data.time });
    }, controller.signal);
  } catch (error) {
    if (!controller.signal.aborted || signal.aborted) throw error;
  }
  return found;
}

/** The first position that can still be resumed: a refusal tells it. @param {string} prefix @param {AbortSignal} signal */
async function oldestOf(prefix, signal) {
  const controller = new AbortController();
  signal.addEventListener("abort", () => controller.abort());
  try {
    await stream(`/v1/watch${query({ prefix, since: "1" })}`, () => controller.abort(), controller.signal);
  } catch (error) {
    const body = /** @type {any} */ (error).body;
    if (body?.oldest) return body.oldest;
    if (!controller.signal.aborted) throw error;
  }
  return "1";
}

/** @param {{prefix: string, go: (change: Record<string, any>) => void}} given */
export function Replay({ prefix, go }) {
  const [text, setText] = useState(prefix);
  const [changes, setChanges] = useState(/** @type {Change[] | null} */ (null));
  const [problem, setProblem] = useState(/** @type {any} */ (null));
  const [at, setAt] = useState(0);
  const [from, setFrom] = useState(0);
  const [speed, setSpeed] = useState(10);
  const [playing, setPlaying] = useState(false);
  useSignal((signal) => {
    setChanges(null);
    setProblem(null);
    changesOf(prefix, signal).then((found) => {
      setChanges(found);
      setAt(found.length);
      setFrom(0);
    }, (error) => signal.aborted || setProblem(error));
  }, [prefix]);
  const position = useRef(at);
  position.current = at;
  useEffect(() => {
    if (!playing || !changes) return undefined;
    const start = position.current >= changes.length ? 0 : position.current;
    setAt(start);
    const began = performance.now();
    const first = changes[start]?.time ?? 0;
    const timer = setInterval(() => {
      const now = first + (performance.now() - began) * speed;
      let next = position.current;
      while (next < changes.length && changes[next].time <= now) next += 1;
      setAt(next);
      if (next >= changes.length) {
        setPlaying(false);
        announcer.say("The replay has ended");
      }
    }, 50);
    return () => clearInterval(timer);
  }, [playing, speed, changes]);
  const states = useMemo(() => (changes ? difference(changes, from, at) : []), [changes, from, at]);
  const current = changes?.[at - 1];
  /** @param {number} index */
  const row = (index) => {
    const one = states[index];
    return html`<div class="event-row replay-row" role="listitem"><span class=${`kind kind-${one.kind}`}>${one.kind}</span><button class="link" onClick=${() => go({ view: "keys", key: one.key })}>${visible(one.key)}</button><span class="number dim">${count(one.times)} ×</span><span class="number dim">${one.revision}</span></div>`;
  };
  return html`<section class="page tall" aria-labelledby="replay-title"><h2 id="replay-title">Replay</h2>
    <form class="bar" onSubmit=${(/** @type {Event} */ event) => { event.preventDefault(); go({ prefix: text }); }}>
      <label class="grow"><span class="label">Prefix</span><input id="search" type="search" value=${text} spellcheck=${false} onInput=${(/** @type {any} */ event) => setText(event.target.value)} /></label><button>Show</button>
    </form>
    <${ProblemBox} problem=${problem} />
    ${!changes && !problem && html`<p role="status">Reading the log…</p>`}
    ${changes && !changes.length && html`<p class="empty">The log of changes has nothing of ${prefix ? html`<code>${visible(prefix)}</code>` : "this store"}.</p>`}
    ${changes && changes.length > 0 && html`
      <div class="bar">
        <button class="primary" aria-pressed=${playing} onClick=${() => setPlaying(!playing)}>${playing ? "Pause" : "Play"}</button>
        <label><span class="label">Speed</span><select value=${speed} onChange=${(/** @type {any} */ event) => setSpeed(Number(event.target.value))}>${[1, 10, 60, 600, 3600].map((one) => html`<option value=${one}>${one} ×</option>`)}</select></label>
        <label class="grow"><span class="label">Moment: ${current ? moment(new Date(current.time)) : "before all of it"}</span>
          <input type="range" min="0" max=${changes.length} value=${at} onInput=${(/** @type {any} */ event) => { setPlaying(false); setAt(Number(event.target.value)); }} /></label>
        <button onClick=${() => setFrom(at)}>Compare from here</button>
        ${from > 0 && html`<button onClick=${() => setFrom(0)}>Compare from the beginning</button>`}
      </div>
      <p class="foot" role="status">Change ${count(at)} of ${count(changes.length)}. Below: what became of each key between ${from > 0 ? `change ${count(from)}` : "the beginning of the log"} and this moment. The log keeps keys and moments, no values.</p>
      <${VirtualList} rows=${states.length} height=${28} row=${row} label="Keys that changed" />`}
  </section>`;
}

/**
 * What became of each key between two positions: its last change, and how many there were.
 * @param {Change[]} changes
 * @param {number} from
 * @param {number} to
 */
export function difference(changes, from, to) {
  /** @type {Map<string, {key: string, kind: string, revision: string, times: number}>} */
  const last = new Map();
  for (const { key, kind, revision } of changes.slice(Math.min(from, to), Math.max(from, to))) {
    last.set(key, { key, kind, revision, times: (last.get(key)?.times ?? 0) + 1 });
  }
  return [...last.values()].sort((a, b) => (a.key < b.key ? -1 : 1));
}
