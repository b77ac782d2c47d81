// How things look as text. Nothing here touches the page.

/** Characters that would hide, reorder or break a line of text: shown as escapes. */
const UNSAFE = /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffc]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/gu;

/**
 * A key or text in one line, with each invisible character as an escape.
 * @param {string} text
 */
export function visible(text) {
  return text.replace(UNSAFE, (one) => {
    const code = /** @type {number} */ (one.codePointAt(0));
    return code < 256 ? `\\x${hex(code, 2)}` : `\\u${hex(code, 4)}`;
  });
}

/**
 * @param {number} number
 * @param {number} width
 */
export function hex(number, width) {
  return number.toString(16).padStart(width, "0");
}

/**
 * Bytes for people: 512 B, 1.5 KiB, 3.2 MiB.
 * @param {number} bytes
 */
export function size(bytes) {
  if (bytes < 1024) return `${bytes} B`;
  const units = ["KiB", "MiB", "GiB", "TiB"];
  let value = bytes / 1024;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${value < 10 ? value.toFixed(1) : Math.round(value)} ${units[unit]}`;
}

/** @param {number} number */
export function count(number) {
  return number.toLocaleString("en-GB");
}

/**
 * A time that is left: 850 ms, 59 s, 4 m 05 s, 3 h 20 m, 12 d 4 h.
 * @param {number} milliseconds
 */
export function left(milliseconds) {
  if (milliseconds <= 0) return "ended";
  if (milliseconds < 1000) return `${Math.ceil(milliseconds)} ms`;
  const seconds = Math.floor(milliseconds / 1000);
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} m ${two(seconds % 60)} s`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ${two(Math.floor(seconds / 60) % 60)} m`;
  return `${Math.floor(seconds / 86400)} d ${Math.floor(seconds / 3600) % 24} h`;
}

/** @param {number} number */
function two(number) {
  return String(number).padStart(2, "0");
}

/**
 * A clock time with milliseconds, in the browser's zone.
 * @param {Date} date
 */
export function clock(date) {
  return `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}.${String(date.getMilliseconds()).padStart(3, "0")}`;
}

/**
 * A date and a clock time, in the browser's zone.
 * @param {Date} date
 */
export function moment(date) {
  return `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())} ${clock(date)}`;
}

/**
 * A duration as people write it, in seconds: 90, 90s, 5m, 1h, 2d. NaN when it is none.
 * @param {string} text
 */
export function seconds(text) {
  const found = /^\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?\s*$/.exec(text);
  if (!found) return NaN;
  const units = { ms: 0.001, s: 1, m: 60, h: 3600, d: 86400 };
  return Number(found[1]) * units[/** @type {keyof typeof units} */ (found[2] ?? "s")];
}

/**
 * Rows of a hex dump: offset, 16 bytes, the same as ASCII.
 * @param {Uint8Array} bytes
 * @param {number} from The offset of the first byte.
 */
export function hexRows(bytes, from) {
  const rows = [];
  for (let at = 0; at < bytes.length; at += 16) {
    const part = bytes.subarray(at, at + 16);
    const codes = Array.from(part, (one) => hex(one, 2));
    rows.push({
      offset: hex(from + at, 8),
      codes: `${codes.slice(0, 8).join(" ")}  ${codes.slice(8).join(" ")}`.padEnd(49),
      text: Array.from(part, (one) => (one > 31 && one < 127 ? String.fromCharCode(one) : ".")).join(""),
    });
  }
  return rows;
}
