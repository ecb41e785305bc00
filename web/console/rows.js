// The rows of the list.

import { element } from "./dom.js";
import { caughtUp, dayOf, duration, fullTimeOf, ids, plural, timeOf } from "./words.js";
import { copyOnClick, curlOf } from "./copy.js";
import { pageOf } from "./place.js";

const LAG = {
  live: "from its time to its arrival here",
  missed: "from its time to its arrival here, missed and then delivered",
  ephemeral: "from its time to its arrival here; an ephemeral event is not stored and has no id",
};

export const rowOf = (entry, look) => (entry.kind === "event" ? eventRow(entry, look) : mark(entry));

function eventRow(entry, { fresh, indent, today }) {
  const row = element("li", entry.feed || entry.type ? "event tagged" : "event");
  if (entry.id !== null) row.dataset.id = entry.id;
  row.dataset.type = entry.type;
  color(row, entry);
  row.dataset.how = entry.how;
  row.classList.toggle("fresh", fresh && entry.how !== "history");

  const id = element("button", "id", entry.id ?? "–");
  id.type = "button";
  id.tabIndex = -1; // the list is one stop of the Tab key: the arrow keys go on from there
  id.setAttribute("aria-expanded", "false");
  id.setAttribute("aria-label", entry.id === null ? "Details of the ephemeral event" : `${entry.id}, details`);
  const body = element("div", "body");
  if (entry.feed || entry.type) body.append(tags(entry));
  body.append(dataOf(entry, indent));
  row.append(id, body, times(entry, today));
  return row;
}

function dataOf(entry, indent) {
  if (entry.removed) return element("p", "data none", entry.key === undefined ? "All keys removed" : `Key ${entry.key} removed`);
  const made = element("pre", "data");
  writeData(made, entry, indent);
  return made;
}

// Longer data than this may be cut off: writeData marks it.
const LONG = 300;
const LINES_MOST = 6;
const cuts = new ResizeObserver((seen) => seen.forEach(({ target }) => target.classList.toggle("cut", target.scrollHeight > target.clientHeight)));

export function writeData(place, entry, indent) {
  const text = visible(formatted(entry, indent));
  place.textContent = text;
  if (!entry.json) place.dir = "auto";
  if (text.trim() === "") place.dataset.none = text === "" ? "empty" : "white space";
  if (text.length <= LONG && text.split("\n", LINES_MOST + 1).length <= LINES_MOST) return;
  place.classList.add("long");
  place.role = "group";
  place.ariaLabel = "Data";
  cuts.observe(place);
}

// Shows control characters, and those that change the direction of text, as rejoin tail does: \x1b, \u202e.
const CONTROL = /[\0-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]/g;
const escaped = (c) => (c < "\x80" ? `\\x${c.charCodeAt(0).toString(16).padStart(2, "0")}` : `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`);
const visible = (text) => text.replace(CONTROL, escaped);

// The event's own time, and how long it took to get here.
function times(entry, today) {
  const made = element("div", "times");
  if (!entry.time) return made;
  const at = new Date(entry.time);
  const time = element("time", "", timeOf(at));
  time.dateTime = entry.time;
  time.title = `Published ${fullTimeOf(at)}`;
  if (at.toDateString() !== today) made.append(element("span", "day", dayOf(at)));
  made.append(time);
  if (entry.how in LAG) {
    const lag = element("span", "lag", duration(entry.arrived - at));
    lag.title = entry.arrived < at ? "It arrived before its own time: the clocks of this device and of the server differ" : `Lag: ${LAG[entry.how]}`;
    made.append(lag);
  }
  return made;
}

function formatted({ data, json }, indent) {
  if (!indent || (!json && !/^\s*[[{]/.test(data))) return data;
  try {
    return JSON.stringify(JSON.parse(data), null, 2);
  } catch {
    return data;
  }
}

// All members of an event, and what can be done with it.
export function details(entry) {
  const feed = entry.feed ?? entry.of;
  const made = element("div", "details");
  const list = element("dl");
  const add = (name, value) => value !== undefined && list.append(element("dt", "", name), element("dd", "", value));
  add("Feed", feed);
  add("Id", entry.id ?? "none: not stored");
  add("Type", entry.type || "none");
  add("Key", entry.key);
  add("Time", entry.time);
  if (entry.arrived) add("Arrived", `${new Date(entry.arrived).toISOString()}, ${duration(entry.arrived - new Date(entry.time))} later`);
  else if (entry.how === "history") add("Arrived", "read from history");
  add("Data", `${plural(new TextEncoder().encode(entry.data).length, "byte")} of ${entry.json ? "JSON" : "text"}`);
  const actions = element("div", "actions");
  const offer = (label, text) => {
    const button = element("button", "quiet", label);
    button.type = "button";
    copyOnClick(button, text);
    actions.append(button);
  };
  offer("Copy as JSON", () => entry.envelope);
  if (!entry.removed) offer("Copy as curl", () => curlOf(feed, { ...entry, ephemeral: entry.id === null }));
  offer("Copy data", () => entry.data);
  if (entry.id !== null) offer("Copy link", () => `${pageOf([feed])}#id=${entry.id}`);
  made.append(list, actions);
  return made;
}

// The lines between events: changes of the connection, and ids that are not shown.
function mark(entry) {
  const row = element("li", "mark");
  row.dataset.mark = entry.kind;
  color(row, entry);
  const line = element("p", "");
  if (entry.feed) line.append(element("span", "feed", entry.feed), " ");
  line.append(sentence(entry));
  row.append(line);
  return row;
}

// Gives a row that is about one of several feeds the color of that feed.
function color(row, { feed, tone }) {
  if (!feed) return;
  row.dataset.feed = feed;
  row.dataset.tone = tone;
}

function tags({ feed, type }) {
  const made = element("div", "tags");
  if (feed) made.append(element("span", "feed", feed));
  if (type) made.append(element("span", "type", type));
  return made;
}

function sentence(entry) {
  switch (entry.kind) {
    case "hole": return `Fault: ${ids(entry.from, entry.to)} did not arrive, and no gap was reported`;
    case "gap": return gapSentence(entry);
    case "closed": return "Feed closed: no more events will come";
    case "caught-up": return caughtUp(entry).replace(/\.$/, "");
    default: return entry.text;
  }
}

function gapSentence({ reason, after, resumes, lost }) {
  if (reason === "ahead") {
    if (resumes > after) {
      return `Gap: the store of this feed was replaced by an older one, which has grown since. Events up to ${after} may differ from what is stored; the next event is ${resumes}.`;
    }
    return `Gap: the cursor ${after} is ahead of this feed. Its store was replaced by an older one; the next event is ${resumes}.`;
  }
  const why = reason === "trimmed" ? "trimmed or deleted before they could be delivered" : reason;
  return `Gap: ${plural(lost, "event")} missing (${ids(after + 1, resumes - 1)}), ${why}.`;
}
