// Connects the parts: the page's address names feeds, the stream reads them, the view shows them.

import { readPlace, placeOf, parseFeeds, parseTypes, isListenable } from "./place.js";
import { Stream } from "./stream.js";
import { Readings } from "./readings.js";
import { View } from "./view.js";
import { Status } from "./status.js";
import { Cut } from "./cut.js";
import { PublishBox } from "./publish.js";
import { showCommands, enableCopying } from "./curl.js";
import { caughtUp, named, whereOf } from "./words.js";

const at = (id) => document.getElementById(id);
let place = readPlace();
let readings = new Readings(place.feeds);
let away = null;

const status = new Status();
const view = new View({ list: at("events"), newest: at("newest"), empty: at("empty") });
const stream = new Stream({ cursor: () => readings.cursor, onState, onBlock });
const cut = new Cut({ onTick: (left, share) => status.tick(left, share), onEnd: () => stream.resume() });
const box = new PublishBox({ onSend: listenTo, onPublished, onEdit: commands });

function follow() {
  place = readPlace();
  readings = new Readings(place.feeds);
  away = null;
  cut.cancel();
  view.clear();
  box.offer(place.feeds);
  at("feed").value = place.feeds.join(", ");
  at("types").value = place.types.join(", ");
  document.title = `${named(place.feeds)} · Rejoin`;
  showPath();
  stream.follow(place.feeds, place.types);
  refresh();
}

function onState(state, detail = "") {
  status.show(state);
  document.body.dataset.state = state;
  const where = whereOf(readings);
  const many = readings.many;
  switch (state) {
    case "connecting":
      return status.say("calm", `Connecting to ${named(place.feeds)}.`);
    case "live":
      away = null;
      return status.say("calm", many ? "Each event arrives once, in the order of its feed." : "Each event arrives once, in order.");
    case "reconnecting":
      leave("lost", `Connection lost ${where}`);
      return status.say("trouble", detail || (readings.cursor ? `Asking for everything ${where}.` : `Connecting to ${named(place.feeds)}.`));
    case "cut":
      leave("cut", `Connection cut ${where}`);
      return status.say("cut", `Cut off ${where}. The ${many ? "feeds keep" : "feed keeps"} the events that are published meanwhile.`);
    case "closed":
      show(readings.close());
      return status.say("calm", many ? "All feeds are closed, and all their events have been delivered." : "The feed is closed, and all its events have been delivered.");
    case "failed":
      return status.say("error", detail);
  }
}

// Shows one line for each absence, however many attempts it takes to come back.
function leave(kind, text) {
  if (away !== null || readings.cursor === "") return;
  away = kind;
  view.add([{ kind, text }]);
}

function onBlock(type, data, cursor) {
  show(readings.take(type, data, cursor));
  if (type === "feed.expired") leave("lost", `The token expired ${whereOf(readings)}`);
  if (type === "feed.closed") box.close(data.feed);
  if (type === "feed.closed" && readings.closed) stream.end();
}

function show(entries) {
  for (const entry of entries) {
    if (entry.kind === "caught-up") status.say(entry.lost ? "trouble" : "good", caughtUp(entry));
  }
  view.add(entries);
  refresh();
}

function refresh() {
  status.count(() => readings);
  commands();
}

let drawing = 0;
function commands() {
  drawing ||= requestAnimationFrame(() => {
    drawing = 0;
    showCommands(place.feeds, readings.cursor, box.draft);
  });
}

// Several feeds have another address than one.
function showPath() {
  const many = parseFeeds(at("feed").value).length > 1;
  at("path").dataset.many = many;
  at("path-before").textContent = many ? "/v1/events?feed=" : "/v1/feeds/";
  at("path-after").textContent = many ? "" : "/events";
}

function onPublished({ id, time }) {
  if (!readings.many) view.know(id, time);
}

// An EventSource receives a type only if it listens to its name, so the page listens to a type before it publishes it.
function listenTo(type) {
  if (!isListenable(type) || place.types.includes(type)) return;
  stream.listen(type);
  place.types.push(type);
  at("types").value = place.types.join(", ");
  history.replaceState(null, "", placeOf(place.feeds, place.types));
}

at("follow").addEventListener("submit", (event) => {
  event.preventDefault();
  const target = placeOf(parseFeeds(at("feed").value), parseTypes(at("types").value));
  if (target === location.hash) follow();
  else location.hash = target;
});
at("feed").addEventListener("input", showPath);
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
