// The server's metrics as plots. The page asks for them itself and keeps half an hour.

import { html, useEffect, useState } from "./vendor/preact.js";
import { ask, problemOf } from "./api.js";
import { clock, count, size } from "./format.js";
import { ProblemBox } from "./parts.js";

const EVERY = 2000;
const KEPT = 900;

/** @typedef {{at: number, values: Map<string, number>}} Sample */

/** A rate, with a decimal where it is small. @param {number} value */
function rateText(value) {
  return value < 100 ? value.toFixed(1) : count(Math.round(value));
}

/** What was polled, kept while the page lives. @type {Sample[]} */
const samples = [];

/**
 * The numbers of an exposition in Prometheus' text format, by name with labels.
 * @param {string} text
 */
export function parse(text) {
  /** @type {Map<string, number>} */
  const values = new Map();
  for (const line of text.split("\n")) {
    const found = /^([a-zA-Z_:][\w:]*(?:\{.*\})?) (\S+)/.exec(line);
    if (found && line[0] !== "#") values.set(found[1], Number(found[2]));
  }
  return values;
}

/**
 * The sum of all series of a name whose labels match.
 * @param {Map<string, number>} values
 * @param {string} name
 * @param {RegExp} [labels]
 */
function sum(values, name, labels) {
  let total = 0;
  let seen = false;
  for (const [series, value] of values) {
    if ((series === name || series.startsWith(`${name}{`)) && (!labels || labels.test(series))) {
      total += value;
      seen = true;
    }
  }
  return seen ? total : null;
}

/** @param {Sample} a @param {Sample} b @param {string} name @param {RegExp} [labels] */
function rate(a, b, name, labels) {
  const [before, after] = [sum(a.values, name, labels), sum(b.values, name, labels)];
  return before === null || after === null || after < before ? null : ((after - before) / (b.at - a.at)) * 1000;
}

/**
 * A quantile of what a histogram counted between two samples, in milliseconds.
 * @param {Sample} a
 * @param {Sample} b
 * @param {string} lane
 * @param {number} share
 */
function quantile(a, b, lane, share) {
  /** @type {[number, number][]} */
  const buckets = [];
  for (const [series, value] of b.values) {
    if (!series.startsWith("keyrack_http_request_duration_seconds_bucket{") || !series.includes(`lane="${lane}"`)) continue;
    const bound = /le="([^"]+)"/.exec(series);
    if (bound) buckets.push([bound[1] === "+Inf" ? Infinity : Number(bound[1]), value - (a.values.get(series) ?? 0)]);
  }
  buckets.sort((x, y) => x[0] - y[0]);
  const all = buckets.length ? buckets[buckets.length - 1][1] : 0;
  if (!all) return null;
  const found = buckets.find(([, many]) => many >= all * share);
  return found && Number.isFinite(found[0]) ? found[0] * 1000 : null;
}

/** @type {{title: string, unit: (value: number) => string, lines: {label: string, value: (a: Sample, b: Sample) => number | null}[]}[]} */
const PLOTS = [
  { title: "Requests a second", unit: rateText, lines: [
    { label: "reads", value: (a, b) => rate(a, b, "keyrack_http_requests_total", /operation="(get|key_get)"/) },
    { label: "writes", value: (a, b) => rate(a, b, "keyrack_http_requests_total", /operation="(set|key_put|key_patch|key_delete|batch|counter)"/) },
    { label: "all", value: (a, b) => rate(a, b, "keyrack_http_requests_total") }] },
  { title: "Latency of reads, ms", unit: (value) => value.toFixed(2), lines: [
    { label: "p50", value: (a, b) => quantile(a, b, "read", 0.5) }, { label: "p99", value: (a, b) => quantile(a, b, "read", 0.99) }] },
  { title: "Latency of writes, ms", unit: (value) => value.toFixed(2), lines: [
    { label: "p50", value: (a, b) => quantile(a, b, "write", 0.5) }, { label: "p99", value: (a, b) => quantile(a, b, "write", 0.99) }] },
  { title: "Hits and misses a second", unit: rateText, lines: [
    { label: "hits", value: (a, b) => rate(a, b, "keyrack_key_hits_total") }, { label: "misses", value: (a, b) => rate(a, b, "keyrack_key_misses_total") }] },
  { title: "Memory", unit: size, lines: [
    { label: "used", value: (_, b) => sum(b.values, "keyrack_store_used_bytes") }, { label: "limit", value: (_, b) => sum(b.values, "keyrack_store_limit_bytes") }] },
  { title: "Keys", unit: count, lines: [
    { label: "all", value: (_, b) => sum(b.values, "keyrack_keys") }, { label: "with TTL", value: (_, b) => sum(b.values, "keyrack_keys_with_ttl") }] },
  { title: "Ended and evicted a second", unit: rateText, lines: [
    { label: "ended", value: (a, b) => rate(a, b, "keyrack_keys_expired_total") }, { label: "evicted", value: (a, b) => rate(a, b, "keyrack_keys_evicted_total") }] },
  { title: "Connections and workers", unit: count, lines: [
    { label: "connections", value: (_, b) => sum(b.values, "keyrack_connections") }, { label: "workers", value: (_, b) => sum(b.values, "keyrack_workers") }] },
];

/** Ask once, and keep what came. */
async function poll() {
  const answer = await ask("GET", "/metrics", { headers: { Accept: "text/plain" }, quiet: true });
  if (!answer.ok) throw await problemOf(answer);
  samples.push({ at: Date.now(), values: parse(await answer.text()) });
  if (samples.length > KEPT) samples.shift();
}

export function Metrics() {
  const [problem, setProblem] = useState(/** @type {any} */ (null));
  const [, setTicks] = useState(0);
  useEffect(() => {
    let ended = false;
    /** @type {ReturnType<typeof setTimeout>} */
    let timer;
    const again = async () => {
      try {
        await poll();
        if (!ended) setProblem(null);
      } catch (error) {
        if (!ended) setProblem(error);
      }
      if (ended) return;
      setTicks((number) => number + 1);
      timer = setTimeout(again, EVERY);
    };
    again();
    return () => {
      ended = true;
      clearTimeout(timer);
    };
  }, []);
  return html`<section class="page" aria-labelledby="metrics-title"><h2 id="metrics-title">Metrics</h2>
    <p class="foot">Asked every ${EVERY / 1000} s while this is shown; the latest half an hour, since the page was opened.</p>
    <${ProblemBox} problem=${problem} />
    <div class="plots">${PLOTS.map((one) => html`<${Plot} key=${one.title} about=${one} />`)}</div>
  </section>`;
}

const WIDTH = 600;
const HEIGHT = 150;

/**
 * Lines over time, as SVG: no library of plots fits what the console may weigh.
 * @param {{about: typeof PLOTS[number]}} given
 */
function Plot({ about }) {
  const [pointed, setPointed] = useState(/** @type {number | null} */ (null));
  const pairs = samples.slice(1).map((sample, index) => /** @type {[Sample, Sample]} */ ([samples[index], sample]));
  const lines = about.lines.map((line) => pairs.map(([a, b]) => line.value(a, b)));
  const most = Math.max(...lines.flat().map((value) => value ?? 0), Number.MIN_VALUE) * 1.1;
  const last = pairs.length - 1;
  /** @param {number} index */
  const x = (index) => (last > 0 ? (index / last) * WIDTH : WIDTH);
  /** @param {number} value */
  const y = (value) => HEIGHT - (value / most) * HEIGHT;
  /** @param {MouseEvent} event */
  const point = (event) => {
    const box = /** @type {Element} */ (event.currentTarget).getBoundingClientRect();
    setPointed(Math.max(0, Math.min(last, Math.round(((event.clientX - box.left) / box.width) * last))));
  };
  const at = pointed !== null && pointed <= last ? pointed : last;
  const values = about.lines.map((line, index) => {
    const value = lines[index][at] ?? null;
    return html`<span class=${`plot-name plot-${index + 1}`}>${line.label} <b class="number">${value === null ? "–" : about.unit(value)}</b></span>`;
  });
  return html`<figure class="plot card"><figcaption><strong>${about.title}</strong> ${values} ${pointed !== null && pairs[at] ? html`<span class="dim number">${clock(new Date(pairs[at][1].at))}</span>` : ""}</figcaption>
    <svg viewBox=${`0 0 ${WIDTH} ${HEIGHT}`} preserveAspectRatio="none" role="img" aria-label=${`${about.title} over time`} onMouseMove=${point} onMouseLeave=${() => setPointed(null)}>
      ${[0.25, 0.5, 0.75].map((part) => html`<line class="grid" x1="0" x2=${WIDTH} y1=${HEIGHT * part} y2=${HEIGHT * part} />`)}
      ${lines.map((line, index) => html`<path class=${`line plot-${index + 1}`} d=${pathOf(line, x, y)} />`)}
      ${pointed !== null && html`<line class="cursor" x1=${x(at)} x2=${x(at)} y1="0" y2=${HEIGHT} />`}
    </svg>
    <div class="plot-foot dim"><span>${pairs.length ? clock(new Date(pairs[0][1].at)).slice(0, 8) : ""}</span><span>top: ${most > 1e-300 ? about.unit(most) : "–"}</span><span>${pairs.length ? clock(new Date(pairs[last][1].at)).slice(0, 8) : ""}</span></div>
  </figure>`;
}

/**
 * A path through what is known; a gap where something is not.
 * @param {(number | null)[]} line
 * @param {(index: number) => number} x
 * @param {(value: number) => number} y
 */
function pathOf(line, x, y) {
  let path = "";
  let pen = "M";
  line.forEach((value, index) => {
    if (value === null) {
      pen = "M";
      return;
    }
    path += `${pen}${x(index).toFixed(1)} ${y(value).toFixed(1)}`;
    pen = "L";
  });
  return path;
}
