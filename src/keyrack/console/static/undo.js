// What was deleted here and can be undone: a bar that says so until it is over, or is dismissed.

import { html, useEffect, useState } from "./vendor/preact.js";
import { askJson } from "./api.js";
import { count, visible } from "./format.js";
import { announcer, ProblemBox } from "./parts.js";

/** Seconds for which what is deleted here can be undone. */
export const UNDO_SECONDS = 600;

/** @typedef {{what: string, undo: string, until: string}} Deletion */

/** @type {Set<(deletion: Deletion) => void>} */
const listeners = new Set();

/**
 * Tell of a deletion. One that cannot be undone (`undo` is null or missing) is told to nobody.
 * @param {string} what What was deleted, as a person says it.
 * @param {{undo?: string | null, until?: string | null} | null} answer
 */
export function offerUndo(what, answer) {
  if (!answer?.undo) return;
  const { undo, until } = answer;
  listeners.forEach((listener) => listener({ what, undo, until: until ?? "" }));
}

/** @param {any} done What `POST /v1/undo` has answered. */
function sentence(done) {
  const rest = [
    [done.kept_newer, "exist again and were left alone"],
    [done.ended, "would have ended by now"],
    [done.gone, "are gone, because their room was needed"],
  ];
  return [`${count(done.restored)} ${done.restored === 1 ? "key is" : "keys are"} back`, ...rest.filter(([number]) => number).map(([number, why]) => `${count(number)} ${why}`)].join(", ");
}

/**
 * The bar. `u` does what its button does.
 * @param {{changed: () => void}} given `changed` is called when keys are back.
 */
export function UndoBar({ changed }) {
  const [deletion, setDeletion] = useState(/** @type {Deletion | null} */ (null));
  const [said, setSaid] = useState("");
  const [problem, setProblem] = useState(/** @type {any} */ (null));
  const [busy, setBusy] = useState(false);
  const close = () => {
    setDeletion(null);
    setSaid("");
    setProblem(null);
  };
  useEffect(() => {
    /** @param {Deletion} one */
    const told = (one) => {
      close();
      setDeletion(one);
      announcer.say(`Deleted: ${one.what}. Press u to undo.`);
    };
    listeners.add(told);
    return () => void listeners.delete(told);
  }, []);
  useEffect(() => {
    if (!deletion) return undefined;
    const timer = setTimeout(close, UNDO_SECONDS * 1000);
    return () => clearTimeout(timer);
  }, [deletion]);
  const undo = async () => {
    if (!deletion || busy) return;
    setBusy(true);
    setProblem(null);
    try {
      setSaid(sentence(await askJson("POST", `/v1/undo/${deletion.undo}`)));
      setDeletion(null);
      changed();
    } catch (error) {
      setProblem(error);
    }
    setBusy(false);
  };
  useEffect(() => {
    /** @param {KeyboardEvent} event */
    const keyed = (event) => {
      const node = /** @type {HTMLElement} */ (event.target);
      const typing = node.isContentEditable || ["INPUT", "TEXTAREA", "SELECT"].includes(node.tagName);
      if (event.key !== "u" || event.ctrlKey || event.metaKey || event.altKey || typing) return;
      if (deletion) {
        event.preventDefault();
        undo();
      }
    };
    document.addEventListener("keydown", keyed);
    return () => document.removeEventListener("keydown", keyed);
  }, [deletion, busy]);
  if (!deletion && !said) return null;
  return html`<section class="undo-bar" aria-label="Undo">
    <p role="status">${deletion ? html`Deleted: <code>${visible(deletion.what)}</code>` : `${said}.`}</p>
    <${ProblemBox} problem=${problem} />
    ${deletion && html`<button class="primary" disabled=${busy} aria-keyshortcuts="u" onClick=${undo}>Undo</button>`}
    <button class="quiet" aria-label="Dismiss" onClick=${close}>✕</button>
  </section>`;
}
