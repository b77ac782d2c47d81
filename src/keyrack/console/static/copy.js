// The last requests of this page as commands that do the same.

import { html, useState } from "./vendor/preact.js";
import { requests, token, url } from "./api.js";
import { visible } from "./format.js";
import { CopyButton, Dialog } from "./parts.js";

/** @typedef {import("./api.js").Asked} Asked */

/** A word for a POSIX shell. @param {string} text */
export function quoted(text) {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`;
}

/** @param {Asked} asked */
function bodyText(asked) {
  if (asked.body === null) return null;
  return typeof asked.body === "string" ? asked.body : asked.body instanceof Uint8Array ? new TextDecoder().decode(asked.body) : "@keyrack-export.ndjson";
}

/** @param {Asked} asked */
export function asCurl(asked) {
  const words = ["curl", "-i"];
  if (asked.method !== "GET") words.push("-X", asked.method);
  words.push(quoted(url(asked.path).href));
  for (const [name, content] of Object.entries(asked.headers)) words.push("-H", quoted(`${name}: ${content}`));
  if (token()) words.push("-H", '"Authorization: Bearer $KEYRACK_TOKEN"');
  const body = bodyText(asked);
  if (body !== null) words.push("--data-binary", quoted(body));
  return words.join(" ");
}

/** The key that a path names, if it names one. @param {string} path */
function keyOf(path) {
  const found = /^\/(?:v1\/keys|get)\/([^?]+)/.exec(path);
  return found ? decodeURIComponent(found[1]) : null;
}

/** A Python literal. @param {string} text */
function literal(text) {
  return JSON.stringify(text);
}

/** @param {Asked} asked */
export function asPython(asked) {
  const key = keyOf(asked.path);
  const given = new URLSearchParams(asked.path.split("?")[1] ?? "");
  const lines = ["import keyrack", "", `client = keyrack.Client(${literal(url("").href)})${token() ? "  # reads $KEYRACK_TOKEN" : ""}`];
  if (key !== null && asked.method === "GET") lines.push(`print(client.get(${literal(key)}))`);
  else if (key !== null && asked.method === "PUT") {
    const named = [literal(key), literal(bodyText(asked) ?? "")];
    if (given.get("ttl")) named.push(`ttl=${given.get("ttl")}`);
    if (asked.headers["If-Match"]) named.push(`if_match=${literal(asked.headers["If-Match"])}`);
    if (asked.headers["If-None-Match"]) named.push(`if_none_match=${literal(asked.headers["If-None-Match"])}`);
    if (asked.headers["Content-Type"]) named.push(`media_type=${literal(asked.headers["Content-Type"])}`);
    lines.push(`client.set(${named.join(", ")})`);
  } else if (key !== null && asked.method === "DELETE") lines.push(`client.delete(${literal(key)}${asked.headers["If-Match"] ? `, if_match=${literal(asked.headers["If-Match"])}` : ""})`);
  else if (asked.method === "GET" && asked.path.startsWith("/v1/keys")) lines.push(`for entry in client.scan(${literal(given.get("prefix") ?? "")}${given.get("delimiter") ? `, delimiter=${literal(given.get("delimiter") ?? "")}` : ""}):`, "    print(entry)");
  else if (asked.path === "/set") {
    const { key: name, value } = JSON.parse(bodyText(asked) ?? "{}");
    lines.push(`client.set(${literal(name)}, ${literal(value)})`);
  } else return `# The Python client has no call of its own for this request. With the standard library:\nimport urllib.request\n\nrequest = urllib.request.Request(${literal(url(asked.path).href)}, method=${literal(asked.method)}${bodyText(asked) === null ? "" : `, data=${literal(bodyText(asked) ?? "")}.encode()`}, headers=${JSON.stringify(asked.headers)})\nprint(urllib.request.urlopen(request).read())`;
  return lines.join("\n");
}

/** @param {Asked} asked */
export function asCli(asked) {
  const key = keyOf(asked.path);
  const given = new URLSearchParams(asked.path.split("?")[1] ?? "");
  const at = `--url ${quoted(url("").href)}`;
  if (key !== null && asked.method === "GET") return `keyrack get ${at} -- ${quoted(key)}`;
  if (key !== null && asked.method === "PUT") return `keyrack set ${at}${given.get("ttl") ? ` --ttl ${given.get("ttl")}` : ""} -- ${quoted(key)} ${quoted(bodyText(asked) ?? "")}`;
  if (key !== null && asked.method === "DELETE") return `keyrack del ${at} -- ${quoted(key)}`;
  if (asked.path.startsWith("/v1/export")) return `keyrack export ${at}${given.get("prefix") ? ` --prefix ${quoted(given.get("prefix") ?? "")}` : ""}`;
  if (asked.path === "/set") {
    const { key: name, value } = JSON.parse(bodyText(asked) ?? "{}");
    return `keyrack set ${at} -- ${quoted(name)} ${quoted(value)}`;
  }
  return "# The command line has no verb for this request; use curl.";
}

const FORMS = { curl: asCurl, Python: asPython, "Command line": asCli };

/** @param {{close: () => void}} given */
export function CopyAs({ close }) {
  const [index, setIndex] = useState(0);
  const [form, setForm] = useState(/** @type {keyof typeof FORMS} */ ("curl"));
  const all = requests();
  const asked = all[index];
  return html`<${Dialog} title="Copy as" close=${close}>
    ${!asked && html`<p>Nothing has been asked yet.</p>`}
    ${asked && html`<label><span class="label">The request</span><select value=${index} onChange=${(/** @type {any} */ event) => setIndex(Number(event.target.value))}>${all.map((one, at) => html`<option value=${at}>${one.method} ${visible(one.path)}</option>`)}</select></label>
      <div class="tabs" role="tablist" aria-label="Forms">${Object.keys(FORMS).map((name) => html`<button role="tab" aria-selected=${form === name} onClick=${() => setForm(/** @type {any} */ (name))}>${name}</button>`)}</div>
      <pre class="text" tabindex="0">${FORMS[form](asked)}</pre><${CopyButton} text=${FORMS[form](asked)} />
      ${token() && html`<p class="dim">The token is not in it: it is read from $KEYRACK_TOKEN.</p>`}`}
  <//>`;
}
