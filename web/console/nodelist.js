// The list of nodes.

import { duration, fullTimeOf, latency, number, perSecond } from "./words.js";
import { element, write } from "./dom.js";

const FIGURES = {
  Subscribers: ({ subscribers }) => number(subscribers),
  "Feeds held": ({ feeds }) => number(feeds),
  In: ({ published }) => perSecond(published),
  Out: ({ delivered }) => perSecond(delivered),
  "Delivery p99": ({ delivery }) => latency(delivery.p99),
  "Commit p99": ({ commit }) => latency(commit.p99),
  Compared: ({ lag }) => `${(lag / 1000).toFixed(1)} s ago`,
  Memory: ({ memory }) => `${Math.round((100 * memory.used) / memory.limit)}%`,
};
const TITLES = {
  "Feeds held": "Feeds whose newest events it holds in memory",
  In: "Events published",
  Out: "Events delivered to subscribers",
  "Delivery p99": "From commit to subscriber, for 99 of 100 events",
  "Commit p99": "The time until the store has it, for 99 of 100 publishes",
  Compared: "When it last compared its feeds with the store: it is behind by no more than that",
  Memory: "Of limits.memory",
};

export class NodeList {
  #list;
  #rows = new Map();

  constructor(list) {
    this.#list = list;
  }

  show(nodes, now) {
    const ids = new Set(nodes.map(({ node }) => node));
    for (const [id, row] of this.#rows) if (!ids.has(id)) (row.remove(), this.#rows.delete(id));
    nodes.forEach((node, index) => {
      const row = this.#rows.get(node.node) ?? make();
      this.#rows.set(node.node, row);
      fill(row, node, now);
      if (this.#list.children[index] !== row) this.#list.insertBefore(row, this.#list.children[index] ?? null);
    });
  }
}

function make() {
  const row = element("li", "");
  const figures = element("dl", "facts");
  for (const label of Object.keys(FIGURES)) {
    const fact = element("div", "");
    if (TITLES[label]) fact.title = TITLES[label];
    fact.append(element("dt", "", label), element("dd", ""));
    figures.append(fact);
  }
  const who = element("div", "who");
  who.append(element("span", "name"), " ", element("span", "faint"));
  row.append(who, figures, element("p", "trouble"));
  return row;
}

function fill(row, node, now) {
  const trouble = troubleOf(node, now);
  row.dataset.state = node.silent ? "silent" : trouble ? "trouble" : "up";
  write(row.querySelector(".name"), node.name || node.node);
  const about = row.querySelector(".faint");
  write(about, [node.version, `up ${duration(now - new Date(node.started))}`].filter(Boolean).join(", "));
  about.title = `Node ${node.node}, started ${fullTimeOf(new Date(node.started))}`;
  row.querySelectorAll("dd").forEach((place, index) => write(place, safely(Object.values(FIGURES)[index], node)));
  write(row.querySelector(".trouble"), trouble);
}

// A figure that is missing is a dash.
function safely(figure, node) {
  try {
    const text = figure(node);
    return /NaN|undefined|null/.test(text) ? "–" : text;
  } catch {
    return "–";
  }
}

function troubleOf({ silent, draining, arrived, store, bus }, now) {
  const parts = [];
  if (silent) parts.push(`${draining ? "Stopped" : "Silent"} for ${duration(now - arrived)}`);
  else if (draining) parts.push("Stopping");
  if (!silent && store && !store.up) parts.push(`Store away: ${store.reason}`);
  if (!silent && bus && !bus.up) parts.push(`Bus away: ${bus.reason}`);
  return parts.join(". ");
}
