// Small pieces that several views share.

import { html, useEffect, useLayoutEffect, useRef, useState } from "./vendor/preact.js";
import { left, visible } from "./format.js";

/** A message that a screen reader says: at most one a second, the last one wins. */
export const announcer = (() => {
  let last = 0;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;
  return {
    /** @param {string} text */
    say(text) {
      clearTimeout(timer);
      const wait = Math.max(0, last + 1000 - performance.now());
      timer = setTimeout(() => {
        last = performance.now();
        const region = document.getElementById("announcer");
        if (region) region.textContent = text;
      }, wait);
    },
  };
})();

/**
 * Run an effect with an AbortSignal that ends with it.
 * @param {(signal: AbortSignal) => void} effect
 * @param {any[]} inputs
 */
export function useSignal(effect, inputs) {
  useEffect(() => {
    const controller = new AbortController();
    effect(controller.signal);
    return () => controller.abort();
  }, inputs);
}

/** Render again each second, for what counts down. */
export function useSeconds() {
  const [, set] = useState(0);
  useEffect(() => {
    const timer = setInterval(() => set((number) => number + 1), 1000);
    return () => clearInterval(timer);
  }, []);
}

/** @param {{endsAt: number | null}} given */
export function Countdown({ endsAt }) {
  return html`<span class="number">${endsAt === null ? "–" : left(endsAt - performance.now())}</span>`;
}

/** @param {{problem: {message: string, body?: any} | null, again?: () => void}} given */
export function ProblemBox({ problem, again }) {
  if (!problem) return null;
  const body = problem.body ?? {};
  return html`<div class="problem" role="alert">
    <strong>${body.title ?? "That did not work"}</strong>
    ${problem.message && problem.message !== body.title && html`<p>${problem.message}</p>`}
    ${body.rule !== undefined && html`<p>Decided by ${body.rule === null ? "no rule: none allows it" : html`the rule <code>${visible(body.rule)}</code>`}${body.verb && html` for <code>${body.verb}</code>`}.</p>`}
    ${again && html`<button onClick=${again}>Try again</button>`}
  </div>`;
}

/**
 * A dialog of the browser's own: modal, with focus kept inside, closed by Escape.
 * @param {{title: string, close: () => void, children?: any}} given
 */
export function Dialog({ title, close, children }) {
  const ref = useRef(/** @type {HTMLDialogElement | null} */ (null));
  useEffect(() => {
    const before = /** @type {HTMLElement | null} */ (document.activeElement);
    ref.current?.showModal();
    return () => before?.focus?.();
  }, []);
  return html`<dialog ref=${ref} onClose=${close} aria-labelledby="dialog-title">
    <header><h2 id="dialog-title">${title}</h2><button class="quiet" aria-label="Close" onClick=${close}>✕</button></header>
    ${children}
  </dialog>`;
}

/** @param {{text: string, label?: string}} given */
export function CopyButton({ text, label = "Copy" }) {
  const [done, setDone] = useState(false);
  const copy = async () => {
    await navigator.clipboard?.writeText(text);
    setDone(true);
    announcer.say("Copied");
    setTimeout(() => setDone(false), 1500);
  };
  return html`<button class="quiet" onClick=${copy}>${done ? "Copied" : label}</button>`;
}

/**
 * A list of which only the rows in sight are in the page.
 * @param {{rows: number, height: number, row: (index: number) => any, label?: string, role?: string, reach?: (last: number) => void, show?: number, onKeyDown?: (event: KeyboardEvent) => void}} given
 *   `reach` is told the last row in sight; `show` is a row that has to be in sight.
 */
export function VirtualList({ rows, height, row, label, role = "list", reach, show, onKeyDown }) {
  const ref = useRef(/** @type {HTMLElement | null} */ (null));
  const [window_, setWindow] = useState({ top: 0, height: 600 });
  const look = () => {
    const node = ref.current;
    if (node) setWindow({ top: node.scrollTop, height: node.clientHeight });
  };
  useLayoutEffect(() => {
    look();
    const observer = new ResizeObserver(look);
    if (ref.current) observer.observe(ref.current);
    return () => observer.disconnect();
  }, []);
  useLayoutEffect(() => {
    const node = ref.current;
    if (!node || show === undefined || show < 0) return;
    if (show * height < node.scrollTop) node.scrollTop = show * height;
    else if ((show + 1) * height > node.scrollTop + node.clientHeight) node.scrollTop = (show + 1) * height - node.clientHeight;
  }, [show]);
  const first = Math.max(0, Math.floor(window_.top / height) - 10);
  const last = Math.min(rows - 1, Math.ceil((window_.top + window_.height) / height) + 10);
  useEffect(() => reach?.(last), [last, rows]);
  const shown = [];
  for (let index = first; index <= last; index += 1) shown.push(row(index));
  return html`<div class="virtual" ref=${ref} role=${role} aria-label=${label} onScroll=${look} onKeyDown=${onKeyDown} tabindex=${role === "tree" ? -1 : 0}>
    <div class="virtual-space" role="presentation" style=${{ height: `${rows * height}px` }}>
      <div role="presentation" style=${{ transform: `translateY(${first * height}px)` }}>${shown}</div>
    </div>
  </div>`;
}
