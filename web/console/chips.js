// The types of the events, as chips. With none chosen, all are shown.

import { element, write } from "./dom.js";
import { later } from "./later.js";
import { number } from "./words.js";

const NO_TYPE = "message";
const CHIPS_MOST = 30;

export class Chips {
  #list;
  #counts = new Map();
  #buttons = new Map();
  #chosen = new Set();
  #onChange;

  // onChange(types) is called when the visitor chooses; "message" stands for events without a type.
  constructor({ list, onChange }) {
    this.#list = list;
    this.#onChange = onChange;
  }

  clear(chosen) {
    this.#counts = new Map(chosen.map((type) => [type, 0]));
    this.#chosen = new Set(chosen);
    this.#buttons = new Map();
    this.#list.replaceChildren();
    later(this.#draw);
  }

  shows = (type) => this.#chosen.size === 0 || this.#chosen.has(type || NO_TYPE);

  get types() {
    return [...this.#counts.keys()].filter((type) => type !== NO_TYPE);
  }

  see(entries) {
    for (const { kind, type } of entries) {
      if (kind === "event") this.#counts.set(type || NO_TYPE, (this.#counts.get(type || NO_TYPE) ?? 0) + 1);
    }
    later(this.#draw);
  }

  #draw = () => {
    for (const [type, count] of [...this.#counts].slice(0, CHIPS_MOST)) {
      const made = this.#buttons.get(type) ?? this.#make(type);
      write(made.count, number(count));
      made.button.setAttribute("aria-pressed", String(this.#chosen.has(type)));
    }
    // With one type there is nothing to choose.
    this.#list.hidden = this.#counts.size < 2 && this.#chosen.size === 0;
  };

  #make(type) {
    const button = element("button");
    button.type = "button";
    button.dataset.chip = type;
    const count = element("span", "count");
    button.append(element("span", "name", type === NO_TYPE ? "no type" : type), " ", count);
    button.addEventListener("click", () => {
      if (!this.#chosen.delete(type)) this.#chosen.add(type);
      this.#draw();
      this.#onChange([...this.#chosen]);
    });
    this.#list.append(button);
    this.#buttons.set(type, { button, count });
    return this.#buttons.get(type);
  }
}
