// Everything that a subscriber learns about one feed from the blocks of its stream: its cursor, the ids that it
// was not shown, and when it has caught up. It knows neither network nor page; each method returns the entries
// to show.

// A cursor is opaque to clients; today it is the number, and this page counts with it.
export function idOf(cursor) {
  return Number.parseInt(cursor, 10) || 0;
}

export class Reading {
  cursor = "";
  first = null;
  last = null;
  unheard = 0;
  closed = false;
  #opened = false;
  #replay = null;

  open(info, cursor) {
    const resumed = this.#opened;
    // The browser's own cursor also moves over events that the page does not listen to.
    const entries = resumed ? this.#passTo(idOf(cursor)) : [];
    this.#opened = true;
    this.cursor = cursor;
    this.first = info.first;
    this.last = info.last;
    const before = this.#replay?.resumed ? this.#replay : { delivered: 0, unheard: 0, lost: 0 };
    this.#replay = { ...before, resumed, until: info.last };
    return entries;
  }

  // time is the event's time, if the block has it.
  event(type, data, cursor, time) {
    const id = idOf(cursor);
    const entries = this.#passTo(id - 1);
    const replayed = this.#replay !== null && id <= this.#replay.until;
    const missed = replayed && this.#replay.resumed;
    if (replayed) this.#replay.delivered++;
    this.#moveTo(cursor);
    return [...entries, { kind: "event", id, type, data, missed, how: replayed ? "replayed" : "arrived", time }];
  }

  gap(info, cursor) {
    const after = idOf(info.after);
    const ahead = info.reason === "ahead";
    const entries = ahead ? [] : this.#passTo(after);
    const lost = Math.max(0, info.resumes - after - 1);
    entries.push({ kind: "gap", reason: info.reason, after, resumes: info.resumes, lost });
    this.cursor = cursor;
    this.last = ahead ? idOf(cursor) : Math.max(this.last, idOf(cursor));
    if (ahead) this.closed = false; // as it is in the older store
    else this.first = info.resumes;
    if (this.#replay) this.#replay.lost += lost;
    return entries;
  }

  moved(cursor) {
    const entries = this.#passTo(idOf(cursor));
    this.#moveTo(cursor);
    return entries;
  }

  // A client that comes back to a closed feed gets feed.closed again, or a 204.
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
}
