// The box that publishes.

import { eventsURL } from "./place.js";
import { problemOf } from "./problem.js";

// Sends one event; answers {id, time}, or throws an Error that says why not.
export async function publish(feed, { data, type, json }) {
  const headers = { "Content-Type": json ? "application/json" : "text/plain; charset=utf-8" };
  if (type) headers["Event-Type"] = type;
  let response;
  try {
    response = await fetch(eventsURL(feed), { method: "POST", headers, body: data });
  } catch (error) {
    // A header that cannot be sent fails in the browser; everything else is the network.
    if (type && /[^\x20-\x7e]/.test(type)) throw new Error("A type is made of letters, digits and . _ : / -", { cause: error });
    throw new Error("The server cannot be reached. The event may or may not have been stored.", { cause: error });
  }
  if (!response.ok) throw new Error(await problemOf(response));
  return response.json();
}

export class PublishBox {
  #busy = false;
  #feed;
  #onSend;
  #onPublished;
  #data = document.getElementById("publish-data");
  #type = document.getElementById("publish-type");
  #json = document.getElementById("publish-json");
  #send = document.getElementById("publish-send");
  #result = document.getElementById("publish-result");

  // feed() names the feed; onSend(type) comes before an event leaves, onPublished({id, time}) after.
  constructor({ feed, onSend, onPublished, onEdit }) {
    this.#feed = feed;
    this.#onSend = onSend;
    this.#onPublished = onPublished;
    const form = document.getElementById("publish");
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit();
    });
    form.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey) || event.isComposing) return;
      event.preventDefault();
      this.#submit();
    });
    form.addEventListener("input", () => {
      this.#data.placeholder = this.#json.checked ? '{"text":"hello"}' : "Hello, whoever is there";
      onEdit();
    });
    if (/Mac|iPhone|iPad/.test(navigator.platform)) document.getElementById("modifier").textContent = "⌘";
  }

  get draft() {
    return { data: this.#data.value, type: this.#type.value.trim(), json: this.#json.checked };
  }

  // What was answered belongs to the feed it was sent to.
  forget() {
    this.#say("", "");
  }

  // A few events of its own, for whoever has just cut the connection and has nothing to say.
  async publishSamples(count) {
    for (let n = 1; n <= count; n++) {
      if (!(await this.#deliver({ data: `${n} of ${count}, published while you were away`, type: "", json: false }))) return;
    }
  }

  async #submit() {
    if (this.#busy) return;
    const draft = this.draft;
    this.#busy = true;
    this.#send.setAttribute("aria-disabled", "true");
    const published = await this.#deliver(draft);
    this.#busy = false;
    this.#send.removeAttribute("aria-disabled");
    // What was typed while the answer was on its way is a new draft.
    if (published && this.#data.value === draft.data) this.#data.value = "";
    this.#data.focus({ preventScroll: true });
    if (published) this.#data.dispatchEvent(new Event("input", { bubbles: true }));
  }

  async #deliver(draft) {
    const feed = this.#feed();
    this.#onSend(draft.type);
    try {
      const answer = await publish(feed, draft);
      this.#say("ok", `Published as ${answer.id} on ${answer.feed}`, answer.id);
      if (feed === this.#feed()) this.#onPublished(answer);
      return true;
    } catch (error) {
      this.#say("error", error.message);
      return false;
    }
  }

  #say(state, text, id = "") {
    this.#result.dataset.state = state;
    this.#result.dataset.id = id;
    this.#result.textContent = text;
  }
}
