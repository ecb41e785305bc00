// The strip above the list: the state of the connection in a word, a sentence and a few numbers.

import { at, write } from "./dom.js";
import { FeedCards } from "./cards.js";
import { number } from "./words.js";

const LABELS = { connecting: "Connecting", waiting: "Waiting", live: "Live", reconnecting: "Reconnecting", cut: "Cut", closed: "Closed", failed: "Refused" };
const CUT = "Cut the connection";
const ACTIONS = {
  connecting: ["cut", CUT],
  waiting: ["cut", CUT],
  live: ["cut", CUT],
  reconnecting: ["reconnect", "Reconnect now"],
  cut: ["reconnect", "Reconnect now"],
  closed: ["none", CUT],
  failed: ["reconnect", "Try again"],
};
const ICONS = { cut: "icon-away.svg", reconnecting: "icon-away.svg", waiting: "icon-away.svg", failed: "icon-fault.svg" };

export class Status {
  #timer = 0;
  #state = "connecting";
  #name = "";
  #unread = 0;
  #feeds = new FeedCards(at("feeds"));

  constructor() {
    document.addEventListener("visibilitychange", () => {
      this.#unread = 0;
      this.#title();
    });
  }

  name(name) {
    this.#name = name;
    this.#unread = 0;
    this.#title();
  }

  show(state) {
    this.#state = state;
    document.body.dataset.state = state;
    const status = at("status");
    status.dataset.state = state;
    write(status.querySelector(".label"), LABELS[state]);
    const [action, text] = ACTIONS[state];
    const button = at("cut");
    button.dataset.action = action;
    button.disabled = action === "none";
    button.textContent = text;
    const icon = new URL(ICONS[state] ?? "icon.svg", import.meta.url).href;
    if (at("icon").href !== icon) at("icon").href = icon;
    this.#title();
  }

  // Counts events for the title of a tab that nobody looks at.
  unread(count) {
    if (document.visibilityState === "visible" || count === 0) return;
    this.#unread += count;
    this.#title();
  }

  #title() {
    const state = ["live", "connecting"].includes(this.#state) ? "" : `${LABELS[this.#state]} · `;
    const title = `${this.#unread ? `(${number(this.#unread)}) ` : ""}${state}${this.#name} · Rejoin`;
    if (document.title !== title) document.title = title;
  }

  // kind is calm, cut, good, trouble or error. With wait, a countdown follows the text.
  say(kind, text, wait = 0) {
    clearInterval(this.#timer);
    at("notice").dataset.kind = kind;
    write(at("notice-text"), text);
    this.#countDown(wait);
    const away = at("publish-away");
    // If a focused button disappears, the keyboard focus returns to the top of the page.
    if (kind !== "cut" && document.activeElement === away) at("cut").focus();
    away.hidden = kind !== "cut";
  }

  // The seconds are outside the live region: a screen reader would read each of them.
  #countDown(wait) {
    const place = at("notice-wait");
    place.textContent = "";
    if (wait <= 0) return;
    const end = performance.now() + wait;
    const draw = () => {
      const left = Math.max(1, Math.ceil((end - performance.now()) / 1000));
      place.textContent = `; trying again in ${left} s`;
    };
    draw();
    this.#timer = setInterval(draw, 500);
  }

  tick(secondsLeft, share) {
    at("countdown").textContent = secondsLeft;
    at("dial-hand").style.strokeDashoffset = String(100 * (1 - share));
  }

  count(readings) {
    if (readings.many && readings.known) this.#feeds.show(readings);
    else if (!readings.many) this.#one(readings.feeds[0]?.[1]);
    at("feeds").hidden = !readings.many || !readings.known;
    for (const fact of document.querySelectorAll(".facts .one")) fact.hidden = readings.many;
    write(at("received"), number(readings.received));
    write(at("reconnects"), number(readings.reconnects));
  }

  subscribers(count) {
    at("subscribers-fact").hidden = count === null;
    write(at("subscribers"), number(count ?? 0));
  }

  #one(reading) {
    write(at("cursor"), reading?.cursor ?? "–");
    const kept = reading && reading.first <= reading.last;
    write(at("first"), !reading ? "–" : kept ? reading.first : reading.last > 0 ? "none kept" : "none");
    write(at("last"), reading?.last ?? "–");
    at("range").dataset.known = String(Boolean(kept));
  }
}
