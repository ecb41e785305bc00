// The list of events. Everything from a feed goes through textContent.

import { caughtUp, ids, number, plural } from "./words.js";

const ROWS_MOST = 400;
// With more new rows than this at once, highlighting each of them shows nothing.
const FRESH_MOST = 25;
const NEAR_BOTTOM = 32;

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const full = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
const HOW = {
  arrived: "When it arrived on this page",
  replayed: "When it was replayed to this page; it was published before",
  ephemeral: "When it arrived on this page; an ephemeral event is not stored and has no id",
  published: "When it was published",
};

export class View {
  #list;
  #newest;
  #empty;
  #waiting = [];
  #frame = 0;
  #following = true;
  #indent = false;
  #leftOut = 0;
  #unread = 0;
  #times = new Map();
  #data = new WeakMap();
  #digits = 0;
  #names = 0;

  constructor({ list, newest, empty }) {
    this.#list = list;
    this.#newest = newest;
    this.#empty = empty;
    list.addEventListener("scroll", () => this.#noteScroll(), { passive: true });
    new ResizeObserver(() => this.#following && this.#toBottom()).observe(list);
    newest.addEventListener("click", () => this.#toBottom());
  }

  clear() {
    this.#waiting = [];
    this.#leftOut = this.#unread = this.#digits = this.#names = 0;
    this.#times.clear();
    this.#list.replaceChildren();
    this.#following = true;
    this.#newest.hidden = true;
    this.#empty.hidden = false;
  }

  add(entries) {
    for (const entry of entries) this.#waiting.push({ ...entry, at: new Date() });
    // A hidden page gets no frames: do not keep rows that the page would never show.
    if (this.#waiting.length > 2 * ROWS_MOST) this.#leaveOut(this.#waiting.splice(0, this.#waiting.length - ROWS_MOST));
    this.#frame ||= requestAnimationFrame(() => this.#draw());
  }

  // Sets the time of an event that this page has published. For one feed, no other event's time is known:
  // an event stream has no field for it.
  know(id, time) {
    const at = new Date(time);
    this.#times.set(id, at);
    if (this.#times.size > ROWS_MOST) this.#times.delete(this.#times.keys().next().value);
    const row = this.#list.querySelector(`[data-id="${Number(id)}"]`);
    if (row) fillTime(row.querySelector("time"), "published", at);
  }

  indent(on) {
    this.#indent = on;
    for (const row of this.#list.children) {
      if (this.#data.has(row)) row.querySelector(".data").textContent = this.#format(this.#data.get(row));
    }
    if (this.#following) this.#toBottom();
  }

  #draw() {
    this.#frame = 0;
    const entries = this.#waiting;
    this.#waiting = [];
    if (entries.length === 0) return;
    if (entries.length > ROWS_MOST) this.#leaveOut(entries.splice(0, entries.length - ROWS_MOST));

    const fresh = entries.length <= FRESH_MOST;
    const rows = document.createDocumentFragment();
    for (const entry of entries) rows.append(this.#row(entry, fresh));
    this.#list.append(rows);
    this.#fit(entries);
    this.#trim();
    this.#empty.hidden = true;

    if (this.#following) this.#toBottom();
    else this.#offerNewest(entries.filter((entry) => entry.kind === "event").length);
  }

  // The thread stays clear of the longest id, and the data of the longest name.
  #fit(entries) {
    this.#digits = Math.max(3, this.#digits, ...entries.map((entry) => (entry.id ? String(entry.id).length : 0)));
    this.#list.style.setProperty("--digits", this.#digits);
    this.#names = Math.max(this.#names, ...entries.map((entry) => entry.feed?.length ?? 0));
    this.#list.style.setProperty("--names", this.#names);
  }

  #trim() {
    const rows = [...this.#list.querySelectorAll(":scope > li:not(.earlier)")];
    const over = rows.slice(0, Math.max(0, rows.length - ROWS_MOST));
    for (const row of over) row.remove();
    this.#leftOut += over.filter((row) => row.classList.contains("event")).length;
    if (this.#leftOut === 0) return;
    let line = this.#list.querySelector(".earlier");
    if (!line) {
      line = element("li", "earlier");
      this.#list.prepend(line);
    }
    line.textContent = `${plural(this.#leftOut, "earlier event")} not shown: this list keeps the newest ${ROWS_MOST} lines`;
  }

  #leaveOut(entries) {
    this.#leftOut += entries.filter((entry) => entry.kind === "event").length;
  }

  #row(entry, fresh) {
    if (entry.kind !== "event") return mark(entry);
    const row = element("li", "event");
    if (entry.id !== null) row.dataset.id = entry.id;
    if (entry.type) row.dataset.type = entry.type;
    color(row, entry);
    row.dataset.how = entry.missed ? "missed" : entry.how;
    row.classList.toggle("fresh", fresh && (entry.missed || entry.how !== "replayed"));
    this.#data.set(row, entry.data);

    const body = element("div", "body");
    if (entry.feed || entry.type) body.append(tags(entry));
    body.append(element("pre", "data", this.#format(entry.data)));
    const time = document.createElement("time");
    const known = entry.time ? new Date(entry.time) : this.#times.get(entry.id);
    const stored = entry.how === "ephemeral" ? entry.how : "published";
    fillTime(time, known ? stored : entry.how, known ?? entry.at);
    row.append(element("span", "id", entry.id ?? "–"), body, time);
    return row;
  }

  #format(data) {
    if (!this.#indent || !/^\s*[[{]/.test(data)) return data;
    try {
      return JSON.stringify(JSON.parse(data), null, 2);
    } catch {
      return data;
    }
  }

  #noteScroll() {
    const { scrollTop, clientHeight, scrollHeight } = this.#list;
    this.#following = scrollTop + clientHeight >= scrollHeight - NEAR_BOTTOM;
    if (!this.#following) return;
    this.#unread = 0;
    this.#newest.hidden = true;
  }

  #offerNewest(count) {
    this.#unread += count;
    this.#newest.textContent = this.#unread ? `${number(this.#unread)} newer` : "Newest";
    this.#newest.hidden = false;
  }

  #toBottom() {
    this.#list.scrollTop = this.#list.scrollHeight;
  }
}

// The lines between events: changes of the connection, and ids that are not shown.
function mark(entry) {
  const row = element("li", "mark");
  row.dataset.mark = entry.kind;
  color(row, entry);
  const line = element("p", "");
  if (entry.feed) line.append(element("span", "feed", entry.feed), " ");
  line.append(sentence(entry));
  row.append(line);
  return row;
}

// Gives a row that is about one of several feeds the color of that feed.
function color(row, { feed, tone }) {
  if (!feed) return;
  row.dataset.feed = feed;
  row.dataset.tone = tone;
}

function tags({ feed, type }) {
  const made = element("div", "tags");
  if (feed) made.append(element("span", "feed", feed));
  if (type) made.append(element("span", "type", type));
  return made;
}

function sentence(entry) {
  switch (entry.kind) {
    case "unheard": return `${plural(entry.count, "event")} of a type not listed under Types (${ids(entry.from, entry.to)})`;
    case "gap": return gapSentence(entry);
    case "closed": return "Feed closed: no more events will come";
    case "live": return "Live from here";
    case "caught-up": return caughtUp(entry).replace(/\.$/, "");
    default: return entry.text;
  }
}

function gapSentence({ reason, after, resumes, lost }) {
  if (reason === "ahead") {
    if (resumes > after) {
      return `Gap: the store of this feed was replaced by an older one, which has grown since. Events up to ${after} may differ from what is stored; the next event is ${resumes}.`;
    }
    return `Gap: the cursor ${after} is ahead of this feed. Its store was replaced by an older one; the next event is ${resumes}.`;
  }
  const why = reason === "trimmed" ? "trimmed from the feed before they could be delivered" : reason;
  return `Gap: ${plural(lost, "event")} missing (${ids(after + 1, resumes - 1)}), ${why}.`;
}

function fillTime(time, how, at) {
  time.dataset.how = how;
  time.dateTime = at.toISOString();
  time.title = `${HOW[how]}: ${full.format(at)}`;
  time.textContent = `${how} ${clock.format(at)}`;
}

function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}
