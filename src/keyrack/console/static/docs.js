// The pages for people: colours as in the console; in the reference a search, and "try it".

const SHOWN = 65536;
const TOKEN = "keyrack-token";

/**
 * @typedef {{name: string, in: string, required?: boolean, description?: string}} Parameter
 * @typedef {{operationId: string, parameters?: Parameter[], requestBody?: {content: Record<string, {example?: any}>}}} Operation
 * @typedef {{method: string, path: string, operation: Operation}} Known
 */

document.documentElement.dataset.scheme = localStorage.getItem("keyrack-scheme") ?? "system";

/**
 * Make an element. Text is never taken for HTML.
 * @param {string} name
 * @param {Record<string, any>} properties
 * @param {(Node | string)[]} children
 * @returns {any}
 */
function make(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

/** @param {HTMLElement} contents */
function addSearch(contents) {
  const sections = [...document.querySelectorAll("section[id]")];
  const found = make("p", { className: "dim", role: "status" });
  const field = make("input", { type: "search", placeholder: "ttl, watch, 412…", autocomplete: "off", spellcheck: false });
  field.addEventListener("input", () => {
    const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const section of sections) {
      const text = `${section.id} ${section.textContent}`.toLowerCase();
      const fits = words.every((/** @type {string} */ word) => text.includes(word));
      shown += fits ? 1 : 0;
      section.toggleAttribute("hidden", !fits);
      contents.querySelector(`a[href="#${section.id}"]`)?.parentElement?.toggleAttribute("hidden", !fits);
    }
    for (const title of document.querySelectorAll(".sections > h2")) title.toggleAttribute("hidden", words.length > 0);
    found.textContent = words.length ? `${shown} of ${sections.length} operations` : "";
  });
  document.addEventListener("keydown", (event) => {
    const at = /** @type {HTMLElement} */ (event.target);
    if (event.key !== "/" || event.ctrlKey || event.metaKey || /^(INPUT|TEXTAREA|SELECT)$/.test(at.tagName)) return;
    event.preventDefault();
    field.select();
  });
  const token = make("input", { type: "password", value: sessionStorage.getItem(TOKEN) ?? "", placeholder: "krk_…", autocomplete: "off" });
  token.addEventListener("input", () => {
    if (token.value.trim()) sessionStorage.setItem(TOKEN, token.value.trim());
    else sessionStorage.removeItem(TOKEN);
  });
  contents.prepend(
    make("label", {}, make("span", { className: "label", textContent: "Search" }), field), found,
    make("label", {}, make("span", { className: "label", textContent: "Token for what you try; kept for this tab" }), token),
  );
}

/** Each operation that OpenAPI tells of, by its name. @returns {Promise<Map<string, Known>>} */
async function operations() {
  const answer = await fetch("openapi.json", { credentials: "omit", headers: credentials() });
  const { paths } = await answer.json();
  const known = new Map();
  for (const [path, methods] of Object.entries(paths)) {
    for (const [method, operation] of Object.entries(methods)) known.set(operation.operationId, { method: method.toUpperCase(), path, operation });
  }
  return known;
}

/** @returns {Record<string, string>} */
function credentials() {
  const token = sessionStorage.getItem(TOKEN);
  return token ? { Authorization: `Bearer ${token}` } : {};
}

/** @param {Known} known */
function form({ method, path, operation }) {
  /** @type {{parameter: Parameter, field: HTMLInputElement}[]} */
  const fields = (operation.parameters ?? []).map((parameter) => ({ parameter, field: make("input", { spellcheck: false, autocomplete: "off", required: Boolean(parameter.required) }) }));
  const [mediaType, body] = Object.entries(operation.requestBody?.content ?? {})[0] ?? [];
  const example = body?.example === undefined ? "" : typeof body.example === "string" ? body.example : JSON.stringify(body.example, null, 2);
  const area = mediaType === undefined ? null : make("textarea", { value: example, rows: Math.min(12, example.split("\n").length + 1), spellcheck: false });
  const send = make("button", { className: "primary", textContent: `Send ${method}` });
  const answer = make("div", { className: "answer" });
  answer.setAttribute("aria-live", "polite");
  const made = make("form", { className: "card" },
    ...fields.map(({ parameter, field }) => make("label", {}, make("span", { className: "label", textContent: `${parameter.name} (${parameter.in})${parameter.required ? "" : ", optional"}` }), field)),
    ...(area ? [make("label", {}, make("span", { className: "label", textContent: `Body, ${mediaType}` }), area)] : []), send, answer);
  made.addEventListener("submit", async (/** @type {Event} */ event) => {
    event.preventDefault();
    const given = fields.filter(({ field }) => field.value !== "");
    const query = new URLSearchParams(given.filter(({ parameter }) => parameter.in === "query").map(({ parameter, field }) => [parameter.name, field.value]));
    /** @type {Record<string, string>} */
    const headers = credentials();
    for (const { parameter, field } of given) if (parameter.in === "header") headers[parameter.name] = field.value;
    if (area && mediaType) headers["Content-Type"] = mediaType === "*/*" ? "text/plain; charset=utf-8" : mediaType;
    const target = path.slice(1).replace(/\{(\w+)\}/g, (_, name) => encodeURIComponent(given.find(({ parameter }) => parameter.name === name)?.field.value ?? ""));
    const address = `${target || "./"}${query.size ? `?${query}` : ""}`;
    send.disabled = true;
    await show(answer, method, address, { method, headers, body: area?.value ?? null });
    send.disabled = false;
  });
  return made;
}

/** @param {HTMLElement} place @param {string} method @param {string} address @param {RequestInit} request */
async function show(place, method, address, request) {
  const stop = new AbortController();
  const status = make("strong", { textContent: "…" });
  const fields = make("pre", { className: "text dim" });
  const text = make("pre", { className: "text" });
  const end = make("button", { type: "button", textContent: "Stop", onclick: () => stop.abort() });
  place.replaceChildren(make("p", {}, make("code", { textContent: `${method} ${new URL(address, document.baseURI).pathname}` }), " ", status, " ", end), fields, text);
  try {
    const answer = await fetch(address, { ...request, signal: stop.signal, credentials: "omit", cache: "no-store" });
    status.textContent = `${answer.status} ${answer.statusText}`;
    fields.textContent = [...answer.headers].map(([name, value]) => `${name}: ${value}`).join("\n");
    await read(answer, text);
  } catch (error) {
    text.append(stop.signal.aborted ? "\n(stopped)" : `The server does not answer: ${/** @type {Error} */ (error).message}`);
  }
  end.remove();
}

/** Show an answer as it comes, up to 64 KiB. @param {Response} answer @param {HTMLElement} place */
async function read(answer, place) {
  const reader = answer.body?.getReader();
  const decoder = new TextDecoder();
  for (let bytes = 0; reader; ) {
    const { done, value } = await reader.read();
    if (done) return;
    bytes += value.length;
    place.append(decoder.decode(value, { stream: true }));
    if (bytes > SHOWN) {
      place.append("\n(more is not shown)");
      await reader.cancel();
      return;
    }
  }
}

const contents = /** @type {HTMLElement | null} */ (document.querySelector(".contents"));
if (contents) {
  addSearch(contents);
  /** @type {Promise<Map<string, Known>> | undefined} */
  let known;
  for (const section of document.querySelectorAll("section[id]")) {
    const trial = make("details", {}, make("summary", { textContent: "Try it" }));
    trial.addEventListener("toggle", async () => {
      if (!trial.open || trial.children.length > 1) return;
      known ??= operations();
      const one = (await known).get(section.id);
      if (one && trial.children.length === 1) trial.append(form(one));
    });
    section.append(trial);
  }
}
