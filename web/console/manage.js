// Trims, closes and deletes a feed, each after a dialog that names it.

import { at } from "./dom.js";
import { ask } from "./api.js";
import { closeURL, eventsURL, feedURL } from "./place.js";
import { short } from "./words.js";

const TASKS = {
  trim: {
    title: (feed) => `Trim ${feed}?`,
    text: (feed) => `The events of ${short(feed)} below this id are deleted. This cannot be undone.`,
    button: (feed) => `Trim ${short(feed)}`,
    send: (feed, before) => ask(eventsURL(feed, { before }), { method: "DELETE" }),
    done: (feed, before) => `Trimmed ${short(feed)}: the events below ${before} are gone.`,
  },
  close: {
    title: (feed) => `Close ${feed}?`,
    text: (feed) => `Nobody can publish to ${short(feed)} any more, and its subscribers stop after its last event. A closed feed stays closed, even if it is deleted.`,
    button: (feed) => `Close ${short(feed)}`,
    send: (feed) => ask(closeURL(feed), { method: "POST" }),
    done: (feed) => `Closed ${short(feed)}.`,
  },
  delete: {
    title: (feed) => `Delete ${feed}?`,
    text: (feed) => `All events of ${short(feed)} are deleted. This cannot be undone. If somebody publishes to it again, its numbering goes on.`,
    button: (feed) => `Delete ${short(feed)}`,
    send: (feed) => ask(feedURL(feed), { method: "DELETE" }),
    done: (feed) => `Deleted all events of ${short(feed)}.`,
  },
};

export class Manage {
  #feed = "";
  #last = () => 0;
  #task = null;
  #onDone;

  // onDone() is called after a change.
  constructor({ onDone }) {
    this.#onDone = onDone;
    for (const name of Object.keys(TASKS)) at(`manage-${name}`).addEventListener("click", () => this.#open(name));
    at("confirm-cancel").addEventListener("click", () => at("confirm").close());
    at("confirm-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#send();
    });
  }

  // last() returns the newest id, which bounds where to trim. Several feeds are managed each on its own page.
  offer(feeds, last) {
    [this.#feed] = feeds;
    this.#last = last;
    at("manage").hidden = feeds.length > 1;
    this.#say("", "");
  }

  close(closed) {
    at("manage-close").disabled = closed;
  }

  #open(name) {
    this.#task = TASKS[name];
    at("confirm-title").textContent = this.#task.title(this.#feed);
    at("confirm-text").textContent = this.#task.text(this.#feed);
    at("confirm-send").textContent = this.#task.button(this.#feed);
    at("confirm-trim").hidden = name !== "trim";
    at("confirm-before").value = "";
    at("confirm-before").placeholder = `up to ${this.#last() + 1}`;
    at("confirm-problem").textContent = "";
    at("confirm").showModal();
    if (name !== "trim") at("confirm-cancel").focus();
  }

  async #send() {
    const before = at("confirm-before").value.trim();
    if (this.#task === TASKS.trim && !/^[0-9]{1,16}$/.test(before)) {
      at("confirm-problem").textContent = "An id is a number";
      return;
    }
    at("confirm-send").disabled = true;
    try {
      await this.#task.send(this.#feed, before);
      at("confirm").close();
      this.#say("ok", this.#task.done(this.#feed, before));
      this.#onDone();
    } catch (error) {
      at("confirm-problem").textContent = error.message;
    } finally {
      at("confirm-send").disabled = false;
    }
  }

  #say(state, text) {
    at("manage-result").dataset.state = state;
    at("manage-result").textContent = text;
  }
}
