// One connection for all its readers: the feeds of all of them, from the oldest cursor. Each reader gets the events
// after its own cursor, once, in the order of their feed.

import { manyURL } from "./place.js";
import { eventOf } from "./json.js";
import { Refusal, authorization, isFinal, refusalOf } from "./api.js";

const RETRY_FIRST = 1000;
const RETRY_MOST = 30000;
const GATHER = 20; // several tabs of a restored window come at once
const SLOW = 3000;
const HEARTBEAT = 10;
const SILENCE = 3 * HEARTBEAT * 1000;

// A reader has {cursors, send(blocks)}: cursors is a Map from feed to the last id that it has.
export class Line {
  #token;
  #onRefused;
  #readers = new Set();
  #current = null;
  #next = null;
  #timer = 0;
  #failures = 0;

  // onRefused(readers, refusal) is called when the server refuses this connection for good; the line then has no readers.
  constructor(token, onRefused) {
    this.#token = token;
    this.#onRefused = onRefused;
  }

  get size() {
    return this.#readers.size;
  }

  join(reader) {
    reader.open = reader.caughtUp = false;
    this.#readers.add(reader);
    this.#failures = 0;
    this.#later(GATHER);
  }

  leave(reader) {
    if (!this.#readers.delete(reader) || this.#readers.size > 0) return;
    this.#stop();
  }

  // The network may be back, or the machine may have slept.
  wake() {
    if (this.#readers.size === 0) return;
    if (this.#current && performance.now() - this.#current.heard < 2 * HEARTBEAT * 1000) return;
    if (this.#next && performance.now() - this.#next.begun < SLOW) return;
    this.#failures = 0;
    this.#later(0);
  }

  #stop() {
    clearTimeout(this.#timer);
    this.#current?.end();
    this.#next?.end();
    this.#current = this.#next = null;
  }

  #later(delay) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#connect(), delay);
  }

  // The connection in use stays until the new one is open, so that the other readers notice nothing.
  async #connect() {
    this.#next?.end();
    const cursors = this.#cursors();
    if (cursors.size === 0) return this.#stop();
    const connection = new Connection(this.#token, cursors, new Set(this.#readers));
    this.#next = connection;
    const slow = setTimeout(() => this.#tell((reader) => !reader.open, { state: "waiting" }), SLOW);
    let refusal;
    try {
      refusal = await connection.run((blocks) => this.#take(connection, blocks), () => clearTimeout(slow));
    } catch {
      refusal = new Refusal(0, connection.opened ? "" : "The server cannot be reached", null);
    }
    clearTimeout(slow);
    if (connection.ended) return;
    connection.end();
    this.#lost(connection, refusal);
  }

  #lost(connection, refusal) {
    if (connection === this.#next) this.#next = null;
    else this.#current = null;
    if (refusal?.status === 204) return this.#finish();
    if (refusal && isFinal(refusal.status)) return this.#refused(refusal);
    if (this.#next) return;
    // Without a connection in use, all readers wait, not only those that have just come.
    if (!this.#current) for (const reader of this.#readers) reader.open = false;
    const delay = Math.min(RETRY_MOST, RETRY_FIRST * 2 ** this.#failures++) * (0.5 + Math.random());
    this.#tell((reader) => !reader.open, { state: "reconnecting", detail: refusal?.message ?? "", wait: delay });
    this.#later(delay);
  }

  // 204: all feeds are closed, and every reader has all of their events.
  #finish() {
    for (const reader of [...this.#readers]) {
      this.#readers.delete(reader);
      reader.send([...reader.cursors].map(([feed, cursor]) => ({ type: "feed.closed", feed, last: cursor })));
    }
    this.#stop();
  }

  #refused(refusal) {
    const readers = [...this.#readers];
    this.#readers.clear();
    this.#stop();
    this.#onRefused(readers, refusal);
  }

  #tell(which, block) {
    for (const reader of this.#readers) if (which(reader)) reader.send([{ type: "state", ...block }]);
  }

  #cursors() {
    const cursors = new Map();
    for (const reader of this.#readers) {
      for (const [feed, cursor] of reader.cursors) cursors.set(feed, Math.min(cursor, cursors.get(feed) ?? cursor));
    }
    return cursors;
  }

  #take(connection, blocks) {
    if (connection.ended) return;
    const out = new Map();
    for (const reader of connection.readers) if (this.#readers.has(reader)) out.set(reader, []);
    for (const block of blocks) {
      if (block.type === "feed.open") this.#opened(connection);
      for (const [reader, list] of out) list.push(...pass(reader, block));
    }
    for (const [reader, list] of out) {
      if (list.length > 0) reader.send(list);
      if (reader.cursors.size === 0) this.leave(reader); // all its feeds are closed
    }
  }

  #opened(connection) {
    this.#failures = 0;
    if (this.#next === connection) this.#next = null;
    if (this.#current !== connection) this.#current?.end();
    this.#current = connection;
    // A reader that has come meanwhile is not part of it.
    if ([...this.#readers].some((reader) => !connection.readers.has(reader))) this.#later(GATHER);
  }
}

// Returns what a reader is shown of a block.
function pass(reader, block) {
  const { cursors } = reader;
  switch (block.type) {
    case "feed.open": {
      if (reader.open) return [];
      reader.open = true;
      reader.caughtUp = false;
      return [{ ...block, feeds: block.feeds.filter(({ feed }) => cursors.has(feed)).map((info) => ({ ...info, cursor: cursors.get(info.feed) })) }];
    }
    case "feed.live": {
      if (reader.caughtUp) return [];
      reader.caughtUp = true;
      return [block];
    }
    case "feed.expired": return [block];
  }
  if (!cursors.has(block.feed)) return [];
  const cursor = cursors.get(block.feed);
  switch (block.type) {
    case "event":
      if (block.event.id !== null && block.event.id <= cursor) return [];
      if (block.event.id !== null) cursors.set(block.feed, block.event.id);
      return [block];
    case "feed.gap":
      if (block.reason !== "ahead" && block.resumes - 1 <= cursor) return [];
      cursors.set(block.feed, block.cursor);
      return [{ ...block, after: block.reason === "ahead" ? block.after : Math.max(block.after, cursor) }];
    case "feed.closed":
      cursors.delete(block.feed);
      return [block];
    default:
      return [];
  }
}

class Connection {
  readers;
  opened = false;
  ended = false;
  heard = performance.now();
  begun = performance.now();
  #request;
  #abort = new AbortController();
  #watch = 0;

  constructor(token, cursors, readers) {
    this.readers = readers;
    const lastEventId = [...cursors].map(([feed, cursor]) => `${feed}=${cursor}`).join(",");
    this.#request = [
      manyURL([...cursors.keys()], { lastEventId, control: "live", heartbeat: `${HEARTBEAT}s` }),
      { headers: { Accept: "application/x-ndjson", ...authorization(token) }, cache: "no-store", signal: this.#abort.signal },
    ];
  }

  end() {
    this.ended = true;
    clearInterval(this.#watch);
    this.#abort.abort();
  }

  // Returns the refusal, or undefined for a stream that has ended; throws if it has broken off.
  async run(take, onAnswer) {
    const response = await fetch(...this.#request);
    onAnswer();
    if (response.status === 204) return new Refusal(204, "", null);
    if (!response.ok) return refusalOf(response);
    const type = response.headers.get("Content-Type") ?? "";
    if (!type.startsWith("application/x-ndjson")) {
      return new Refusal(501, `Not an event stream: the answer is ${type || "of unknown type"}. Does a proxy between this page and Rejoin answer instead?`, null);
    }
    // A connection that has died in silence, as after a sleep.
    this.heard = performance.now();
    this.#watch = setInterval(() => { if (performance.now() - this.heard > SILENCE) this.#abort.abort(); }, HEARTBEAT * 1000);
    let rest = "";
    for (const reader = response.body.pipeThrough(new TextDecoderStream()).getReader(); ;) {
      const { value, done } = await reader.read();
      if (done) return undefined;
      this.heard = performance.now();
      const lines = (rest + value).split("\n");
      rest = lines.pop();
      const blocks = lines.filter(Boolean).flatMap(blocksOf);
      this.opened ||= blocks.some((block) => block.type === "feed.open");
      if (blocks.length > 0) take(blocks);
    }
  }
}

// Reads a line of the stream: {type, feed, …}, an event as {type: "event", feed, event}.
function blocksOf(line) {
  const event = eventOf(line);
  if (!event.type.startsWith("feed.") || event.id !== null) return [{ type: "event", feed: event.feed, event: { ...event, arrived: Date.now() } }];
  const { data, cursor } = JSON.parse(line);
  switch (event.type) {
    case "feed.open": return [{ type: "feed.open", feeds: data.feeds ?? [data] }];
    case "feed.gap": return [{ type: "feed.gap", feed: data.feed, reason: data.reason, after: Number(data.after), resumes: data.resumes, cursor: cursorIn(cursor, data.feed) }];
    case "feed.closed": return [{ type: "feed.closed", feed: data.feed, last: data.last }];
    case "feed.live": return [{ type: "feed.live" }];
    case "feed.expired": return [{ type: "feed.expired", reason: data.reason }];
    default: return []; // feed.cursor: a stream of all types has nothing to pass over
  }
}

function cursorIn(cursor, feed) {
  const part = cursor.split(",").find((one) => one.startsWith(`${feed}=`)) ?? cursor;
  return Number(part.slice(part.indexOf("=") + 1));
}
