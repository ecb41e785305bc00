// The feeds of one connection: which of them a block is about, and the cursor of each.

import { Reading } from "./reading.js";

export class Readings {
  received = 0;
  reconnects = 0;
  #readings;
  #opened = false;

  constructor(feeds) {
    this.#readings = new Map(feeds.map((feed) => [feed, new Reading()]));
  }

  get many() {
    return this.#readings.size > 1;
  }

  get feeds() {
    return [...this.#readings];
  }

  // The cursor of the whole connection as the API writes it, "" while it is unknown.
  get cursor() {
    if (!this.#opened) return "";
    return this.feeds.map(([feed, { cursor }]) => (this.many ? `${feed}=${cursor}` : cursor)).join(",");
  }

  get unheard() {
    return this.feeds.reduce((sum, [, reading]) => sum + reading.unheard, 0);
  }

  get closed() {
    return this.feeds.every(([, reading]) => reading.closed);
  }

  // Takes a block as the stream received it, and returns the entries to show.
  take(type, data, cursor) {
    const at = this.#split(cursor);
    switch (type) {
      case "feed.open": return this.#open(data, at);
      case "feed.gap": return [...this.#move(at, data.feed), ...this.#of(data.feed, (reading) => reading.gap(data, at.get(data.feed)))];
      case "feed.closed": return [...this.#move(at), ...this.#of(data.feed, (reading) => reading.close())];
      case "feed.cursor": return this.#move(at);
      case "feed.live": return [...this.#move(at), ...this.#live()];
      default: return this.many ? this.#enveloped(type, data, at) : this.#plain(type, data, cursor);
    }
  }

  close() {
    return this.feeds.flatMap(([feed]) => this.#of(feed, (reading) => reading.close()));
  }

  #split(cursor) {
    if (!this.many) return new Map([[this.feeds[0][0], cursor]]);
    return new Map(cursor.split(",").map((part) => part.split("=")));
  }

  #open(info, at) {
    if (this.#opened) this.reconnects++;
    this.#opened = true;
    return (info.feeds ?? [info]).flatMap((one) => this.#of(one.feed, (reading) => reading.open(one, at.get(one.feed))));
  }

  #plain(type, data, cursor) {
    const [[feed, { cursor: before }]] = this.feeds;
    this.received++;
    // A block without an id leaves the cursor where it was: an ephemeral event.
    if (cursor === before) return this.#of(feed, () => [ephemeral(type, data)]);
    return this.#of(feed, (reading) => reading.event(type, data, cursor));
  }

  #enveloped(type, text, at) {
    const { feed, id, time } = JSON.parse(text);
    const data = dataOf(text);
    this.received++;
    if (id === undefined) return [...this.#move(at), ...this.#of(feed, () => [ephemeral(type, data, time)])];
    return [...this.#move(at, feed), ...this.#of(feed, (reading) => reading.event(type, data, at.get(feed), time))];
  }

  // The cursor of the whole connection also moves over events that the page does not listen to, in every feed.
  #move(at, except = "") {
    return this.feeds.flatMap(([feed]) => (feed === except || !at.has(feed) ? [] : this.#of(feed, (reading) => reading.moved(at.get(feed)))));
  }

  #live() {
    const came = this.feeds.map(([feed, reading]) => ({ feed, ...reading.live() }));
    const sum = (member) => came.reduce((total, one) => total + (one[member] ?? 0), 0);
    const resumed = came.some((one) => one.resumed);
    const total = { delivered: sum("delivered"), lost: sum("lost"), unheard: sum("unheard") };
    if (!resumed && total.delivered === 0) return [];
    return [{ kind: resumed ? "caught-up" : "live", ...total, feeds: this.many ? came.filter((one) => one.delivered) : [] }];
  }

  // If there are several feeds, each entry names its feed.
  #of(feed, entriesOf) {
    const reading = this.#readings.get(feed);
    if (!reading) return [];
    const entries = entriesOf(reading);
    return this.many ? entries.map((entry) => ({ ...entry, feed, tone: this.toneOf(feed) })) : entries;
  }

  // Six colors are enough: names distinguish feeds.
  toneOf(feed) {
    return [...this.#readings.keys()].indexOf(feed) % 6;
  }
}

const ephemeral = (type, data, time) => ({ kind: "event", id: null, type, data, how: "ephemeral", time });

// Returns the data as it was published; JSON.parse would round its numbers. It is the last member of an
// envelope, and no value before it contains a quotation mark.
function dataOf(text) {
  const value = text.slice(text.indexOf('"data":') + '"data":'.length, text.lastIndexOf("}"));
  return value.startsWith('"') ? JSON.parse(value) : value;
}
