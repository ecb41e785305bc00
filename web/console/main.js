// Puts the pieces together: the address names a feed, the stream reads it, the view shows it.

import { readPlace, placeOf, parseTypes, isListenable } from "./place.js";
import { Stream } from "./stream.js";
import { Reading } from "./reading.js";
import { View } from "./view.js";
import { Status } from "./status.js";
import { Cut } from "./cut.js";
import { PublishBox } from "./publish.js";
import { showCommands, enableCopying } from "./curl.js";
import { caughtUp } from "./words.js";

// A replay that falls silent for so long has nothing more that this page can hear.
const SETTLE = 1500;

const at = (id) => document.getElementById(id);
let place = readPlace();
let reading = new Reading();
let away = null;
let settling = 0;

const status = new Status();
const view = new View({ list: at("events"), newest: at("newest"), empty: at("empty") });
const stream = new Stream({ cursor: () => reading.cursor, onState, onBlock });
const cut = new Cut({ onTick: (left, share) => status.tick(left, share), onEnd: () => stream.resume() });
const box = new PublishBox({ feed: () => place.feed, onSend: listenTo, onPublished: ({ id, time }) => view.know(id, time), onEdit: commands });

function follow() {
  place = readPlace();
  reading = new Reading();
  away = null;
  cut.cancel();
  clearTimeout(settling);
  view.clear();
  box.forget();
  at("feed").value = place.feed;
  at("types").value = place.types.join(", ");
  document.title = `${place.feed} · Rejoin`;
  stream.follow(place.feed, place.types);
  refresh();
}

function onState(state, detail = "") {
  status.show(state);
  document.body.dataset.state = state;
  const where = reading.cursor ? `after event ${reading.cursor}` : "before it opened";
  switch (state) {
    case "connecting":
      return status.say("calm", `Connecting to ${place.feed}.`);
    case "live":
      away = null;
      return status.say("calm", "Each event arrives once, in order.");
    case "reconnecting":
      leave("lost", `Connection lost ${where}`);
      return status.say("trouble", detail || (reading.cursor ? `Asking for everything ${where}.` : `Connecting to ${place.feed}.`));
    case "cut":
      leave("cut", `Connection cut ${where}`);
      return status.say("cut", `Cut off ${where}. Whatever is published now waits in the feed.`);
    case "closed":
      view.add([{ kind: "closed", text: "Feed closed: no more events will come" }]);
      return status.say("calm", "The feed is closed, and all of it has been delivered.");
    case "failed":
      return status.say("error", detail);
  }
}

// One line an absence, however many attempts it takes to come back.
function leave(kind, text) {
  if (away !== null || reading.cursor === "") return;
  away = kind;
  view.add([{ kind, text }]);
}

function onBlock(type, data, cursor) {
  switch (type) {
    case "feed.open": show(reading.open(data, cursor)); break;
    case "feed.gap": show(reading.gap(data, cursor)); break;
    case "feed.cursor":
    case "feed.closed": show(reading.moved(cursor)); break;
    case "feed.expired": view.add([{ kind: "lost", text: "The token's time is up" }]); break;
    default: show(reading.event(type, data, cursor));
  }
}

function show(entries) {
  for (const entry of entries) {
    if (entry.kind === "live") entry.text = "Live from here";
    if (entry.kind !== "caught-up") continue;
    entry.text = caughtUp(entry).replace(/\.$/, "");
    status.say(entry.lost ? "trouble" : "good", caughtUp(entry));
  }
  view.add(entries);
  refresh();
  clearTimeout(settling);
  if (reading.replaying) settling = setTimeout(() => show(reading.settle()), SETTLE);
}

function refresh() {
  status.count(() => reading);
  commands();
}

let drawing = 0;
function commands() {
  drawing ||= requestAnimationFrame(() => {
    drawing = 0;
    showCommands(place.feed, reading.cursor, box.draft);
  });
}

// An EventSource hears a type only by its name, so the page's own types are listened to before they are sent.
function listenTo(type) {
  if (!isListenable(type) || place.types.includes(type)) return;
  stream.listen(type);
  place.types.push(type);
  at("types").value = place.types.join(", ");
  history.replaceState(null, "", placeOf(place.feed, place.types));
}

at("follow").addEventListener("submit", (event) => {
  event.preventDefault();
  const target = placeOf(at("feed").value.trim(), parseTypes(at("types").value));
  if (target === location.hash) follow();
  else location.hash = target;
});
addEventListener("hashchange", follow);

at("cut").addEventListener("click", () => {
  if (at("cut").dataset.action === "cut") {
    stream.cut();
    cut.begin();
    return;
  }
  cut.cancel();
  stream.resume();
});
at("publish-away").addEventListener("click", () => box.publishSamples(3));
at("pretty").addEventListener("change", (event) => view.indent(event.target.checked));

enableCopying();
follow();
