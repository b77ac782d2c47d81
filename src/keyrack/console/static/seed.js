// The two requests that everybody begins with: POST /set and GET /get/<key>.

import { html, useState } from "./vendor/preact.js";
import { ask } from "./api.js";
import { visible } from "./format.js";
import { ProblemBox } from "./parts.js";

/** @param {{go: (change: Record<string, any>) => void}} given */
export function SetAndGet({ go }) {
  const [key, setKey] = useState("key_1");
  const [text, setText] = useState("value_1");
  const [asked, setAsked] = useState("key_1");
  const [answer, setAnswer] = useState(/** @type {{request: string, status: number, body: string} | null} */ (null));
  const [problem, setProblem] = useState(/** @type {any} */ (null));
  /** @param {string} method @param {string} path @param {any} [json] */
  const send = async (method, path, json) => {
    try {
      const got = await ask(method, path, json === undefined ? {} : { headers: { "Content-Type": "application/json" }, body: JSON.stringify(json) });
      setAnswer({ request: `${method} ${path}`, status: got.status, body: await got.text() });
      setProblem(null);
    } catch (error) {
      setProblem(error);
    }
  };
  return html`<section class="page" aria-labelledby="seed-title"><h2 id="seed-title">Set and get</h2>
    <div class="columns">
      <form class="card" onSubmit=${(/** @type {Event} */ event) => { event.preventDefault(); send("POST", "/set", { key, value: text }); setAsked(key); }}>
        <h3>Set</h3>
        <label><span class="label">Key</span><input value=${key} required spellcheck=${false} onInput=${(/** @type {any} */ event) => setKey(event.target.value)} /></label>
        <label><span class="label">Value</span><textarea rows="4" value=${text} spellcheck=${false} onInput=${(/** @type {any} */ event) => setText(event.target.value)}></textarea></label>
        <button class="primary">POST /set</button>
      </form>
      <form class="card" onSubmit=${(/** @type {Event} */ event) => { event.preventDefault(); send("GET", `/get/${encodeURIComponent(asked)}`); }}>
        <h3>Get</h3>
        <label><span class="label">Key</span><input value=${asked} required spellcheck=${false} onInput=${(/** @type {any} */ event) => setAsked(event.target.value)} /></label>
        <button class="primary">GET /get/${visible(asked)}</button>
        <button type="button" class="quiet" onClick=${() => go({ view: "keys", prefix: "", key: asked })}>Show it among the keys</button>
      </form>
    </div>
    <${ProblemBox} problem=${problem} />
    ${answer && html`<div class="card" role="status"><h3>${answer.status} <span class="dim">${visible(answer.request)}</span></h3><pre class="text">${answer.body}</pre></div>`}
  </section>`;
}
