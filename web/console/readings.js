// The feeds of one page, and the cursor of each.

import { Reading } from "./reading.js";

export class Readings {
  received = 0;
  reconnects = 0;
  #names;
  #readings = new Map();
  #opened = false;

  constructor(feeds) {
    this.#names = feeds;
  }

  // Begins a feed after a page of its history.
  begin(feed, page) {
    this.#readings.set(feed, new Reading(page));
  }

  get many() {
    return this.#names.length > 1;
  }

  get known() {
    return this.#readings.size === this.#names.length;
  }

  get feeds() {
    return [...this.#readings];
  }

  // The cursors of the feeds that more events can come from.
  get cursors() {
    return this.feeds.filter(([, reading]) => !reading.closed).map(([feed, { cursor }]) => [feed, cursor]);
  }

  // The cursor as the API writes it, "" while it is unknown.
  get cursor() {
    if (!this.known) return "";
    return this.feeds.map(([feed, { cursor }]) => (this.many ? `${feed}=${cursor}` : `${cursor}`)).join(",");
  }

  get closed() {
    return this.known && this.feeds.every(([, reading]) => reading.closed);
  }

  of(feed) {
    return this.#readings.get(feed);
  }

  // Takes a block of the stream, and returns the entries to show.
  take(block) {
    switch (block.type) {
      case "feed.open": return this.#open(block);
      case "feed.live": return this.#live();
      case "feed.gap": return this.name(block.feed, this.of(block.feed)?.gap(block) ?? []);
      case "feed.closed": return this.name(block.feed, this.of(block.feed)?.close() ?? []);
      case "event":
        this.received++;
        return this.name(block.feed, this.of(block.feed)?.event(block.event) ?? []);
      default: return [];
    }
  }

  // If there are several feeds, each entry names its feed.
  name(feed, entries) {
    return entries.map((entry) => (this.many ? { ...entry, feed, tone: this.toneOf(feed) } : { ...entry, feed: undefined, of: feed }));
  }

  // Six colors are enough: names distinguish feeds.
  toneOf(feed) {
    return this.#names.indexOf(feed) % 6;
  }

  #open({ feeds }) {
    if (this.#opened) this.reconnects++;
    this.#opened = true;
    for (const info of feeds) this.of(info.feed)?.open(info);
    return [];
  }

  #live() {
    const came = this.feeds.map(([feed, reading]) => ({ feed, ...reading.live() })).filter((one) => one.resumed);
    if (came.length === 0) return [];
    const sum = (member) => came.reduce((total, one) => total + one[member], 0);
    return [{ kind: "caught-up", delivered: sum("delivered"), lost: sum("lost"), feeds: this.many ? came.filter((one) => one.delivered) : [] }];
  }
}
