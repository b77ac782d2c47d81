// Locks, bulk work, tokens, and what the server says of itself.

import { html, useReducer, useState } from "./vendor/preact.js";
import { ask, askJson, keyPath, Problem, problemOf, query } from "./api.js";
import { count, size, visible } from "./format.js";
import { announcer, CopyButton, Countdown, Dialog, ProblemBox, useSeconds, useSignal } from "./parts.js";
import { offerUndo, UNDO_SECONDS } from "./undo.js";

/**
 * What the server answers to a GET, fetched anew when `tries` changes.
 * @param {string} path
 * @param {any[]} inputs
 */
export function useAnswer(path, inputs) {
  const [state, setState] = useState(/** @type {{found: any, problem: any}} */ ({ found: null, problem: null }));
  useSignal((signal) => {
    askJson("GET", path, undefined, { signal }).then((found) => setState({ found, problem: null }), (problem) => signal.aborted || setState({ found: null, problem }));
  }, [path, ...inputs]);
  return state;
}

export function Locks() {
  const [tries, again] = useReducer((number) => number + 1, 0);
  const [prefix, setPrefix] = useState("");
  const [text, setText] = useState("");
  const [breaking, setBreaking] = useState(/** @type {any} */ (null));
  const { found, problem } = useAnswer(`/v1/locks${query({ prefix, limit: 200 })}`, [tries]);
  useSeconds();
  const now = performance.now();
  return html`<section class="page" aria-labelledby="locks-title"><h2 id="locks-title">Locks</h2>
    <form class="bar" onSubmit=${(/** @type {Event} */ event) => { event.preventDefault(); setPrefix(text); again(0); }}>
      <label class="grow"><span class="label">Prefix</span><input id="search" type="search" value=${text} onInput=${(/** @type {any} */ event) => setText(event.target.value)} /></label><button>Show</button><button type="button" onClick=${() => again(0)}>Refresh</button>
    </form>
    <${ProblemBox} problem=${problem} again=${() => again(0)} />
    ${found && !found.locks.length && html`<p class="empty">No lock is held.</p>`}
    ${found && found.locks.length > 0 && html`<div class="scroll" tabindex="0" role="region" aria-label="Locks"><table class="table"><thead><tr><th>Lock</th><th>Owner</th><th>Ends in</th><th><span class="hidden">What to do</span></th></tr></thead>
      <tbody>${found.locks.map((/** @type {any} */ lock) => html`<tr><td><code>${visible(lock.name ?? lock.key)}</code></td><td>${visible(String(lock.owner))}</td><td><${Countdown} endsAt=${lock.ttl === undefined ? null : now + lock.ttl * 1000} /></td>
        <td><button class="danger" onClick=${() => setBreaking(lock)}>Break</button></td></tr>`)}</tbody></table></div>`}
    ${found?.next && html`<p class="notice">There are more: narrow the prefix.</p>`}
    ${breaking && html`<${Dialog} title="Break this lock?" close=${() => setBreaking(null)}>
      <p><code>${visible(breaking.name ?? breaking.key)}</code> is held by <strong>${visible(String(breaking.owner))}</strong>. Its holder is not asked. It finds out when it renews, or when a batch checks its token.</p>
      <${Act} label="Break" danger act=${() => breakLock(breaking.name ?? breaking.key)} done=${() => { setBreaking(null); again(0); }} /><//>`}
  </section>`;
}

/** @param {string} name */
async function breakLock(name) {
  const answer = await ask("DELETE", `${keyPath(name, "/v1/locks/") ?? ""}${query({ force: true })}`);
  if (!answer.ok) throw await problemOf(answer);
}

/** A button that does something and says when that failed. @param {any} given */
export function Act({ label, act, done, danger = false }) {
  const [problem, setProblem] = useState(/** @type {any} */ (null));
  const [busy, setBusy] = useState(false);
  const press = async () => {
    setBusy(true);
    try {
      const result = await act();
      announcer.say(`${label}: done`);
      done(result);
    } catch (error) {
      setProblem(error);
    }
    setBusy(false);
  };
  return html`<${ProblemBox} problem=${problem} /><button class=${danger ? "danger" : "primary"} disabled=${busy} onClick=${press}>${label}</button>`;
}

export function Bulk() {
  return html`<section class="page" aria-labelledby="bulk-title"><h2 id="bulk-title">Bulk</h2><div class="columns"><${DeletePrefix} /><${Move} /></div></section>`;
}

function DeletePrefix() {
  const [prefix, setPrefix] = useState("");
  const [found, setFound] = useState(/** @type {any} */ (null));
  const [typed, setTyped] = useState("");
  const [result, setResult] = useState(/** @type {any} */ (null));
  /** @param {boolean} dry */
  const remove = (dry) => askJson("DELETE", `/v1/keys${query({ prefix, dry_run: dry, all: prefix === "", ...(dry ? {} : { undo: UNDO_SECONDS, at: found.revision }) })}`);
  const number = found?.count ?? found?.deleted ?? 0;
  return html`<div class="card"><h3>Delete keys by prefix</h3>
    <label><span class="label">Prefix (empty: every key)</span><input value=${prefix} spellcheck=${false} onInput=${(/** @type {any} */ event) => { setPrefix(event.target.value); setFound(null); setResult(null); setTyped(""); }} /></label>
    <${Act} label="Count them first" act=${() => remove(true)} done=${setFound} />
    ${found && html`<p role="status"><strong>${count(number)}</strong> keys would be deleted${found.sample?.length ? ", these among them:" : "."}</p>
      ${found.sample?.length > 0 && html`<ul class="sample">${found.sample.map((/** @type {string} */ key) => html`<li><code>${visible(key)}</code></li>`)}</ul>`}
      ${number > 0 && html`<label><span class="label">Type ${number} to confirm</span><input inputmode="numeric" value=${typed} onInput=${(/** @type {any} */ event) => setTyped(event.target.value)} /></label>
        ${typed.trim() === String(number) && html`<${Act} label=${`Delete ${count(number)} keys`} danger act=${() => remove(false)} done=${(/** @type {any} */ done) => { setResult(done); setFound(null); setTyped(""); offerUndo(prefix === "" ? "every key" : `${prefix}…`, done); }} />`}`}`}
    ${result && html`<p role="status">${count(result.deleted)} keys were deleted.${result.kept_newer ? ` ${count(result.kept_newer)} were changed since they were counted, and left alone.` : ""}</p>`}
  </div>`;
}

function Move() {
  const [prefix, setPrefix] = useState("");
  const [progress, setProgress] = useState("");
  const [report, setReport] = useState(/** @type {any} */ (null));
  const [problem, setProblem] = useState(/** @type {any} */ (null));
  const save = async () => {
    const answer = await ask("GET", `/v1/export${query({ prefix })}`);
    if (!answer.ok) throw await problemOf(answer);
    const parts = [];
    let length = 0;
    const reader = /** @type {ReadableStream<Uint8Array>} */ (answer.body).getReader();
    for (let step = await reader.read(); !step.done; step = await reader.read()) {
      parts.push(step.value);
      length += step.value.length;
      setProgress(`${size(length)} so far`);
    }
    const made = URL.createObjectURL(new Blob(/** @type {BlobPart[]} */ (parts)));
    const link = document.createElement("a");
    link.href = made;
    link.download = "keyrack-export.ndjson";
    link.click();
    URL.revokeObjectURL(made);
    setProgress(`${size(length)} exported`);
  };
  /** @param {any} event */
  const load = async (event) => {
    const [file] = event.target.files;
    if (!file) return;
    setProblem(null);
    setReport(null);
    setProgress(`importing ${size(file.size)}`);
    const answer = await ask("POST", "/v1/import", { headers: { "Content-Type": "application/x-ndjson" }, body: file }).catch(setProblem);
    setProgress("");
    if (!answer) return;
    const text = await answer.text();
    try {
      const body = JSON.parse(text);
      if (body.imported === undefined) setProblem(new Problem({ ...body, status: answer.status }));
      else setReport(body);
    } catch {
      setProblem(new Error(text.slice(0, 300)));
    }
  };
  return html`<div class="card"><h3>Export and import</h3>
    <label><span class="label">Prefix (empty: every key)</span><input value=${prefix} spellcheck=${false} onInput=${(/** @type {any} */ event) => setPrefix(event.target.value)} /></label>
    <${Act} label="Export to a file" act=${save} done=${() => undefined} />
    <label><span class="label">Import a file of an export</span><input type="file" accept=".ndjson,.jsonl,application/x-ndjson" onChange=${load} /></label>
    ${progress && html`<p role="status">${progress}</p>`}<${ProblemBox} problem=${problem} />
    ${report && html`<p role="status">${count(report.imported)} imported${report.failed ? `, ${count(report.failed)} refused` : ""}.</p>
      ${report.errors?.length > 0 && html`<ul class="sample">${report.errors.slice(0, 20).map((/** @type {any} */ one) => html`<li>Line ${one.line}: ${visible(String(one.detail ?? one.error ?? ""))}</li>`)}</ul>`}`}
  </div>`;
}

/** @param {{who: any}} given */
export function Tokens({ who }) {
  const [tries, again] = useReducer((number) => number + 1, 0);
  const [made, setMade] = useState(/** @type {any} */ (null));
  const [revoking, setRevoking] = useState(/** @type {any} */ (null));
  const { found, problem } = useAnswer("/v1/auth/tokens?limit=1000", [tries]);
  if (who === null) return html`<section class="page"><h2>Tokens</h2><p class="notice">This service has no access control: whoever reaches it may do everything. Start it with <code>--auth FILE</code> or with <code>KEYRACK_TOKEN</code> to change that.</p></section>`;
  return html`<section class="page" aria-labelledby="tokens-title"><h2 id="tokens-title">Tokens</h2>
    ${who && html`<p class="foot">You are ${who.anonymous ? "anonymous" : html`<strong>${visible(who.name ?? "")}</strong> <code>${who.id}</code>`}.</p>`}
    <${ProblemBox} problem=${problem} again=${() => again(0)} />
    ${found && html`<div class="scroll" tabindex="0" role="region" aria-label="Tokens"><table class="table"><thead><tr><th>Id</th><th>Name</th><th>Rights</th><th>Source</th><th>Ends</th><th>Last used</th><th><span class="hidden">What to do</span></th></tr></thead>
      <tbody>${found.tokens.map((/** @type {any} */ one) => html`<tr><td><code>${one.id}</code></td><td>${visible(one.name ?? "")}${one.disabled ? html` <span class="kind kind-delete">disabled</span>` : ""}</td>
        <td>${[...(one.policies ?? []), ...(one.rules ?? [])].map((right) => html`<code class="right">${visible(typeof right === "string" ? right : JSON.stringify(right))}</code> `)}</td><td>${one.source}</td><td>${one.expires ?? "–"}</td><td>${one.last_used ?? "–"}</td>
        <td>${one.source === "store" && html`<button class="danger" onClick=${() => setRevoking(one)}>Revoke</button>`}</td></tr>`)}</tbody></table></div>
      <div class="columns"><${NewToken} made=${(/** @type {any} */ one) => { setMade(one); again(0); }} /><${Check} tokens=${found.tokens} /></div>`}
    ${made && html`<${Dialog} title="The new token" close=${() => setMade(null)}><p>It is shown this once. Nobody can show it again, this server included.</p><p><code class="secret">${made.token}</code></p><${CopyButton} text=${made.token} label="Copy the token" /><//>`}
    ${revoking && html`<${Dialog} title="Revoke this token?" close=${() => setRevoking(null)}><p><code>${revoking.id}</code> ${visible(revoking.name ?? "")}. When this is done, no request with it is answered any more, and its streams have ended.</p>
      <${Act} label="Revoke" danger act=${() => askJson("DELETE", `/v1/auth/tokens/${encodeURIComponent(revoking.id)}`)} done=${() => { setRevoking(null); again(0); }} /><//>`}
  </section>`;
}

/** @param {any} given */
function NewToken({ made }) {
  const [name, setName] = useState("");
  const [rules, setRules] = useState("read,list,watch keys:app/*");
  const [ttl, setTtl] = useState("");
  const body = () => ({ name, rules: rules.split("\n").map((line) => line.trim()).filter(Boolean), ...(ttl ? { ttl: Number(ttl) } : {}) });
  return html`<div class="card"><h3>Make a token</h3>
    <label><span class="label">Name</span><input value=${name} onInput=${(/** @type {any} */ event) => setName(event.target.value)} /></label>
    <label><span class="label">Rules, one a line</span><textarea rows="4" value=${rules} spellcheck=${false} onInput=${(/** @type {any} */ event) => setRules(event.target.value)}></textarea></label>
    <label><span class="label">Ends after seconds (empty: never)</span><input inputmode="decimal" value=${ttl} onInput=${(/** @type {any} */ event) => setTtl(event.target.value)} /></label>
    <${Act} label="Make it" act=${() => askJson("POST", "/v1/auth/tokens", body())} done=${made} /></div>`;
}

/** @param {any} given */
function Check({ tokens }) {
  const [token, setToken] = useState("");
  const [verb, setVerb] = useState("read");
  const [key, setKey] = useState("");
  const [result, setResult] = useState(/** @type {any} */ (null));
  const act = () => askJson("POST", "/v1/auth/check", { checks: [{ verb, key }], ...(token ? { token } : {}) });
  return html`<div class="card"><h3>May it?</h3>
    <label><span class="label">Token</span><select value=${token} onChange=${(/** @type {any} */ event) => setToken(event.target.value)}><option value="">mine</option>${tokens.map((/** @type {any} */ one) => html`<option value=${one.id}>${one.id} ${visible(one.name ?? "")}</option>`)}</select></label>
    <label><span class="label">Verb</span><select value=${verb} onChange=${(/** @type {any} */ event) => setVerb(event.target.value)}>${["read", "list", "watch", "set", "delete"].map((one) => html`<option>${one}</option>`)}</select></label>
    <label><span class="label">Key</span><input value=${key} spellcheck=${false} onInput=${(/** @type {any} */ event) => setKey(event.target.value)} /></label>
    <${Act} label="Ask" act=${act} done=${(/** @type {any} */ found) => setResult(found.results[0])} />
    ${result && html`<p role="status"><strong>${result.allowed ? "Yes" : "No"}</strong>${result.rule ? html`: by <code>${visible(result.rule)}</code>${result.policy ? html` of the policy <code>${visible(result.policy)}</code>` : ""}` : ": no rule allows it"}.</p>`}</div>`;
}

export function Info() {
  const [tries, again] = useReducer((number) => number + 1, 0);
  const info = useAnswer("/v1/info", [tries]);
  const limits = useAnswer("/v1/limits", [tries]);
  return html`<section class="page" aria-labelledby="info-title"><h2 id="info-title">Info and limits</h2><button onClick=${() => again(0)}>Refresh</button>
    <${ProblemBox} problem=${info.problem} again=${() => again(0)} />
    <div class="columns"><${Facts} title="This service" found=${info.found} /><${Facts} title="Limits" found=${limits.found} /></div></section>`;
}

/** @param {{title: string, found: any}} given */
function Facts({ title, found }) {
  if (!found) return null;
  /** @type {[string, any][]} */
  const rows = [];
  /** @param {any} members @param {string} before */
  const walk = (members, before) => Object.entries(members).forEach(([name, value]) => (value && typeof value === "object" && !Array.isArray(value) ? walk(value, `${before}${name}.`) : rows.push([before + name, value])));
  walk(found, "");
  return html`<table class="table card"><caption>${title}</caption><tbody>${rows.map(([name, value]) => html`<tr><th scope="row"><code>${name}</code></th><td class="number">${shown(name, value)}</td></tr>`)}</tbody></table>`;
}

/** @param {string} name @param {any} value */
function shown(name, value) {
  if (typeof value === "number" && (/(^|\.)memory\.|_bytes$/.test(name))) return `${size(value)} (${count(value)})`;
  if (typeof value === "number") return count(value);
  return visible(String(value));
}
