// The strip above the list: the state of the connection in a word, a sentence and a few numbers.

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
  #at = (id) => document.getElementById(id);
  #frame = 0;
  #timer = 0;
  #state = "connecting";
  #name = "";
  #unread = 0;
  #feeds = new FeedCards(document.getElementById("feeds"));

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
    const status = this.#at("status");
    status.dataset.state = state;
    const label = status.querySelector(".label");
    if (label.textContent !== LABELS[state]) label.textContent = LABELS[state];
    const [action, text] = ACTIONS[state];
    const button = this.#at("cut");
    button.dataset.action = action;
    button.disabled = action === "none";
    button.textContent = text;
    const icon = new URL(ICONS[state] ?? "icon.svg", import.meta.url).href;
    if (this.#at("icon").href !== icon) this.#at("icon").href = icon;
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
    this.#at("notice").dataset.kind = kind;
    const place = this.#at("notice-text");
    if (place.textContent !== text) place.textContent = text;
    this.#countDown(wait);
    const away = this.#at("publish-away");
    // If a focused button disappears, the keyboard focus returns to the top of the page.
    if (kind !== "cut" && document.activeElement === away) this.#at("cut").focus();
    away.hidden = kind !== "cut";
  }

  // The seconds are outside the live region: a screen reader would read each of them.
  #countDown(wait) {
    const place = this.#at("notice-wait");
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
    this.#at("countdown").textContent = secondsLeft;
    this.#at("dial-hand").style.strokeDashoffset = String(100 * (1 - share));
  }

  // Draws once a frame at most: a busy feed changes these thousands of times a second.
  count(readings) {
    this.#frame ||= requestAnimationFrame(() => {
      this.#frame = 0;
      const current = readings();
      if (current.many && current.known) this.#feeds.show(current);
      else if (!current.many) this.#one(current.feeds[0]?.[1]);
      this.#at("feeds").hidden = !current.many || !current.known;
      for (const fact of document.querySelectorAll(".facts .one")) fact.hidden = current.many;
      this.#set("received", number(current.received));
      this.#set("reconnects", number(current.reconnects));
    });
  }

  subscribers(count) {
    this.#at("subscribers-fact").hidden = count === null;
    this.#set("subscribers", number(count ?? 0));
  }

  #one(reading) {
    this.#set("cursor", reading?.cursor ?? "–");
    this.#set("first", reading?.first ?? "–");
    this.#set("last", reading?.last ?? "–");
    this.#at("range").dataset.known = String(reading !== undefined);
  }

  #set(id, value) {
    const text = String(value);
    const place = this.#at(id);
    if (place.textContent !== text) place.textContent = text;
  }
}
