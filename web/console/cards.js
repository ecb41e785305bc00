// The cursor of each feed, if there are several.

import { element, write } from "./dom.js";

export class FeedCards {
  #list;
  #cards = new Map();

  constructor(list) {
    this.#list = list;
  }

  show(readings) {
    const feeds = readings.feeds;
    if (feeds.length !== this.#cards.size || feeds.some(([feed]) => !this.#cards.has(feed))) this.#deal(feeds, readings);
    for (const [feed, reading] of feeds) this.#cards.get(feed)(reading);
  }

  #deal(feeds, readings) {
    this.#cards = new Map();
    const cards = document.createDocumentFragment();
    for (const [feed] of feeds) {
      const card = element("li");
      card.dataset.feed = feed;
      card.dataset.tone = readings.toneOf(feed);
      const [name, label, cursor, range] = ["feed", "label", "cursor", "range"].map((part) => {
        const made = element("span", part);
        card.append(made);
        return made;
      });
      label.textContent = "Cursor";
      name.textContent = name.title = feed;
      range.title = "The oldest event kept when this connection opened, and the newest known";
      this.#cards.set(feed, (reading) => {
        card.dataset.closed = reading.closed;
        write(cursor, reading.cursor);
        write(range, rangeOf(reading));
      });
      cards.append(card);
    }
    this.#list.replaceChildren(cards);
  }
}

function rangeOf({ first, last, closed }) {
  const kept = first > last ? "nothing kept" : `of ${first}–${last}`;
  return closed ? `${kept}, closed` : kept;
}
