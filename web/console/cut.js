// The demonstration: a deliberately cut connection, with a countdown, which shortens once something waits.

import { infoOf } from "./api.js";

const SECONDS = 10;
const SECONDS_WAITED = 4;
const LOOK = 700;

export class Cut {
  #timer = 0;
  #look = 0;
  #end = 0;
  #total = 0;
  #onTick;
  #onEnd;
  #onWaiting;

  // onWaiting([{feed, last, cursor}]) is called when the newest ids of the feeds have been read.
  constructor({ onTick, onEnd, onWaiting }) {
    this.#onTick = onTick;
    this.#onEnd = onEnd;
    this.#onWaiting = onWaiting;
  }

  // cursors are pairs of a feed and the last id that this page has.
  begin(cursors) {
    this.cancel();
    this.#total = SECONDS * 1000;
    this.#end = performance.now() + this.#total;
    this.#timer = setInterval(() => this.#step(), 100);
    this.#step();
    this.#watch(cursors);
  }

  cancel() {
    clearInterval(this.#timer);
    clearTimeout(this.#look);
    this.#timer = this.#look = 0;
  }

  #step() {
    const left = Math.max(0, this.#end - performance.now());
    if (left === 0) {
      this.cancel();
      this.#onEnd();
      return;
    }
    this.#onTick(Math.ceil(left / 1000), left / this.#total);
  }

  #watch(cursors) {
    const timer = this.#timer;
    this.#look = setTimeout(async () => {
      const behind = await Promise.all(cursors.map(async ([feed, cursor]) => ({ feed, cursor, last: (await infoOf(feed).catch(() => ({ last: 0 }))).last })));
      if (timer !== this.#timer || timer === 0) return;
      if (behind.some(({ last, cursor }) => last > cursor)) {
        this.#onWaiting(behind);
        const soon = performance.now() + SECONDS_WAITED * 1000;
        if (this.#total > SECONDS_WAITED * 1000 && this.#end > soon) {
          this.#end = soon;
          this.#total = SECONDS_WAITED * 1000;
        }
      }
      this.#watch(cursors);
    }, LOOK);
  }
}
