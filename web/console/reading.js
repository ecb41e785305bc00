// Everything that a subscriber learns about one feed: its cursor, and when it has caught up. It knows neither network
// nor page; each method returns the entries to show.

export class Reading {
  first;
  last;
  cursor;
  closed = false;
  #opened = false;
  #replay = null;

  // A page of history comes before the stream.
  constructor({ cursor, first, last }) {
    this.cursor = cursor;
    this.first = first;
    this.last = last;
  }

  open(info) {
    const resumed = this.#opened;
    this.#opened = true;
    this.first = info.first;
    this.last = info.last;
    const before = this.#replay?.resumed ? this.#replay : { delivered: 0, lost: 0 };
    this.#replay = { ...before, resumed, until: info.last };
  }

  event(event) {
    if (event.id === null) return [{ kind: "event", how: "ephemeral", ...event }];
    const entries = this.#passTo(event.id - 1);
    const missed = this.#replay !== null && this.#replay.resumed && event.id <= this.#replay.until;
    if (missed) this.#replay.delivered++;
    this.cursor = event.id;
    this.last = Math.max(this.last, event.id);
    return [...entries, { kind: "event", how: missed ? "missed" : "live", ...event }];
  }

  gap({ reason, after, resumes, cursor }) {
    const ahead = reason === "ahead";
    const entries = ahead ? [] : this.#passTo(after);
    const lost = ahead ? 0 : Math.max(0, resumes - after - 1);
    entries.push({ kind: "gap", reason, after, resumes, lost });
    this.cursor = cursor;
    this.last = ahead ? cursor : Math.max(this.last, cursor);
    if (ahead) this.closed = false; // as it is in the older store
    else this.first = resumes;
    if (this.#replay) this.#replay.lost += lost;
    return entries;
  }

  close() {
    if (this.closed) return [];
    this.closed = true;
    return [{ kind: "closed" }];
  }

  // Ends the replay, and returns its totals, or null if there was none.
  live() {
    const replay = this.#replay;
    this.#replay = null;
    return replay;
  }

  // Ids are dense: a number passed over without a feed.gap is a fault, and the page shows it.
  #passTo(id) {
    const from = this.cursor + 1;
    return id < from ? [] : [{ kind: "hole", from, to: id }];
  }
}
