// Somebody else has changed the key meanwhile: what there was, what you wrote, what there is now.

import { html, useState } from "./vendor/preact.js";

/**
 * Lines of a text, each marked when the other text does not have it (longest common subsequence).
 * @param {string} text
 * @param {string} other
 */
export function marked(text, other) {
  const [mine, theirs] = [text.split("\n"), other.split("\n")];
  if (mine.length * theirs.length > 4e6) return mine.map((line) => ({ line, changed: false }));
  const table = Array.from({ length: mine.length + 1 }, () => new Uint32Array(theirs.length + 1));
  for (let i = mine.length - 1; i >= 0; i -= 1) {
    for (let j = theirs.length - 1; j >= 0; j -= 1) {
      table[i][j] = mine[i] === theirs[j] ? table[i + 1][j + 1] + 1 : Math.max(table[i + 1][j], table[i][j + 1]);
    }
  }
  const found = [];
  let j = 0;
  for (let i = 0; i < mine.length; i += 1) {
    while (j < theirs.length && mine[i] !== theirs[j] && table[i][j + 1] >= table[i + 1][j] && table[i][j + 1] === table[i][j]) j += 1;
    const same = j < theirs.length && mine[i] === theirs[j];
    if (same) j += 1;
    found.push({ line: mine[i], changed: !same });
  }
  return found;
}

/**
 * @param {{base: string, yours: string, theirs: string | null, choose: (text: string) => void, close: () => void}} given
 *   `theirs` is null when the key is gone.
 */
export function ThreeWays({ base, yours, theirs, choose, close }) {
  const [text, setText] = useState(yours);
  /** @param {string} one */
  const lines = (one) => html`<pre class="text">${marked(one, base).map(({ line, changed }) => html`<span class=${changed ? "changed" : ""}>${line}${"\n"}</span>`)}</pre>`;
  return html`<div class="ways" role="group" aria-label="Somebody else has changed this key">
    <div class="problem" role="alert"><strong>Somebody else has changed this key since you began</strong>
      <p>${theirs === null ? "It is gone now." : "Nothing of yours is stored yet."} Lines that differ from where you both began are marked. Decide what the value shall be, then save.</p></div>
    <div class="columns">
      <section aria-label="Where you began"><h3>Where you began</h3><pre class="text">${base}</pre></section>
      <section aria-label="Theirs"><h3>Theirs</h3>${theirs === null ? html`<p class="dim">(no such key)</p>` : lines(theirs)}</section>
      <section aria-label="Yours"><h3>Yours</h3>${lines(yours)}</section>
    </div>
    <label class="label" for="merged">What it shall be</label>
    <textarea id="merged" value=${text} spellcheck=${false} onInput=${(/** @type {any} */ event) => setText(event.target.value)}></textarea>
    <div class="bar">
      ${theirs !== null && html`<button onClick=${() => setText(theirs)}>Take theirs</button>`}
      <button onClick=${() => setText(yours)}>Take yours</button>
      <span class="grow"></span>
      <button onClick=${close}>Leave it as it is now</button>
      <button class="primary" onClick=${() => choose(text)}>Go on with this</button>
    </div>
  </div>`;
}
