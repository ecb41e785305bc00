// The demonstration: a deliberately cut connection, with a countdown.

const SECONDS = 10;

export class Cut {
  #timer = 0;
  #onTick;
  #onEnd;

  constructor({ onTick, onEnd }) {
    this.#onTick = onTick;
    this.#onEnd = onEnd;
  }

  begin() {
    this.cancel();
    const end = performance.now() + SECONDS * 1000;
    const step = () => {
      const left = Math.max(0, end - performance.now());
      if (left === 0) {
        this.cancel();
        this.#onEnd();
        return;
      }
      this.#onTick(Math.ceil(left / 1000), left / (SECONDS * 1000));
    };
    this.#timer = setInterval(step, 100);
    step();
  }

  cancel() {
    clearInterval(this.#timer);
    this.#timer = 0;
  }
}
