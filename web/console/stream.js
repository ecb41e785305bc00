// This tab's end of the connection that all tabs share.

const WORKER = new URL("worker.js", import.meta.url).href;

// Trusted Types let a page start a worker only through a policy. This one knows a single address.
const address = globalThis.trustedTypes?.createPolicy("rejoin", {
  createScriptURL(url) {
    if (url !== WORKER) throw new TypeError(`${url} is not a script of this page`);
    return url;
  },
}).createScriptURL(WORKER) ?? WORKER;

export class Stream {
  #port = null;
  #following = null;
  #onBlocks;

  // onBlocks(blocks) is called with what came; a block {type: "state", state, detail, wait} is about the connection:
  // waiting, reconnecting or failed.
  constructor({ onBlocks }) {
    this.#onBlocks = onBlocks;
    // A page that the browser keeps for the way back holds no connection.
    addEventListener("pagehide", () => this.#port?.postMessage({ leave: true }));
    addEventListener("pageshow", (event) => event.persisted && this.#following && dispatchEvent(new Event("rejoin-return")));
    addEventListener("online", () => this.#port?.postMessage({ wake: true }));
    document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && this.#port?.postMessage({ wake: true }));
  }

  // cursors is a list of pairs of a feed and the last id that this tab has of it.
  follow(cursors, token) {
    this.#following = { cursors, token };
    this.#port ??= this.#connect();
    this.#port.postMessage({ follow: this.#following });
  }

  leave() {
    this.#following = null;
    this.#port?.postMessage({ leave: true });
  }

  #connect() {
    if (!globalThis.SharedWorker) return this.#alone();
    try {
      const worker = new SharedWorker(address, { type: "module", name: "rejoin" });
      worker.onerror = () => {
        this.#port = this.#alone();
        if (this.#following) this.#port.postMessage({ follow: this.#following });
      };
      return this.#listen(worker.port);
    } catch {
      return this.#alone();
    }
  }

  // Without shared workers, as in some browsers of telephones, this tab has a connection of its own.
  #alone() {
    const { port1, port2 } = new MessageChannel();
    import("./lines.js").then(({ serve }) => serve(port2));
    return this.#listen(port1);
  }

  #listen(port) {
    port.onmessage = ({ data }) => port === this.#port && this.#following && this.#onBlocks(data);
    return port;
  }
}
