// What a subscriber can tell from the blocks of one feed: where its cursor stands, which
// numbers it was not shown, and when it has caught up. It knows neither network nor page;
// each method returns the entries to show.

// A cursor is opaque to clients; today it is the number, and this page counts with it.
export function idOf(cursor) {
  return Number.parseInt(cursor, 10) || 0;
}

export class Reading {
  cursor = "";
  first = null;
  last = null;
  received = 0;
  reconnects = 0;
  unheard = 0;
  #opened = false;
  #replay = null;

  get replaying() {
    return this.#replay !== null;
  }

  open(info, cursor) {
    const resumed = this.#opened;
    // The browser's own cursor also moves over events that nobody listens to.
    const entries = resumed ? this.#passTo(idOf(cursor)) : [];
    this.#opened = true;
    this.cursor = cursor;
    this.first = info.first;
    this.last = info.last;
    if (resumed) this.reconnects++;

    const missed = info.last - idOf(cursor);
    if (missed < 0) {
      // Ahead of the feed: the feed.gap that follows has the word.
      this.#replay = null;
      return entries;
    }
    const before = resumed && this.#replay?.resumed ? this.#replay : { delivered: 0, unheard: 0, lost: 0 };
    this.#replay = { ...before, resumed, until: info.last };
    return missed === 0 ? [...entries, ...this.#finish()] : entries;
  }

  event(type, data, cursor) {
    this.received++;
    // A block without an id leaves the cursor where it was: an ephemeral event.
    if (cursor === this.cursor) return [{ kind: "event", id: null, type, data, how: "ephemeral" }];

    const id = idOf(cursor);
    const entries = this.#passTo(id - 1);
    const replayed = this.#replay !== null && id <= this.#replay.until;
    const missed = replayed && this.#replay.resumed;
    if (replayed) this.#replay.delivered++;
    this.#moveTo(cursor);
    entries.push({ kind: "event", id, type, data, missed, how: replayed ? "replayed" : "arrived" });
    return this.#through() ? [...entries, ...this.#finish()] : entries;
  }

  gap(info, cursor) {
    const after = idOf(info.after);
    const ahead = info.reason === "ahead";
    const entries = ahead ? [] : this.#passTo(after);
    const lost = Math.max(0, info.resumes - after - 1);
    entries.push({ kind: "gap", reason: info.reason, after, resumes: info.resumes, lost });
    this.cursor = cursor;
    this.last = ahead ? idOf(cursor) : Math.max(this.last, idOf(cursor));
    if (!ahead) this.first = info.resumes;
    if (this.#replay) this.#replay.lost += lost;
    return this.#through() ? [...entries, ...this.#finish()] : entries;
  }

  moved(cursor) {
    const entries = this.#passTo(idOf(cursor));
    this.#moveTo(cursor);
    return this.#through() ? [...entries, ...this.#finish()] : entries;
  }

  // The stream fell silent before the last id that feed.open named: what is left of the
  // replay must be of types that nobody listens to, which no event tells this page.
  settle() {
    return this.#replay ? this.#finish() : [];
  }

  #moveTo(cursor) {
    this.cursor = cursor;
    this.last = Math.max(this.last, idOf(cursor));
  }

  // Ids are dense, so numbers passed over without a feed.gap were events of other types.
  #passTo(id) {
    const count = id - idOf(this.cursor);
    if (count <= 0) return [];
    this.unheard += count;
    if (this.#replay) this.#replay.unheard += Math.min(count, Math.max(0, this.#replay.until - idOf(this.cursor)));
    return [{ kind: "unheard", count, from: id - count + 1, to: id }];
  }

  #through() {
    return this.#replay !== null && idOf(this.cursor) >= this.#replay.until;
  }

  #finish() {
    const { resumed, delivered, unheard, lost, until } = this.#replay;
    this.#replay = null;
    if (!resumed && delivered === 0) return [];
    const unseen = Math.max(0, until - idOf(this.cursor));
    return [{ kind: resumed ? "caught-up" : "live", delivered, lost, unheard: unheard + unseen }];
  }
}
