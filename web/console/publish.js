// The box that publishes.

import { at } from "./dom.js";
import { deliver, newKey } from "./deliver.js";

export class PublishBox {
  #busy = false;
  // An event whose outcome is unknown, and its key. Publishing the same again uses the same key.
  #unsettled = { event: "", key: "" };
  #onEdit;
  #form = at("publish");
  #feed = at("publish-feed");
  #data = at("publish-data");
  #type = at("publish-type");
  #json = at("publish-json");
  #ephemeral = at("publish-ephemeral");
  #close = at("publish-close");
  #send = at("publish-send");
  #result = at("publish-result");

  // onEdit() is called when the draft has changed.
  constructor({ onEdit }) {
    this.#onEdit = onEdit;
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit();
    });
    this.#form.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey) || event.isComposing) return;
      event.preventDefault();
      this.#submit();
    });
    this.#form.addEventListener("input", () => this.#edited());
    if (/Mac|iPhone|iPad/.test(navigator.platform)) at("modifier").textContent = "⌘";
  }

  get draft() {
    return {
      feed: this.#feed.value,
      data: this.#data.value,
      type: this.#type.value.trim(),
      json: this.#json.checked,
      ephemeral: this.#ephemeral.checked,
      close: this.#close.checked,
    };
  }

  // Sets the feeds to choose from, and clears the result, which belongs to the feeds before.
  offer(feeds) {
    const chosen = this.#feed.value;
    this.#feed.replaceChildren(...feeds.map((feed) => new Option(feed, feed)));
    if (feeds.includes(chosen)) this.#feed.value = chosen;
    at("publish-to").hidden = feeds.length < 2;
    this.#send.disabled = false;
    this.#say("", "");
  }

  // A closed feed takes no more events. Chooses another one, but not to close that.
  close(feed) {
    const option = [...this.#feed.options].find((one) => one.value === feed);
    if (!option || option.disabled) return;
    option.disabled = true;
    option.textContent = `${feed} (closed)`;
    const next = [...this.#feed.options].find((one) => !one.disabled);
    if (next && this.#feed.value === feed) {
      this.#feed.value = next.value;
      this.#close.checked = false;
      this.#edited();
    }
    this.#send.disabled = !next;
    if (!next && this.#result.textContent === "") this.#say("", "Closed feeds take no more events.");
  }

  // Publishes samples, to one feed after the other, for a user who has cut the connection.
  async publishSamples(count) {
    const feeds = [...this.#feed.options].filter((option) => !option.disabled).map((option) => option.value);
    for (let n = 1; n <= count; n++) {
      const data = `${n} of ${count}, published while you were away`;
      if (!(await this.#deliver({ feed: feeds[(n - 1) % feeds.length], data, type: "", json: false }))) return;
    }
  }

  #edited() {
    this.#data.placeholder = this.#json.checked ? '{"text":"hello"}' : "Hello, everyone";
    // An event that is not stored cannot be the last event of a feed.
    this.#close.disabled = this.#ephemeral.checked;
    this.#ephemeral.disabled = this.#close.checked;
    this.#send.textContent = this.#close.checked ? "Publish and close" : "Publish";
    this.#onEdit();
  }

  async #submit() {
    if (this.#busy || this.#send.disabled) return;
    const draft = this.draft;
    this.#busy = true;
    this.#send.setAttribute("aria-disabled", "true");
    const published = await this.#deliver(draft);
    this.#busy = false;
    this.#send.removeAttribute("aria-disabled");
    // Text typed while the answer was on its way is a new draft.
    if (published && this.#data.value === draft.data) this.#data.value = "";
    if (published && draft.close) this.#close.checked = false;
    this.#data.focus({ preventScroll: true });
    if (published) this.#edited();
  }

  async #deliver(draft) {
    const { feed } = draft;
    const event = JSON.stringify(draft);
    const key = event === this.#unsettled.event ? this.#unsettled.key : newKey();
    try {
      const answer = await deliver(feed, draft, key, (problem) => this.#say("waiting", `${problem} Trying again, with the same Idempotency-Key.`));
      this.#settle(event, "");
      if (answer.id) this.#say("ok", `Published as ${answer.id} on ${feed}${answer.replayed ? "; an earlier attempt had already stored it" : ""}`, answer.id);
      else this.#say("ok", `Sent to the subscribers that are connected to ${feed}`);
      return true;
    } catch (error) {
      this.#settle(event, error.unknown ? key : "");
      const again = draft.ephemeral ? "It may have been sent." : "It may or may not be stored. Publish it again unchanged: with the same Idempotency-Key, the server stores it once.";
      this.#say("error", error.unknown ? `${error.message} ${again}` : error.message);
      return false;
    }
  }

  #settle(event, key) {
    if (key) this.#unsettled = { event, key };
    else if (event === this.#unsettled.event) this.#unsettled = { event: "", key: "" };
  }

  #say(state, text, id = "") {
    this.#result.dataset.state = state;
    this.#result.dataset.id = id;
    this.#result.textContent = text;
  }
}
