// The connection: a native EventSource, and the work that it leaves to a page.

import { followURL } from "./place.js";
import { problemOf } from "./problem.js";

const CONTROL = ["feed.open", "feed.live", "feed.gap", "feed.cursor", "feed.closed", "feed.expired"];
const HISTORY = "-50";
const RETRY_FIRST = 2000;
const RETRY_MOST = 30000;

// Answers that stay the same when the page asks again.
const isFinal = (status) => (status >= 400 && status < 500 && ![408, 425, 429].includes(status)) || status === 501;

export class Stream {
  #feeds;
  #types = new Set();
  #source = null;
  #timer = 0;
  #asking = null;
  #failures = 0;
  #cursor;
  #onState;
  #onBlock;

  // cursor() returns where to resume, "" for a first connection. onState(state, detail) is called with
  // connecting, live, reconnecting, cut, closed or failed. onBlock(type, data, cursor) is called for every
  // block received; the data of a control event is parsed.
  constructor({ cursor, onState, onBlock }) {
    this.#cursor = cursor;
    this.#onState = onState;
    this.#onBlock = onBlock;
  }

  follow(feeds, types) {
    this.#feeds = feeds;
    this.#types = new Set(types);
    this.#failures = 0;
    this.#connect("connecting");
  }

  listen(type) {
    if (this.#types.has(type)) return;
    this.#types.add(type);
    this.#source?.addEventListener(type, this.#pass);
  }

  cut() {
    this.#drop();
    this.#onState("cut");
  }

  // Nothing more will come.
  end() {
    this.#drop();
    this.#onState("closed");
  }

  resume() {
    this.#failures = 0;
    this.#connect("reconnecting");
  }

  #connect(state) {
    this.#drop();
    this.#onState(state);
    const source = new EventSource(this.#url());
    this.#source = source;
    source.onerror = () => this.#broken();
    source.onmessage = this.#pass;
    for (const type of this.#types) source.addEventListener(type, this.#pass);
    for (const type of CONTROL) source.addEventListener(type, this.#control);
  }

  // A native EventSource sends as a header only a cursor that it has read itself. A new one gets its cursor
  // from the URL.
  #url() {
    const cursor = this.#cursor();
    return followURL(this.#feeds, { ...(cursor === "" ? { from: HISTORY } : { lastEventId: cursor }), control: "live" });
  }

  #drop() {
    clearTimeout(this.#timer);
    this.#asking?.abort();
    this.#source?.close();
    this.#source = this.#asking = null;
  }

  #pass = (event) => {
    if (event.target === this.#source) this.#onBlock(event.type === "message" ? "" : event.type, event.data, event.lastEventId);
  };

  #control = (event) => {
    if (event.target !== this.#source) return;
    const info = JSON.parse(event.data);
    // Only now does the stream work: a server whose store is unreachable also sends a response head.
    if (event.type === "feed.open") {
      this.#failures = 0;
      this.#onState("live");
    }
    this.#onBlock(event.type, info, event.lastEventId || info.cursor || this.#cursor());
  };

  #broken() {
    if (this.#source.readyState === EventSource.CONNECTING) {
      this.#onState("reconnecting", "The browser reconnects by itself.");
      return;
    }
    // CLOSED: the browser does not retry any more, and hides the reason from scripts.
    this.#drop();
    this.#onState("reconnecting");
    this.#ask();
  }

  // Requests the same URL once more, to learn which answer the EventSource got.
  async #ask() {
    const asking = new AbortController();
    this.#asking = asking;
    let verdict;
    try {
      const response = await fetch(this.#url(), { headers: { Accept: "text/event-stream" }, signal: asking.signal, cache: "no-store" });
      verdict = await judge(response);
    } catch {
      verdict = { state: "reconnecting", detail: "The server cannot be reached." };
    }
    if (asking !== this.#asking) return;
    asking.abort();

    if (verdict.state === "closed") this.end();
    else if (verdict.state === "failed") this.#onState("failed", verdict.detail);
    else this.#retry(verdict.detail);
  }

  #retry(detail) {
    const base = Math.min(RETRY_MOST, RETRY_FIRST * 2 ** this.#failures++);
    const delay = base * (0.5 + Math.random());
    this.#onState("reconnecting", `${detail} Trying again in ${Math.ceil(delay / 1000)} s.`.trim());
    this.#timer = setTimeout(() => this.#connect("reconnecting"), delay);
  }
}

async function judge(response) {
  if (response.status === 204) return { state: "closed" };
  if (isFinal(response.status)) return { state: "failed", detail: await problemOf(response) };
  if (!response.ok) return { state: "reconnecting", detail: await problemOf(response) };
  const type = response.headers.get("Content-Type") ?? "";
  if (type.startsWith("text/event-stream")) return { state: "reconnecting", detail: "" };
  return { state: "failed", detail: `Not an event stream: the answer is ${type || "of unknown type"}. Does a proxy between this page and Rejoin answer instead?` };
}
