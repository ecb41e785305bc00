// The strip above the list: the state of the connection in a word, a sentence and a few numbers.

import { FeedCards } from "./cards.js";
import { number, plural } from "./words.js";

const LABELS = { connecting: "Connecting", live: "Live", reconnecting: "Reconnecting", cut: "Cut", closed: "Closed", failed: "Refused" };
const ACTIONS = {
  connecting: ["cut", "Cut the connection"],
  live: ["cut", "Cut the connection"],
  reconnecting: ["reconnect", "Reconnect now"],
  cut: ["reconnect", "Reconnect now"],
  closed: ["none", "Cut the connection"],
  failed: ["reconnect", "Try again"],
};

export class Status {
  #at = (id) => document.getElementById(id);
  #frame = 0;
  #feeds = new FeedCards(document.getElementById("feeds"));

  show(state) {
    const status = this.#at("status");
    status.dataset.state = state;
    const label = status.querySelector(".label");
    if (label.textContent !== LABELS[state]) label.textContent = LABELS[state];
    const [action, text] = ACTIONS[state];
    const button = this.#at("cut");
    button.dataset.action = action;
    button.disabled = action === "none";
    button.textContent = text;
  }

  // kind is calm, cut, good, trouble or error.
  say(kind, text) {
    this.#at("notice").dataset.kind = kind;
    const place = this.#at("notice-text");
    if (place.textContent !== text) place.textContent = text;
    const away = this.#at("publish-away");
    // If a focused button disappears, the keyboard focus returns to the top of the page.
    if (kind !== "cut" && document.activeElement === away) this.#at("cut").focus();
    away.hidden = kind !== "cut";
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
      if (current.many) this.#feeds.show(current);
      else this.#one(current.feeds[0][1]);
      this.#at("feeds").hidden = !current.many;
      for (const fact of document.querySelectorAll(".facts .one")) fact.hidden = current.many;
      this.#set("received", number(current.received));
      this.#set("reconnects", number(current.reconnects));
      const unheard = this.#at("unheard");
      unheard.hidden = current.unheard === 0;
      unheard.textContent = `${plural(current.unheard, "event")} not shown, of a type not listed under Types`;
    });
  }

  #one(reading) {
    this.#set("cursor", reading.cursor || "–");
    this.#set("first", reading.first ?? "–");
    this.#set("last", reading.last ?? "–");
    this.#at("range").dataset.known = String(reading.first !== null);
  }

  #set(id, value) {
    const text = String(value);
    const place = this.#at(id);
    if (place.textContent !== text) place.textContent = text;
  }
}
