// The list: a window of the feed's events, which slides. Rows that leave it at one end can be read again from there.

import { element, write } from "./dom.js";
import { details, rowOf, writeData } from "./rows.js";
import { later } from "./later.js";
import { number } from "./words.js";

const ROWS_LIVE = 100; // while the list follows the feed
const ROWS_SEVERAL = 400; // while it follows several, whose rows cannot be read again
const ROWS_MOST = 1200; // while somebody reads further back
const PAGE = 100;
// Rows that were drawn or got another width have their heights after so long.
const SETTLED = 500;
const NEAR_BOTTOM = 32;
const NEAR_TOP = 300;
// With more new rows than this at once, highlighting each of them shows nothing.
const FRESH_MOST = 25;
// A feed of which no event came for so long is calm.
const CALM = 300;
// Pages read at once to fill a list in which a filter hides most.
const PAGES_ALONE = 10;

export class View {
  #list;
  #newest;
  #empty;
  #pages = null;
  #live = ROWS_LIVE;
  #filter = () => true;
  #waiting = [];
  #drawn = 0;
  #following = true;
  #attached = true; // to the live end
  #busy = false;
  #indent = false;
  #unread = 0;
  #digits = 0;
  #names = 0;
  #was = 0; // how far down the list was
  #moved = 0; // when its rows were drawn or got another width
  #input = 0; // when a person did something in it
  #rows = 0;
  #first = 1;
  #entries = new WeakMap();
  #top = element("li", "earlier");
  #round = 0;
  #holding = 0; // the round in which the newest page is read: what comes meanwhile waits for it

  constructor({ list, newest, empty }) {
    this.#list = list;
    this.#newest = newest;
    this.#empty = empty;
    list.addEventListener("scroll", () => this.#noteScroll(), { passive: true });
    list.addEventListener("click", (event) => this.#clicked(event));
    list.addEventListener("keydown", (event) => this.#key(event));
    for (const name of ["wheel", "touchmove", "keydown", "pointerdown"]) list.addEventListener(name, () => { this.#input = performance.now(); }, { passive: true });
    new ResizeObserver(() => {
      this.#moved = performance.now();
      if (this.#following) this.#toBottom();
    }).observe(list);
    newest.addEventListener("click", () => {
      list.focus({ preventScroll: true }); // the button disappears
      this.toNewest();
    });
  }

  // pages reads the feed: {read(params), last()}, or null for several feeds, whose pages have no common order.
  clear(pages) {
    this.#pages = pages;
    this.#live = pages ? ROWS_LIVE : ROWS_SEVERAL;
    this.#nextRound();
    this.#first = 1;
    this.#reset();
    this.#empty.hidden = false;
  }

  // Drops the pages that are on their way.
  #nextRound() {
    this.#busy = false;
    return ++this.#round;
  }

  #reset() {
    this.#waiting = [];
    this.#unread = this.#rows = 0;
    this.#busy = false;
    this.#list.replaceChildren();
    this.#following = this.#attached = true;
    this.#newest.hidden = true;
  }

  // Shows what comes live.
  add(entries) {
    for (const entry of entries) this.#waiting.push(entry);
    // A hidden page gets no frames: do not keep what the page would never show.
    if (this.#waiting.length > 2 * ROWS_MOST) {
      const over = this.#waiting.splice(0, this.#waiting.length - ROWS_MOST);
      this.#nextRound(); // a page that is on its way would not join on
      if (this.#following) this.#cleared();
      else this.#detach(over.concat(this.#waiting.splice(0)));
    }
    later(this.#draw);
  }

  // Shows a page of history in place of what is shown.
  replace(page, attached) {
    this.#reset();
    this.#first = page.first;
    this.#attached = attached;
    this.#append(page.events, false);
    this.#topLine();
    this.#toBottom();
    this.#newest.hidden = attached;
    if (!attached) this.#newest.textContent = "Back to live";
    this.#fill(PAGES_ALONE);
  }

  // Shows the events around an id. Returns the id that it went to, or null if there is none.
  async jump(id) {
    const round = this.#nextRound();
    const page = await this.#pages.read({ after: Math.max(0, id - 1 - PAGE / 2), limit: PAGE });
    if (round !== this.#round || page.events.length === 0) return null;
    this.replace(page, page.cursor >= this.#pages.last());
    const target = page.events.find((event) => event.id >= id) ?? page.events.at(-1);
    const row = this.#list.querySelector(`[data-id="${target.id}"]`);
    this.#following = false;
    row.classList.add("sought");
    row.hidden = false;
    row.scrollIntoView({ block: "center" });
    row.querySelector(".id").focus({ preventScroll: true });
    return target.id;
  }

  async toNewest() {
    if (this.#attached) {
      this.#following = true;
      return this.#toBottom();
    }
    const round = this.#nextRound();
    this.#holding = round;
    try {
      const page = await this.#pages.read({ before: this.#pages.newest, limit: PAGE });
      if (round !== this.#round) return;
      // What came while the page was on its way follows it.
      const came = this.#waiting;
      this.replace(page, true);
      this.#waiting = came;
    } catch {
      // The button is still there.
    } finally {
      if (this.#holding === round) this.#holding = 0;
      later(this.#draw);
    }
  }

  filter(shows) {
    this.#filter = shows;
    for (const row of this.#list.querySelectorAll(":scope > .event")) row.hidden = !shows(row.dataset.type);
    if (this.#following) this.#toBottom();
    this.#fill(PAGES_ALONE);
  }

  indent(on) {
    this.#indent = on;
    for (const row of this.#list.children) {
      const entry = this.#entries.get(row);
      if (entry?.kind === "event" && !entry.removed) writeData(row.querySelector(".data"), entry, on);
    }
    if (this.#following) this.#toBottom();
  }

  // The oldest event that is kept, as the feed has it now.
  keeps(first) {
    this.#first = first;
    this.#topLine();
  }

  #draw = () => {
    if (this.#holding) return;
    const calm = performance.now() - this.#drawn > CALM;
    this.#drawn = this.#moved = performance.now();
    const entries = this.#waiting;
    this.#waiting = [];
    if (entries.length === 0) return;
    if (!this.#attached) return this.#detach(entries);
    if (!this.#following && this.#rows + entries.length > ROWS_MOST) return this.#detach(entries);
    if (this.#following && entries.length > this.#live) {
      entries.splice(0, entries.length - this.#live);
      this.#cleared();
    }
    const events = this.#append(entries, calm && entries.length <= FRESH_MOST);
    if (this.#following) {
      this.#dropTop(this.#live);
      this.#topLine();
      this.#toBottom();
    } else this.#offerNewest(events);
  };

  #cleared() {
    this.#list.replaceChildren();
    this.#rows = 0;
  }

  // The live end is too far from what is being read: the list no longer reaches it.
  #detach(entries) {
    if (!this.#pages) {
      this.#following = true;
      this.#waiting.unshift(...entries);
      return;
    }
    this.#attached = false;
    this.#offerNewest(entries.filter((entry) => entry.kind === "event").length);
  }

  // Appends what follows the last row, and returns how many events are among it that are shown.
  #append(entries, fresh) {
    const look = { fresh, indent: this.#indent, today: new Date().toDateString() };
    const rows = document.createDocumentFragment();
    let events = 0;
    let last = this.#edge(-1);
    for (const entry of entries) {
      if (this.#pages && entry.kind === "event" && entry.id !== null && entry.id <= last) continue;
      if (entry.id) last = entry.id;
      events += this.#make(entry, look, rows);
    }
    this.#list.append(rows);
    this.#fit(entries);
    if (this.#list.children.length > 0) this.#empty.hidden = true;
    return events;
  }

  #make(entry, look, rows) {
    const row = rowOf(entry, look);
    this.#entries.set(row, entry);
    const shown = entry.kind === "event" && this.#filter(entry.type);
    if (entry.kind === "event") row.hidden = !shown;
    rows.append(row);
    this.#rows++;
    return shown ? 1 : 0;
  }

  // The id of the first or last event in the list, 0 if there is none.
  #edge(at) {
    let row = at < 0 ? this.#list.lastElementChild : this.#list.firstElementChild;
    while (row && !row.dataset.id) row = at < 0 ? row.previousElementSibling : row.nextElementSibling;
    return Number(row?.dataset.id ?? 0);
  }

  // The thread stays clear of the longest id, and the data of the longest name.
  #fit(entries) {
    let digits = Math.max(3, this.#digits);
    let names = this.#names;
    for (const { id, feed } of entries) {
      if (id) digits = Math.max(digits, String(id).length);
      if (feed) names = Math.max(names, feed.length);
    }
    if (digits !== this.#digits) this.#list.style.setProperty("--digits", this.#digits = digits);
    if (names !== this.#names) this.#list.style.setProperty("--names", this.#names = names);
  }

  #dropTop(most) {
    for (let over = this.#rows - most; over > 0; over--) {
      const row = this.#top.isConnected ? this.#top.nextElementSibling : this.#list.firstElementChild;
      row.remove();
      this.#rows--;
    }
  }

  #dropBottom(most) {
    if (this.#rows <= most) return;
    for (let over = this.#rows - most; over > 0; over--) {
      this.#list.lastElementChild.remove();
      this.#rows--;
    }
    this.#attached = false;
    this.#newest.textContent = "Back to live";
    this.#newest.hidden = false;
  }

  // Reads one page further back.
  async #older() {
    const oldest = this.#edge(1);
    if (!this.#pages || this.#busy || oldest <= this.#first || oldest === 0) return false;
    this.#busy = true;
    const round = this.#round;
    try {
      const page = await this.#pages.read({ before: oldest, limit: PAGE });
      if (round !== this.#round) return false;
      this.#first = page.first;
      // The feed has moved on meanwhile, and its oldest events may be gone.
      if (page.events.at(-1)?.id === oldest - 1) this.#prepend(page.events);
      else this.#first = Math.max(this.#first, oldest);
      this.#topLine();
      return page.events.length > 0;
    } catch (error) {
      this.#topLine(`Earlier events could not be read: ${error.message}`);
      return false;
    } finally {
      if (round === this.#round) this.#busy = false;
    }
  }

  #prepend(events) {
    const look = { fresh: false, indent: this.#indent, today: new Date().toDateString() };
    const rows = document.createDocumentFragment();
    for (const event of events) this.#make(event, look, rows);
    const { scrollHeight, scrollTop } = this.#list;
    this.#top.remove();
    this.#list.prepend(rows);
    this.#fit(events);
    this.#list.prepend(this.#top);
    this.#list.scrollTop = scrollTop + this.#list.scrollHeight - scrollHeight;
    if (!this.#following) this.#dropBottom(ROWS_MOST);
  }

  // Reads one page further on, towards the live end.
  async #newer() {
    if (this.#attached || this.#busy || !this.#pages) return;
    this.#busy = true;
    const round = this.#round;
    try {
      const page = await this.#pages.read({ after: this.#edge(-1), limit: PAGE });
      if (round !== this.#round) return;
      this.#append(page.events, false);
      const before = this.#list.scrollHeight;
      this.#dropTop(ROWS_MOST);
      this.#topLine();
      this.#list.scrollTop -= before - this.#list.scrollHeight;
      this.#attached = page.cursor >= this.#pages.last();
      if (this.#attached) this.#unread = 0;
      this.#newest.hidden = this.#attached;
    } catch {
      // The next scroll asks again.
    } finally {
      if (round === this.#round) this.#busy = false;
    }
  }

  // With a filter, a page may have little to show.
  async #fill(pages) {
    const { scrollHeight, clientHeight } = this.#list;
    if (pages === 0 || clientHeight === 0 || scrollHeight > clientHeight + NEAR_TOP) return;
    if (await this.#older()) {
      if (this.#following) this.#toBottom();
      this.#fill(pages - 1);
    }
  }

  // The line above the first row: where it begins, or how to read further back.
  #topLine(fault) {
    const oldest = this.#edge(1);
    let text = fault ?? "";
    if (!fault && oldest > 0) {
      if (!this.#pages) text = "Open one feed alone to read further back";
      else if (oldest < this.#first) text = `Events up to ${this.#first - 1} are no longer kept; the list has them from before`;
      else if (oldest > this.#first) text = "Scroll up for earlier events";
      else text = oldest === 1 ? "The feed begins here" : `Events up to ${oldest - 1} are no longer kept`;
    }
    if (text === "") return this.#top.remove();
    write(this.#top, text);
    if (this.#list.firstElementChild !== this.#top) this.#list.prepend(this.#top);
  }

  // A scroll upwards leaves the live end, unless it comes from rows that change their height, as when a telephone is turned.
  #noteScroll() {
    const { scrollTop, clientHeight, scrollHeight } = this.#list;
    const below = scrollHeight - clientHeight - scrollTop;
    const own = performance.now() - this.#moved < SETTLED && performance.now() - this.#input > SETTLED;
    const up = scrollTop < this.#was && below > 1 && !own;
    this.#was = scrollTop;
    if (this.#following && !up && below > NEAR_BOTTOM) return this.#toBottom();
    this.#following = this.#attached && !up && below <= NEAR_BOTTOM;
    this.#list.style.overflowAnchor = this.#following ? "none" : "auto";
    if (scrollTop < NEAR_TOP && !this.#following) this.#older();
    if (below <= NEAR_BOTTOM && !this.#attached) this.#newer();
    if (!this.#following) return;
    this.#unread = 0;
    this.#newest.hidden = true;
  }

  #offerNewest(count) {
    this.#unread += count;
    this.#newest.textContent = this.#unread ? `${number(this.#unread)} newer` : this.#attached ? "Newest" : "Back to live";
    this.#newest.hidden = false;
  }

  #toBottom() {
    this.#list.style.overflowAnchor = "none";
    this.#list.scrollTop = this.#list.scrollHeight;
    this.#was = this.#list.scrollTop;
  }

  // The id opens and closes an event's details. Data that is cut off opens them, too: it can then be scrolled.
  #clicked({ target }) {
    const row = target.closest("#events > .event");
    const cut = target.closest(".cut") && !row.classList.contains("open") && getSelection().isCollapsed;
    if (!target.closest(".id") && !cut) return;
    const open = row.classList.toggle("open");
    row.querySelector(".id").setAttribute("aria-expanded", String(open));
    const long = row.querySelector(".long");
    if (long) long.tabIndex = open ? 0 : -1;
    if (!open) return row.querySelector(".details").remove();
    row.append(details(this.#entries.get(row)));
    row.querySelector(".details").scrollIntoView({ block: "nearest" });
  }

  // The arrow keys go from event to event, Escape goes back to the list.
  #key(event) {
    const row = event.target.closest("#events > .event");
    if (event.key === "Escape" && row) return this.#list.focus();
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step === undefined || event.target.closest(".long") || event.ctrlKey || event.metaKey || event.altKey) return;
    const next = row ? neighbour(row, step) : this.#lastInView();
    if (!next) return;
    event.preventDefault();
    next.querySelector(".id").focus();
    next.scrollIntoView({ block: "nearest" });
  }

  #lastInView() {
    const { bottom } = this.#list.getBoundingClientRect();
    let row = this.#list.lastElementChild;
    while (row && (row.hidden || !row.classList.contains("event") || row.getBoundingClientRect().top > bottom)) row = row.previousElementSibling;
    return row;
  }
}

function neighbour(row, step) {
  let next = row;
  do next = step > 0 ? next.nextElementSibling : next.previousElementSibling;
  while (next && (next.hidden || !next.classList.contains("event")));
  return next;
}
