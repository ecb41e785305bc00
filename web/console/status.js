// The strip above the list: the state of the connection in a word, a sentence and a few numbers.

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
    // A focused button that vanishes would drop the keyboard back to the top of the page.
    if (kind !== "cut" && document.activeElement === away) this.#at("cut").focus();
    away.hidden = kind !== "cut";
  }

  tick(secondsLeft, share) {
    this.#at("countdown").textContent = secondsLeft;
    this.#at("dial-hand").style.strokeDashoffset = String(100 * (1 - share));
  }

  // Once a frame at most: a busy feed changes these thousands of times a second.
  count(reading) {
    this.#frame ||= requestAnimationFrame(() => {
      this.#frame = 0;
      const current = reading();
      this.#set("cursor", current.cursor || "–");
      this.#set("first", current.first ?? "–");
      this.#set("last", current.last ?? "–");
      this.#at("range").dataset.known = String(current.first !== null);
      this.#set("received", number(current.received));
      this.#set("reconnects", number(current.reconnects));
      const unheard = this.#at("unheard");
      unheard.hidden = current.unheard === 0;
      unheard.textContent = `${plural(current.unheard, "event")} not shown, of a type not listed under Types`;
    });
  }

  #set(id, value) {
    const text = String(value);
    const place = this.#at(id);
    if (place.textContent !== text) place.textContent = text;
  }
}
