// The keys, a level at a time. Each level is pages of the server; only rows in sight are in the page.

import { html, useEffect, useLayoutEffect, useMemo, useReducer, useRef, useState } from "./vendor/preact.js";
import { page, watch } from "./api.js";
import { count, size, visible } from "./format.js";
import { announcer, Countdown, ProblemBox, useSeconds, useSignal, VirtualList } from "./parts.js";

const ROW = 28;
const PAGE = 200;

/**
 * @typedef {{rows: Node[], next: string | null, loading: boolean, problem: any, filtered: boolean}} Level
 * @typedef {{path: string, folder: boolean, entry?: import("./api.js").Entry, endsAt?: number | null}} Node
 * @typedef {{node: Node | null, level: number, parent: string, more?: boolean, position: number, of: number}} Row
 */

/** The levels that were fetched, by their prefix. */
class Levels {
  /** @param {string} delimiter @param {() => void} changed */
  constructor(delimiter, changed) {
    this.delimiter = delimiter;
    this.changed = changed;
    /** @type {Map<string, Level>} */
    this.known = new Map();
    this.open = new Set();
  }

  /** Fetch the next page of a level. @param {string} prefix */
  async more(prefix) {
    const level = this.known.get(prefix) ?? { rows: [], next: "", loading: false, problem: null, filtered: false };
    if (level.loading || level.next === null) return;
    level.loading = true;
    level.problem = null;
    this.known.set(prefix, level);
    this.changed();
    try {
      const found = await page({ prefix, after: level.next, limit: PAGE, delimiter: this.delimiter });
      level.rows = level.rows.concat(nodes(found));
      level.next = found.next;
      level.filtered ||= found.filtered;
    } catch (problem) {
      level.problem = problem;
    }
    level.loading = false;
    this.changed();
  }

  /** @param {string} prefix */
  toggle(prefix) {
    if (this.open.has(prefix)) this.open.delete(prefix);
    else {
      this.open.add(prefix);
      if (!this.known.has(prefix)) this.more(prefix);
    }
    this.changed();
  }

  /** All rows that are open, in order. @param {string} prefix @param {number} depth @returns {Row[]} */
  rows(prefix, depth = 1) {
    const level = this.known.get(prefix);
    if (!level) return [];
    /** @type {Row[]} */
    const found = [];
    const of = level.next === null ? level.rows.length : -1;
    level.rows.forEach((node, position) => {
      found.push({ node, level: depth, parent: prefix, position: position + 1, of });
      if (node.folder && this.open.has(node.path)) for (const row of this.rows(node.path, depth + 1)) found.push(row);
    });
    if (level.next !== null || level.loading || level.problem) found.push({ node: null, level: depth, parent: prefix, more: true, position: level.rows.length + 1, of });
    return found;
  }
}

/** Folders and keys of a page, in the order of their bytes. @param {import("./api.js").Page} found @returns {Node[]} */
function nodes(found) {
  const now = performance.now();
  const keys = found.keys.map((entry) => ({
    path: entry.key, folder: false, entry, endsAt: entry.ttl === undefined || entry.ttl === null ? null : now + entry.ttl * 1000,
  }));
  const folders = found.folders.map((path) => ({ path, folder: true }));
  if (!folders.length) return keys;
  return [...folders, ...keys].sort((a, b) => byBytes(a.path, b.path));
}

const encoder = new TextEncoder();

/** @param {string} a @param {string} b */
function byBytes(a, b) {
  const [x, y] = [encoder.encode(a), encoder.encode(b)];
  for (let at = 0; at < Math.min(x.length, y.length); at += 1) if (x[at] !== y[at]) return x[at] - y[at];
  return x.length - y.length;
}

/**
 * @param {{prefix: string, selected: string | null, delimiter: string, go: (change: Record<string, any>) => void, version: number}} given
 *   `version` changes when the keys should be fetched anew.
 */
export function Keys({ prefix, selected, delimiter, go, version }) {
  const [, render] = useReducer((number) => number + 1, 0);
  const [focus, setFocus] = useState(0);
  const [filter, setFilter] = useState("");
  const [live, setLive] = useState(false);
  const flashes = useRef(/** @type {Map<string, string>} */ (new Map()));
  const list = useRef(/** @type {HTMLElement | null} */ (null));
  const wantsFocus = useRef(false);
  const levels = useMemo(() => new Levels(delimiter, () => render(0)), [prefix, delimiter, version]);
  useSeconds();
  useEffect(() => {
    setFocus(0);
    levels.more(prefix);
  }, [levels]);
  useSignal((signal) => {
    if (live) follow(prefix, levels, flashes.current, () => render(0), signal);
  }, [live, levels]);
  const all = levels.rows(prefix);
  const needle = filter.toLowerCase();
  const rows = filter ? all.filter((row) => row.node && row.node.path.slice(row.parent.length).toLowerCase().includes(needle)) : all;
  const at = Math.min(focus, Math.max(0, rows.length - 1));
  const hadFocus = document.activeElement?.getAttribute("role") === "treeitem";
  useLayoutEffect(() => {
    // A row that had the focus may be gone now, as "Loading…" is when its keys are there.
    if (!wantsFocus.current && !(hadFocus && document.activeElement === document.body)) return;
    wantsFocus.current = false;
    /** @type {HTMLElement | null | undefined} */ (list.current?.querySelector('[tabindex="0"][role="treeitem"]'))?.focus();
  });
  const level = levels.known.get(prefix);
  const empty = level && !level.loading && !level.problem && !level.rows.length;

  /** @param {number} to */
  const move = (to) => {
    wantsFocus.current = true;
    setFocus(Math.max(0, Math.min(rows.length - 1, to)));
  };
  /** @param {Row} row */
  const choose = (row) => {
    if (row.more) levels.more(row.parent);
    else if (row.node?.folder) levels.toggle(row.node.path);
    else if (row.node) go({ key: row.node.path });
  };
  /** @param {KeyboardEvent} event */
  const keyed = (event) => {
    const row = rows[at];
    if (!row || event.ctrlKey || event.metaKey || event.altKey) return;
    const open = row.node?.folder && levels.open.has(row.node.path);
    /** @type {Record<string, () => void>} */
    const acts = {
      ArrowDown: () => move(at + 1),
      ArrowUp: () => move(at - 1),
      Home: () => move(0),
      End: () => move(rows.length - 1),
      PageDown: () => move(at + 15),
      PageUp: () => move(at - 15),
      Enter: () => choose(row),
      " ": () => choose(row),
      ArrowRight: () => (row.node?.folder && !open ? levels.toggle(row.node.path) : move(at + 1)),
      ArrowLeft: () => (open && row.node ? levels.toggle(row.node.path) : move(rows.findIndex((one) => one.node?.path === row.parent))),
    };
    if (!acts[event.key]) return;
    event.preventDefault();
    acts[event.key]();
  };

  return html`<section class="keys" aria-label="Keys" ref=${list}>
    <${Bar} prefix=${prefix} delimiter=${delimiter} go=${go} filter=${filter} setFilter=${setFilter} live=${live} setLive=${setLive} refresh=${() => go({ refresh: true })} />
    <${Crumbs} prefix=${prefix} delimiter=${delimiter} go=${go} />
    ${level?.filtered && html`<p class="notice" role="status">This token may see only a part of these keys. What it may not see is not shown.</p>`}
    ${level?.problem && !level.rows.length ? html`<${ProblemBox} problem=${level.problem} again=${() => levels.more(prefix)} />` : null}
    ${empty && html`<p class="empty">No key begins with ${prefix ? html`<code>${visible(prefix)}</code>` : "anything yet"}. <button onClick=${() => go({ create: prefix })}>Make one</button></p>`}
    <div class="tree-head" aria-hidden="true"><span>Key</span><span>Type</span><span>Size</span><span>TTL</span><span>Revision</span></div>
    <${VirtualList} rows=${rows.length} height=${ROW} role="tree" label=${prefix ? `Keys that begin with ${visible(prefix)}` : "All keys"} show=${at} onKeyDown=${keyed}
      reach=${(/** @type {number} */ last) => !filter && rows[last]?.more && !levels.known.get(rows[last].parent)?.problem && levels.more(rows[last].parent)}
      row=${(/** @type {number} */ index) => html`<${TreeRow} key=${rowName(rows[index])} row=${rows[index]} level=${levels.known.get(rows[index].parent)} open=${levels.open} chosen=${selected}
        focused=${index === at} flash=${flashes.current.get(rows[index].node?.path ?? "")} act=${() => { setFocus(index); choose(rows[index]); }} go=${go} />`} />
    <p class="foot">${count(all.filter((row) => row.node).length)} shown${filter ? `, ${count(rows.length)} match` : ""}${level?.next ? ", more on the server" : ""}</p>
  </section>`;
}

/** @param {Row} row */
function rowName(row) {
  return row.more ? `more ${row.parent}` : `${row.node?.folder ? "folder" : "key"} ${row.node?.path}`;
}

/** @param {any} given */
function Bar({ prefix, delimiter, go, filter, setFilter, live, setLive, refresh }) {
  const [text, setText] = useState(prefix);
  useEffect(() => setText(prefix), [prefix]);
  return html`<form class="bar" role="search" onSubmit=${(/** @type {Event} */ event) => { event.preventDefault(); go({ prefix: text, key: null }); }}>
    <label class="grow"><span class="label">Prefix</span><input id="search" type="search" value=${text} onInput=${(/** @type {any} */ event) => setText(event.target.value)} placeholder="app/users/" spellcheck=${false} autocomplete="off" /></label>
    <button>Go</button>
    <label><span class="label">Folders end with</span><select value=${delimiter} onChange=${(/** @type {any} */ event) => go({ delimiter: event.target.value })}>
      <option value="/">/</option><option value=":">:</option><option value=".">.</option><option value="">(no folders)</option></select></label>
    <label><span class="label">Filter what is shown</span><input type="search" class="short" value=${filter} onInput=${(/** @type {any} */ event) => setFilter(event.target.value)} spellcheck=${false} /></label>
    <label class="switch"><input type="checkbox" checked=${live} onChange=${(/** @type {any} */ event) => setLive(event.target.checked)} /> Live</label>
    <button type="button" onClick=${refresh}>Refresh</button>
    <button type="button" onClick=${() => go({ create: prefix })}>New key</button>
  </form>`;
}

/** @param {any} given */
function Crumbs({ prefix, delimiter, go }) {
  const parts = delimiter && prefix ? prefix.split(delimiter) : [];
  /** @type {{name: string, path: string}[]} */
  const steps = [];
  let path = "";
  parts.forEach((/** @type {string} */ part, /** @type {number} */ index) => {
    path += part + (index < parts.length - 1 ? delimiter : "");
    if (part || index < parts.length - 1) steps.push({ name: part + (index < parts.length - 1 ? delimiter : ""), path });
  });
  return html`<nav class="crumbs" aria-label="Where this is"><ol>
    <li><a href="#/keys" onClick=${(/** @type {Event} */ event) => { event.preventDefault(); go({ prefix: "", key: null }); }}>All keys</a></li>
    ${steps.map((step) => html`<li><a href=${`#/keys?prefix=${encodeURIComponent(step.path)}`} aria-current=${step.path === prefix ? "page" : undefined}>${visible(step.name)}</a></li>`)}
  </ol></nav>`;
}

/** @param {any} given */
function TreeRow({ row, level, open, chosen, focused, flash, act, go }) {
  const indent = { paddingInlineStart: `${(row.level - 1) * 18 + 6}px` };
  if (row.more) {
    const text = level?.problem ? `That page did not come: ${level.problem.message} Try again` : level?.loading ? "Loading…" : "More";
    return html`<div class="tree-row more" role="treeitem" aria-level=${row.level} aria-posinset=${row.position} aria-setsize=${row.of} tabindex=${focused ? 0 : -1} onClick=${act}><span style=${indent}>${text}</span></div>`;
  }
  const { node } = row;
  const name = visible(node.path.slice(row.parent.length)) || "(the prefix itself)";
  const isOpen = node.folder && open.has(node.path);
  const entry = node.entry;
  return html`<div class=${`tree-row${flash ? ` flash-${flash}` : ""}`} role="treeitem" aria-level=${row.level} aria-posinset=${row.position} aria-setsize=${row.of}
      aria-expanded=${node.folder ? isOpen : undefined} aria-selected=${node.path === chosen} tabindex=${focused ? 0 : -1} onClick=${act} title=${visible(node.path)}>
    <span class="name" style=${indent}><span class="mark" aria-hidden="true">${node.folder ? (isOpen ? "▾" : "▸") : "·"}</span>${name}
      ${node.folder && html`<button class="quiet enter" tabindex="-1" aria-label=${`Go into ${name}`} onClick=${(/** @type {Event} */ event) => { event.stopPropagation(); go({ prefix: node.path, key: null }); }}>→</button>`}</span>
    <span class="type">${entry ? visible(entry.type) : ""}</span>
    <span class="number">${entry ? size(entry.size) : ""}</span>
    ${entry ? html`<${Countdown} endsAt=${node.endsAt} />` : html`<span></span>`}
    <span class="number dim">${entry ? entry.revision : ""}</span>
  </div>`;
}

/**
 * Mark rows as they change, for as long as the signal lasts.
 * @param {string} prefix
 * @param {Levels} levels
 * @param {Map<string, string>} flashes
 * @param {() => void} render
 * @param {AbortSignal} signal
 */
function follow(prefix, levels, flashes, render, signal) {
  let timer = 0;
  const soon = () => {
    timer ||= window.setTimeout(() => {
      timer = 0;
      render();
    }, 200);
  };
  watch({ prefixes: prefix ? [prefix] : [], signal }, (event) => {
    const key = event.data?.key;
    if (key === undefined) return;
    flashes.set(key, event.kind === "set" ? "set" : "gone");
    for (const level of levels.known.values()) {
      const node = level.rows.find((one) => one.path === key);
      if (node?.entry && event.kind === "set") node.entry = { ...node.entry, revision: event.data.revision };
    }
    announcer.say(`${event.kind} ${visible(key)}`);
    setTimeout(() => {
      flashes.delete(key);
      soon();
    }, 2000);
    soon();
  }, () => {});
}
