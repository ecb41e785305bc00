// The page of a feed: connects the parts. The page's address names the feeds, their history is read first, and the
// stream goes on from there.

import { at } from "./dom.js";
import { API_PATH, pageOf, parseFeeds, readPlace } from "./place.js";
import { NEWEST, idAt, infoOf, isFinal, pageOfEvents, tokenInUse } from "./api.js";
import { Stream } from "./stream.js";
import { Readings } from "./readings.js";
import { View } from "./view.js";
import { Chips } from "./chips.js";
import { Status } from "./status.js";
import { Cut } from "./cut.js";
import { PublishBox } from "./publish.js";
import { Manage } from "./manage.js";
import { TokenBox, wantsToken } from "./token.js";
import { Snippets } from "./snippets.js";
import { Empty } from "./empty.js";
import { later } from "./later.js";
import { caughtUp, named, plural, waiting, whereOf } from "./words.js";

const HISTORY = 50;
const RETRY_FIRST = 1000;
const RETRY_MOST = 30000;
const SLOW = 3000;
const LOOK = 10000;
const SOON = 1500;
const WAITING = "No answer yet. Over HTTP/1.1 a browser opens at most six connections to a server; other pages may be using all of them.";

let place = readPlace();
let readings = new Readings(place.feeds);
let away = null;
let round = 0;
let failures = 0;
let retry = 0;
let looking = 0;

const status = new Status();
const empty = new Empty();
const view = new View({ list: at("events"), newest: at("newest"), empty: at("empty") });
const chips = new Chips({ list: at("types"), onChange: chosen });
const stream = new Stream({ onBlocks });
const cut = new Cut({ onTick: (left, share) => status.tick(left, share), onEnd: resume, onWaiting: (behind) => status.say("cut", `${waiting(behind)}.`) });
const box = new PublishBox({ onEdit: () => commands() });
const snippets = new Snippets();
const manage = new Manage({ onDone: look });
const token = new TokenBox({ onUse: restart });

// Goes to the feeds that the page's address names.
function follow() {
  place = readPlace();
  readings = new Readings(place.feeds);
  away = null;
  cut.cancel();
  stream.leave();
  const [feed] = place.feeds;
  view.clear(readings.many ? null : { newest: NEWEST, read: (params) => pageOfEvents(feed, params).then(known), last: () => readings.of(feed).cursor });
  chips.clear(place.types);
  view.filter(chips.shows);
  box.offer(place.feeds);
  manage.offer(place.feeds, () => readings.of(feed)?.last ?? 0);
  at("feed").value = place.feeds.join(", ");
  status.name(named(place.feeds));
  status.subscribers(null);
  at("goto").hidden = readings.many;
  showPath();
  refresh();
  failures = 0;
  begin();
}

// Reads the newest page of each feed, and goes on with the stream.
async function begin() {
  clearTimeout(retry);
  const mine = ++round;
  onState("connecting");
  const slow = setTimeout(() => mine === round && onState("waiting"), SLOW);
  try {
    const pages = await Promise.all(place.feeds.map((feed) => pageOfEvents(feed, { before: NEWEST, limit: HISTORY })));
    if (mine !== round) return;
    token.accepted();
    showPages(pages);
  } catch (error) {
    if (mine !== round) return;
    if (isFinal(error.status)) return onState("failed", error);
    const wait = Math.min(RETRY_MOST, RETRY_FIRST * 2 ** failures++) * (0.5 + Math.random());
    onState("reconnecting", { message: error.message, wait });
    retry = setTimeout(begin, wait);
  } finally {
    clearTimeout(slow);
  }
}

function showPages(pages) {
  place.feeds.forEach((feed, n) => readings.begin(feed, pages[n]));
  const events = pages.flatMap((page, n) => readings.name(place.feeds[n], page.events.map(fromHistory)));
  if (readings.many) events.sort((a, b) => (a.time < b.time ? -1 : a.time > b.time ? 1 : 0));
  empty.show(pages, readings);
  chips.see(events);
  if (events.length > 0) view.replace({ events, first: pages[0].first }, true);
  const closed = place.feeds.filter((_, n) => pages[n].closed);
  for (const feed of closed) shown(readings.name(feed, readings.of(feed).close()));
  for (const feed of closed) box.close(feed);
  refresh();
  if (readings.closed) onState("closed");
  else stream.follow(readings.cursors, tokenInUse());
  const wanted = Number(new URLSearchParams(location.hash.slice(1)).get("id"));
  if (wanted > 0 && !readings.many) jump(wanted);
}

const fromHistory = (event) => ({ kind: "event", how: "history", ...event });

// Pages that the list reads itself.
function known(page) {
  const events = readings.name(place.feeds[0], page.events.map(fromHistory));
  chips.see(events);
  return { ...page, events };
}

function onState(state, { message = "", wait = 0, challenge = null, status: code = 0 } = {}) {
  status.show(state);
  const where = whereOf(readings);
  const many = readings.many;
  manage.close(readings.closed);
  switch (state) {
    case "connecting":
      return status.say("calm", `Connecting to ${named(place.feeds)}.`);
    case "waiting":
      return status.say("trouble", WAITING);
    case "live":
      away = null;
      return status.say("calm", many ? "Each event arrives once, in the order of its feed." : "Each event arrives once, in order.");
    case "reconnecting":
      leave("lost", `Connection lost ${where}`);
      return status.say("trouble", message || `The connection is lost ${where}`, wait);
    case "cut":
      leave("cut", `Connection cut ${where}`);
      return status.say("cut", `Cut off ${where}. The ${many ? "feeds keep" : "feed keeps"} the events that are published meanwhile.`);
    case "closed":
      return status.say("calm", many ? "All feeds are closed, and all their events have been delivered." : "The feed is closed, and all its events have been delivered.");
    case "failed":
      return refused(message, code, challenge);
  }
}

function refused(message, code, challenge) {
  empty.refuse(code);
  const login = code === 401 && !wantsToken(challenge);
  if (code === 401 && !login) token.ask();
  status.say("error", login ? `${message}. Log in to the application in another tab, then try again here.`.replace("..", ".") : message);
}

// Shows one line for each absence, however many attempts it takes to come back.
function leave(kind, text) {
  if (away !== null || !readings.known) return;
  away = kind;
  view.add([{ kind, text }]);
}

function onBlocks(blocks) {
  const entries = [];
  let came = null;
  for (const block of blocks) {
    if (block.type === "state") {
      onState(block.state, { message: block.detail, wait: block.wait, challenge: block.challenge, status: block.status });
      continue;
    }
    if (block.type === "feed.open") opened();
    const taken = readings.take(block);
    came = taken.find((entry) => entry.kind === "caught-up") ?? came;
    entries.push(...taken);
    if (block.type === "feed.closed") box.close(block.feed);
    if (block.type === "feed.expired") leave("lost", `The token expired ${whereOf(readings)}`);
  }
  shown(entries);
  if (came) status.say(came.lost ? "trouble" : "good", caughtUp(came));
  if (readings.closed && document.body.dataset.state !== "closed") onState("closed");
}

function opened() {
  onState("live");
  clearTimeout(looking);
  looking = setTimeout(look, SOON); // the server counts this subscriber by then
}

function shown(entries) {
  if (entries.length === 0) return;
  view.add(entries);
  chips.see(entries);
  status.unread(entries.filter((entry) => entry.kind === "event").length);
  refresh();
}

function refresh() {
  later(drawCounts);
  commands();
}

const drawCounts = () => status.count(readings);
const commands = () => later(drawCommands);
const drawCommands = () => snippets.show({ feeds: place.feeds, cursor: readings.cursor, types: chips.types, draft: box.draft });

function resume() {
  cut.cancel();
  if (!readings.known) return begin();
  onState("connecting");
  stream.follow(readings.cursors, tokenInUse());
}

function restart() {
  if (readings.known) resume();
  else begin();
}

// Looks after the feed: how many subscribe to it, and what is no longer kept.
async function look() {
  clearTimeout(looking);
  looking = setTimeout(look, LOOK);
  const state = document.body.dataset.state;
  if (document.visibilityState !== "visible" || readings.many || !["live", "closed", "connecting"].includes(state)) return;
  const [feed] = place.feeds;
  const info = await infoOf(feed).catch(() => null);
  const reading = readings.of(feed);
  if (!info || feed !== place.feeds[0] || !reading) return;
  status.subscribers(info.subscribers);
  if (info.first <= reading.first) return;
  reading.first = info.first;
  view.keeps(info.first);
  refresh();
  if (info.first > info.last) status.say("trouble", `All events up to ${info.last} were deleted.${info.closed ? "" : ` The next one will be ${info.last + 1}.`}`);
  else status.say("trouble", `${plural(info.first - 1, "event")} are no longer kept: the oldest is ${info.first}.`);
}

function chosen(types) {
  place.types = types;
  history.replaceState(history.state, "", pageOf(place.feeds, types));
  view.filter(chips.shows);
}

// Several feeds have another address than one.
function showPath() {
  const many = parseFeeds(at("feed").value).length > 1;
  at("path").dataset.many = many;
  at("path-before").textContent = `${API_PATH}${many ? "events?feed=" : "feeds/"}`;
  at("path-after").textContent = many ? "" : "/events";
}

async function jump(to) {
  const said = at("goto-result");
  said.textContent = "";
  try {
    const went = await view.jump(to);
    if (went === null) said.textContent = `No event ${to} or later`;
    else if (went !== to) said.textContent = went > to ? `${to} is no longer kept: the next is ${went}` : `The newest event is ${went}`;
  } catch (error) {
    said.textContent = error.message;
  }
}

// An id, a time of today, or a date and a time.
async function goTo(text) {
  if (/^[0-9]{1,15}$/.test(text)) return jump(Number(text));
  const today = new Date();
  const clock = /^(\d{1,2}):(\d{2})(?::(\d{2}))?$/.exec(text);
  const time = clock ? new Date(today.getFullYear(), today.getMonth(), today.getDate(), clock[1], clock[2], clock[3] ?? 0) : new Date(text);
  if (Number.isNaN(time.getTime())) {
    at("goto-result").textContent = "Write an id, or a time as in 12:30 or 2026-01-31 09:30";
    return;
  }
  try {
    await jump(await idAt(place.feeds[0], time));
  } catch (error) {
    at("goto-result").textContent = error.message;
  }
}

at("follow").addEventListener("submit", (event) => {
  event.preventDefault();
  const feeds = parseFeeds(at("feed").value);
  if (feeds.length === 0) return;
  history.pushState(null, "", pageOf(feeds));
  follow();
});
at("feed").addEventListener("input", showPath);
addEventListener("popstate", follow);
addEventListener("rejoin-return", restart);
at("cut").addEventListener("click", () => {
  if (at("cut").dataset.action !== "cut") {
    clearTimeout(retry);
    return resume();
  }
  round++; // a page that is on its way comes too late
  clearTimeout(retry);
  stream.leave();
  onState("cut");
  cut.begin(readings.cursors);
});
at("publish-away").addEventListener("click", () => box.publishSamples(3));
at("pretty").addEventListener("change", (event) => view.indent(event.target.checked));
at("goto").addEventListener("submit", (event) => {
  event.preventDefault();
  goTo(at("goto-where").value.trim());
});

history.replaceState(history.state, "", pageOf(place.feeds, place.types) + (location.hash.startsWith("#id=") ? location.hash : ""));
follow();
