// Numbers in sentences.

const format = new Intl.NumberFormat("en");

export const number = (n) => format.format(n);

export const plural = (n, word) => `${number(n)} ${word}${n === 1 ? "" : "s"}`;

export const ids = (from, to) => (from === to ? `id ${from}` : `ids ${from}–${to}`);

// "3 events missed and delivered, 1 of a type not listened to"
export function caughtUp({ delivered, lost, unheard }) {
  if (delivered + lost + unheard === 0) return "Nothing was missed.";
  const parts = [];
  if (delivered) parts.push(`${plural(delivered, "event")} missed and delivered`);
  if (unheard) parts.push(`${delivered ? number(unheard) : plural(unheard, "missed event")} of a type not listened to`);
  if (lost) parts.push(`${parts.length ? number(lost) : plural(lost, "missed event")} no longer kept`);
  return `Caught up: ${parts.join(", ")}.`;
}
