// What is slow, hot, big and connected: what an operator asks when something is not as it was.

import { html, useReducer, useState } from "./vendor/preact.js";
import { ask, problemOf, query } from "./api.js";
import { Act, useAnswer } from "./admin.js";
import { count, moment, size, visible } from "./format.js";
import { Dialog, ProblemBox } from "./parts.js";

export function Busy() {
  return html`<section class="page" aria-labelledby="busy-title"><h2 id="busy-title">Slow, hot, big, connected</h2>
    <div class="columns"><${Hot} /><${Big} /></div><${Slow} /><${Clients} /></section>`;
}

/** A table with a heading, in a box that scrolls by itself. @param {{title: string, heads: string[], rows: any[], children?: any}} given */
function Table({ title, heads, rows }) {
  return html`<div class="scroll" tabindex="0" role="region" aria-label=${title}><table class="table wide">
    <thead><tr>${heads.map((head) => html`<th scope="col">${head}</th>`)}</tr></thead><tbody>${rows}</tbody></table></div>`;
}

/** A key that leads to its value. @param {{name: string | null}} given */
function Key({ name }) {
  return name === null ? "–" : html`<a href=${`#/keys?key=${encodeURIComponent(name)}`}><code>${visible(name)}</code></a>`;
}

function Hot() {
  const [found, setFound] = useState(/** @type {any} */ (null));
  const look = async () => {
    const answer = await ask("GET", `/v1/hot${query({ seconds: 5, limit: 20 })}`);
    if (!answer.ok) throw await problemOf(answer);
    return answer.json();
  };
  return html`<div class="card"><h3>Hot keys</h3><p class="dim">Requests are looked at for five seconds; at other times none is.</p>
    <${Act} label="Look for 5 seconds" act=${look} done=${setFound} />
    ${found && !found.keys.length && html`<p class="empty">Nothing was asked for.</p>`}
    ${found?.keys.length > 0 && html`<${Table} title="Hot keys" heads=${["Key", "Requests a second"]}
      rows=${found.keys.map((/** @type {any} */ one) => html`<tr><td><${Key} name=${one.key} /></td><td class="number">${one.rate.toFixed(1)}</td></tr>`)} />
      <p class="dim">${count(found.requests)} requests were seen; each rate may be ${found.error.toFixed(1)} too high.</p>`}
  </div>`;
}

function Big() {
  const [prefix, setPrefix] = useState("");
  const [lines, setLines] = useState(/** @type {any[]} */ ([]));
  const look = async () => {
    setLines([]);
    const answer = await ask("GET", `/v1/big${query({ prefix, limit: 20 })}`);
    if (!answer.ok) throw await problemOf(answer);
    const reader = /** @type {ReadableStream<any>} */ (answer.body).pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (let step = await reader.read(); !step.done; step = await reader.read()) {
      const parts = (rest + step.value).split("\n");
      rest = parts.pop() ?? "";
      const fresh = parts.filter(Boolean).map((line) => JSON.parse(line));
      setLines((known) => [...known.filter((line) => !line.progress), ...fresh]);
    }
  };
  const [progress, total] = ["progress", "total"].map((kind) => lines.find((line) => line[kind])?.[kind]);
  /** @param {"key" | "folder"} kind */
  const rows = (kind) => lines.filter((line) => line[kind] !== undefined).map((line) => html`<tr><td>${kind === "key" ? html`<${Key} name=${line.key} />`
    : html`<a href=${`#/keys?prefix=${encodeURIComponent(line.folder)}`}><code>${visible(line.folder)}</code></a>`}</td><td class="number">${size(line.bytes)}</td></tr>`);
  return html`<div class="card"><h3>Big keys and folders</h3>
    <label><span class="label">Prefix (empty: every key)</span><input value=${prefix} spellcheck=${false} onInput=${(/** @type {any} */ event) => setPrefix(event.target.value)} /></label>
    <${Act} label="Look through all keys" act=${look} done=${() => undefined} />
    ${progress && html`<p role="status">${count(progress.keys ?? 0)} keys so far</p>`}
    ${total && html`<p role="status">${count(total.keys)} keys, ${size(total.bytes)}</p>`}
    ${rows("folder").length > 0 && html`<${Table} title="Big folders" heads=${["Folder", "Bytes"]} rows=${rows("folder")} />`}
    ${rows("key").length > 0 && html`<${Table} title="Big keys" heads=${["Key", "Bytes"]} rows=${rows("key")} />`}
  </div>`;
}

function Slow() {
  const [tries, again] = useReducer((number) => number + 1, 0);
  const { found, problem } = useAnswer(`/v1/slow${query({ limit: 100 })}`, [tries]);
  const clear = async () => {
    const answer = await ask("DELETE", "/v1/slow");
    if (!answer.ok) throw await problemOf(answer);
  };
  return html`<div class="card"><h3>Slow requests</h3><${ProblemBox} problem=${problem} again=${() => again(0)} />
    ${found && html`<p class="dim">${found.limit_ms ? `Those that took longer than ${found.limit_ms} ms.` : "The slow log is off: --slow."}</p>
      <p><button onClick=${() => again(0)}>Refresh</button> <${Act} label="Forget them" act=${clear} done=${() => again(0)} /></p>`}
    ${found?.entries.length > 0 && html`<${Table} title="Slow requests" heads=${["When", "Operation", "Key", "Status", "Took", "Lock", "Disk", "Bytes", "Token"]}
      rows=${found.entries.map((/** @type {any} */ one) => html`<tr><td>${moment(new Date(one.time / 1e6))}</td><td>${one.operation}</td><td><${Key} name=${one.key} /></td><td class="number">${one.status}</td>
        ${[one.ms, one.lock_ms, one.disk_ms].map((took) => html`<td class="number">${took.toFixed(1)} ms</td>`)}<td class="number">${size(one.bytes)}</td><td>${one.token ?? "–"}</td></tr>`)} />`}
    ${found && !found.entries.length && html`<p class="empty">None.</p>`}
  </div>`;
}

function Clients() {
  const [tries, again] = useReducer((number) => number + 1, 0);
  const [ending, setEnding] = useState(/** @type {any} */ (null));
  const { found, problem } = useAnswer(`/v1/clients${query({ limit: 100 })}`, [tries]);
  const end = async () => {
    const answer = await ask("DELETE", `/v1/clients/${encodeURIComponent(ending.id)}`);
    if (!answer.ok) throw await problemOf(answer);
  };
  return html`<div class="card"><h3>Who is connected</h3><${ProblemBox} problem=${problem} again=${() => again(0)} />
    ${found && html`<p><button onClick=${() => again(0)}>Refresh</button> <span class="dim">${count(found.connections)} connections${found.connections > found.clients.length ? `, ${count(found.clients.length)} of them shown` : ""}</span></p>
      <${Table} title="Who is connected" heads=${["Address", "State", "Request", "Age", "Owed", "Held", "Token", "Program", "What to do"]}
      rows=${found.clients.map((/** @type {any} */ one) => html`<tr><td>${one.address}</td><td>${one.state}</td><td><code>${visible(one.request ?? "–")}</code></td><td class="number">${one.age.toFixed(0)} s</td>
        <td class="number">${size(one.owed)}</td><td class="number">${size(one.held)}</td><td>${one.token ?? "–"}</td><td>${visible(one.agent ?? "–")}</td>
        <td><button class="danger" onClick=${() => setEnding(one)} aria-label=${`End the connection of ${one.address}`}>End</button></td></tr>`)} />`}
    ${ending && html`<${Dialog} title="End this connection?" close=${() => setEnding(null)}><p><code>${ending.address}</code> is cut off at once. It may come back.</p>
      <${Act} label="End" danger act=${end} done=${() => { setEnding(null); again(0); }} /><//>`}
  </div>`;
}
