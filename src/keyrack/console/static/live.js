// Changes as they happen.

import { html, useRef, useState } from "./vendor/preact.js";
import { watch } from "./api.js";
import { clock, count, visible } from "./format.js";
import { announcer, ProblemBox, useSeconds, useSignal, VirtualList } from "./parts.js";

const MOST = 5000;
const ROW = 28;

/** @param {{prefix: string, go: (change: Record<string, any>) => void}} given */
export function Live({ prefix, go }) {
  const [text, setText] = useState(prefix);
  const [paused, setPaused] = useState(false);
  const [state, setState] = useState({ name: "connecting", problem: /** @type {any} */ (null) });
  const events = useRef(/** @type {{id: string, kind: string, key: string, at: Date, arrived: number}[]} */ ([]));
  const held = useRef(/** @type {typeof events.current | null} */ (null));
  const times = useRef(/** @type {number[]} */ ([]));
  const total = useRef(0);
  const [, render] = useState(0);
  useSeconds();
  useSignal((signal) => {
    events.current = [];
    total.current = 0;
    let timer = 0;
    watch({ prefixes: prefix ? [prefix] : [], signal }, (event) => {
      if (event.kind === "synced" || event.kind === "bookmark") return;
      const key = event.data?.key ?? "";
      const now = performance.now();
      times.current.push(now);
      total.current += 1;
      events.current.unshift({ id: event.id, kind: event.kind, key, at: event.data?.time ? new Date(event.data.time) : new Date(), arrived: now });
      if (events.current.length > MOST) events.current.length = MOST;
      announcer.say(`${event.kind} ${visible(key)}`);
      timer ||= window.setTimeout(() => {
        timer = 0;
        render((number) => number + 1);
      }, 100);
    }, (name, problem) => setState({ name, problem: problem ?? null }));
  }, [prefix]);
  const pause = () => {
    held.current = paused ? null : events.current.slice();
    setPaused(!paused);
  };
  const now = performance.now();
  times.current = times.current.filter((time) => time > now - 10000);
  const rows = held.current ?? events.current;
  /** @param {number} index */
  const row = (index) => {
    const one = rows[index];
    return html`<div class=${`event-row${now - one.arrived < 1500 ? ` flash-${one.kind === "set" ? "set" : "gone"}` : ""}`} role="listitem" key=${`${one.id} ${one.key}`}>
      <span class="number dim">${clock(one.at)}</span><span class=${`kind kind-${one.kind}`}>${one.kind}</span>
      <button class="link" onClick=${() => go({ view: "keys", key: one.key })}>${visible(one.key)}</button><span class="number dim">${one.id}</span></div>`;
  };
  return html`<section class="page tall" aria-labelledby="live-title"><h2 id="live-title">Live</h2>
    <form class="bar" onSubmit=${(/** @type {Event} */ event) => { event.preventDefault(); go({ prefix: text }); }}>
      <label class="grow"><span class="label">Prefix</span><input id="search" type="search" value=${text} spellcheck=${false} onInput=${(/** @type {any} */ event) => setText(event.target.value)} /></label>
      <button>Watch</button><button type="button" aria-pressed=${paused} onClick=${pause}>${paused ? "Go on" : "Pause"}</button>
    </form>
    <p role="status" class="foot">${state.name === "connected" ? "Watching" : "Not connected; trying again"} ${prefix ? html`<code>${visible(prefix)}</code>` : "all keys"} · ${(times.current.length / 10).toFixed(1)} changes a second · ${count(total.current)} since this began${paused ? html` · <strong>paused</strong>` : ""}</p>
    <${ProblemBox} problem=${state.problem} />
    ${!rows.length && html`<p class="empty">Nothing has changed since this began. Set a key, and it appears here.</p>`}
    <${VirtualList} rows=${rows.length} height=${ROW} row=${row} label="Changes, newest first" />
  </section>`;
}
