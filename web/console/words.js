// Numbers, names and times in sentences.

const format = new Intl.NumberFormat("en");
const list = new Intl.ListFormat("en");
const NAMED_MOST = 3;
const NAME_MOST = 40;

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", fractionalSecondDigits: 3, hourCycle: "h23" });
const day = new Intl.DateTimeFormat(undefined, { dateStyle: "medium" });
const full = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });

export const number = (n) => format.format(n);

export const plural = (n, word) => `${number(n)} ${word}${n === 1 ? "" : "s"}`;

export const ids = (from, to) => (from === to ? `id ${from}` : `ids ${from}–${to}`);

// A name in a sentence: one of 255 characters would be all of it.
export const short = (name) => (name.length > NAME_MOST ? `${name.slice(0, NAME_MOST - 1)}…` : name);

export const named = (feeds) => (feeds.length > NAMED_MOST ? plural(feeds.length, "feed") : list.format(feeds.map(short)));

// Formatting what is no time throws.
const safely = (form) => (at) => (Number.isNaN(at.getTime()) ? "unknown" : form.format(at));
export const timeOf = safely(clock);
export const dayOf = safely(day);
export const fullTimeOf = safely(full);

// "12 ms", "1.2 s", "3 min"
export function duration(ms) {
  const size = Math.abs(ms);
  const sign = ms < 0 ? "−" : "";
  if (size < 1000) return `${sign}${Math.round(size)} ms`;
  if (size < 10000) return `${sign}${(size / 1000).toFixed(1)} s`;
  if (size < 120000) return `${sign}${Math.round(size / 1000)} s`;
  if (size < 7200000) return `${sign}${Math.round(size / 60000)} min`;
  if (size < 172800000) return `${sign}${Math.round(size / 3600000)} h`;
  return `${sign}${number(Math.round(size / 86400000))} days`;
}

// "1.5K"
const compact = new Intl.NumberFormat("en", { notation: "compact" });
export const about = (n) => compact.format(n);

// "3.2/s"
export const perSecond = (rate) => `${number(rate < 10 ? Number(rate.toFixed(1)) : Math.round(rate))}/s`;

// "0.4 ms", "12 ms", "1.2 s"
export const latency = (ms) => (ms < 10 ? `${Number(ms.toFixed(1))} ms` : duration(ms));

// Returns where a connection ended: "after event 42", "after chat 42 and news 7".
export function whereOf(readings) {
  if (!readings.known) return "before it opened";
  if (!readings.many) return `after event ${readings.cursor}`;
  if (readings.feeds.length > NAMED_MOST) return `after the cursors of ${plural(readings.feeds.length, "feed")}`;
  return `after ${list.format(readings.feeds.map(([feed, { cursor }]) => `${short(feed)} ${cursor}`))}`;
}

// "3 events missed and delivered, 1 no longer kept"
export function caughtUp({ delivered, lost, feeds }) {
  if (delivered + lost === 0) return "Nothing was missed.";
  const parts = [];
  const shares = feeds.length > 1 && feeds.length <= NAMED_MOST ? ` (${feeds.map((one) => `${short(one.feed)} ${number(one.delivered)}`).join(", ")})` : "";
  if (delivered) parts.push(`${plural(delivered, "event")} missed and delivered${shares}`);
  if (lost) parts.push(`${parts.length ? number(lost) : plural(lost, "missed event")} no longer kept`);
  return `Caught up: ${parts.join(", ")}.`;
}

// "3 waiting: 4 to 6"
export function waiting(behind) {
  const parts = behind.filter((one) => one.last > one.cursor);
  const count = parts.reduce((sum, one) => sum + one.last - one.cursor, 0);
  if (count === 0) return "";
  const range = ({ cursor, last }) => (last === cursor + 1 ? `${last}` : `${cursor + 1} to ${last}`);
  if (behind.length === 1) return `${number(count)} waiting: ${range(parts[0])}`;
  if (parts.length > NAMED_MOST) return `${number(count)} waiting in ${plural(parts.length, "feed")}`;
  return `${number(count)} waiting: ${parts.map((one) => `${short(one.feed)} ${range(one)}`).join(", ")}`;
}
