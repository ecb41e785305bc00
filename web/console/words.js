// Numbers and names in sentences.

const format = new Intl.NumberFormat("en");
const list = new Intl.ListFormat("en");
const NAMED_MOST = 3;

export const number = (n) => format.format(n);

export const plural = (n, word) => `${number(n)} ${word}${n === 1 ? "" : "s"}`;

export const ids = (from, to) => (from === to ? `id ${from}` : `ids ${from}–${to}`);

export const named = (feeds) => (feeds.length > NAMED_MOST ? plural(feeds.length, "feed") : list.format(feeds));

// Returns where a connection ended: "after event 42", "after chat 42 and news 7".
export function whereOf(readings) {
  if (readings.cursor === "") return "before it opened";
  if (!readings.many) return `after event ${readings.cursor}`;
  if (readings.feeds.length > NAMED_MOST) return `after the cursors of ${plural(readings.feeds.length, "feed")}`;
  return `after ${list.format(readings.feeds.map(([feed, { cursor }]) => `${feed} ${cursor}`))}`;
}

// "3 events missed and delivered, 1 of a type not listed"
export function caughtUp({ delivered, lost, unheard, feeds }) {
  if (delivered + lost + unheard === 0) return "Nothing was missed.";
  const parts = [];
  const shares = feeds.length > 1 && feeds.length <= NAMED_MOST ? ` (${feeds.map((one) => `${one.feed} ${number(one.delivered)}`).join(", ")})` : "";
  if (delivered) parts.push(`${plural(delivered, "event")} missed and delivered${shares}`);
  if (unheard) parts.push(`${delivered ? number(unheard) : plural(unheard, "missed event")} of a type not listed`);
  if (lost) parts.push(`${parts.length ? number(lost) : plural(lost, "missed event")} no longer kept`);
  return `Caught up: ${parts.join(", ")}.`;
}
