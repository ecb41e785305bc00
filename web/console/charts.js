// Small charts of the last minutes, one point a second.

import { MINUTES } from "./nodes.js";
import { about, latency, perSecond, number } from "./words.js";
import { element, write } from "./dom.js";

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = MINUTES * 60;
const HEIGHT = 48;
// A line goes on across so many seconds without a point.
const JOIN = 3;

const rates = { unit: perSecond, mark: about };
const times = { unit: latency, mark: (ms) => (ms < 1000 ? `${ms} ms` : `${ms / 1000} s`) };
const CHARTS = [
  { title: "Events in", ...rates, lines: { in: "" } },
  { title: "Deliveries out", ...rates, lines: { out: "" } },
  { title: "Subscribers", unit: number, mark: about, lines: { subscribers: "" } },
  { title: "Delivery latency", ...times, lines: { delivery50: "p50", delivery99: "p99" } },
  { title: "Commit time", ...times, lines: { commit50: "p50", commit99: "p99" } },
];

export class Charts {
  #draws;

  constructor(place) {
    this.#draws = CHARTS.map((chart) => make(place, chart));
  }

  draw(points, now) {
    for (const draw of this.#draws) draw(points, Math.floor(now / 1000));
  }
}

function make(place, { title, unit, mark, lines }) {
  const figure = element("figure", "chart");
  const caption = element("figcaption", "");
  const scale = element("span", "scale");
  caption.append(element("span", "label", title), scale);
  const svg = shape("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" });
  svg.append(shape("path", { class: "grid", d: `M0 .5H${WIDTH}M0 ${HEIGHT / 2}H${WIDTH}M0 ${HEIGHT - 0.5}H${WIDTH}` }));
  const parts = Object.entries(lines).map(([member, name], index) => {
    const now = element("span", `now line-${index}`);
    const path = shape("path", { class: `line line-${index}` });
    caption.append(now);
    return { member, name, now, path };
  });
  svg.append(...parts.map(({ path }) => path).reverse());
  figure.append(caption, svg);
  place.append(figure);
  return (points, second) => {
    const most = nice(Math.max(0, ...points.flatMap((point) => parts.map(({ member }) => point[member] ?? 0))));
    const spoken = parts.map(({ member, name, now, path }) => {
      path.setAttribute("d", pathOf(points, member, second, most));
      const last = points.at(-1);
      const value = last && second - last.at <= JOIN && last[member] !== undefined ? unit(last[member]) : "–";
      const text = name ? `${name} ${value}` : value;
      write(now, text);
      return text;
    });
    scale.textContent = `0–${mark(most)}`;
    svg.setAttribute("aria-label", `${title}: ${spoken.join(", ")}; ${points.length > 0 ? `at most ${unit(most)} in the last ${MINUTES} minutes` : "no figures yet"}`);
  };
}

function shape(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

// Seconds without a value leave a gap.
function pathOf(points, member, second, most) {
  let path = "";
  let before = -Infinity;
  for (const { at, [member]: value } of points) {
    if (value === undefined) continue;
    const x = WIDTH - (second - at);
    const y = (HEIGHT - 1 - (HEIGHT - 2) * (value / most)).toFixed(1);
    // A value alone is a dot.
    path += at - before > JOIN ? `M${x} ${y}h.01` : `L${x} ${y}`;
    before = at;
  }
  return path;
}

// Returns the next of 1, 2, 5, 10, 20, …
function nice(most) {
  const power = 10 ** Math.floor(Math.log10(Math.max(most, 1)));
  return power * [1, 2, 5, 10].find((step) => step * power >= most);
}
