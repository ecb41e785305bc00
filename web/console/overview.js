// The page of all feeds: those that the visitor may list, the newest activity first, and what the nodes report.

import { at, element, write } from "./dom.js";
import { READY, feedsURL, isBeginning, pageOf, parseFeeds } from "./place.js";
import { ask, isFinal, tokenInUse } from "./api.js";
import { TokenBox, wantsToken } from "./token.js";
import { duration, fullTimeOf, number, perSecond, plural, short } from "./words.js";
import { Stream } from "./stream.js";
import { NODES, Nodes } from "./nodes.js";
import { Charts } from "./charts.js";
import { NodeList } from "./nodelist.js";

const PAGE = 1000;
const PAGES_MOST = 20;
const PERIOD = 2000;
const PERIOD_MOST = 30000;
const PERIOD_FAILING = 8000;
const ROWS_MOST = 200;
const RATE_OVER = 30000;
const ASLEEP = 60000;

// What is known of each feed: {feed, first, last, closed, updated, seen: [[time, last]…]}.
const known = new Map();
const rows = new Map();
let more = false;
let failures = 0;
let timer = 0;
let round = 0;
let begun = 0;

const nodes = new Nodes();
const charts = new Charts(at("charts"));
const nodeList = new NodeList(at("nodes-list"));
const stream = new Stream({ onBlocks: (blocks) => blocks.forEach(takeBlock) });
let followed = null; // the token with which the stream was asked for
let cut = null; // the state of the stream, if it is not live

const token = new TokenBox({ onUse: () => look() });

async function look() {
  clearTimeout(timer);
  const mine = ++round;
  const start = performance.now();
  const ready = readiness();
  try {
    const found = await allFeeds();
    if (mine !== round) return;
    take(found);
    if (failures > 0 && cut) {
      followed = cut = null; // the stream need not wait any longer
      drawFigures();
    }
    failures = 0;
    begun ||= Date.now();
    token.accepted();
    say("feeds", "calm", "");
    follow();
  } catch (error) {
    if (mine !== round) return;
    failures++;
    refused(error);
    if (isFinal(error.status)) {
      known.clear();
      unfollow();
      draw();
      return;
    }
    follow();
  }
  await ready;
  draw();
  // A store with many feeds takes its time: ask it less often.
  const pause = Math.min(PERIOD_MOST, Math.max(Math.min(PERIOD_FAILING, PERIOD * 2 ** failures), 10 * (performance.now() - start)));
  if (mine === round) timer = setTimeout(() => (document.visibilityState === "visible" ? look() : undefined), pause);
}

// How the names of the feeds to list begin: as the last name in the box, which may have several.
const wanted = () => at("search").value.split(",").at(-1).trim();

async function allFeeds() {
  const prefix = wanted();
  const found = [];
  let after;
  more = false;
  if (prefix && !isBeginning(prefix)) return found;
  for (let page = 0; page < PAGES_MOST; page++) {
    const { feeds, next } = await (await ask(feedsURL({ limit: PAGE, ...(prefix && { prefix }), ...(after && { after }) }))).json();
    found.push(...feeds);
    after = next;
    if (!next) return found;
  }
  more = true;
  return found;
}

function take(found) {
  const now = Date.now();
  const names = new Set(found.map(({ feed }) => feed));
  for (const feed of [...known.keys()]) if (!names.has(feed)) known.delete(feed);
  for (const info of found) {
    const seen = known.get(info.feed)?.seen ?? [];
    seen.push([now, info.last]);
    while (seen.length > 2 && seen[1][0] <= now - RATE_OVER) seen.shift();
    known.set(info.feed, { ...info, seen });
  }
}

function refused(error) {
  if (error.status === 401 && wantsToken(error.challenge)) token.ask();
  if (error.status === 401) return say("feeds", "error", wantsToken(error.challenge) ? error.message : `${error.message}. Log in to the application in another tab, then reload this page.`);
  if (error.status === 403) return say("feeds", "error", "Only an administrator may see all feeds and the figures of the nodes. A feed that you may read opens by its name, above.");
  say("feeds", "trouble", isFinal(error.status) ? error.message : `${error.message}; trying again`);
}

// The notice is about the feeds or, where there is nothing to say of them, about the figures.
const said = { feeds: ["calm", ""], figures: ["calm", ""] };

function say(about, ...what) {
  said[about] = what;
  const [kind, text] = said.feeds[1] ? said.feeds : said.figures;
  at("notice").hidden = text === "";
  at("notice").dataset.kind = kind;
  write(at("notice-text"), text);
}

// A node that is not ready says so with 503, and with the same members.
async function readiness() {
  let state = {};
  try {
    state = await (await fetch(READY, { cache: "no-store" })).json();
  } catch {
    // It cannot be reached.
  }
  const { ready, draining, store, bus } = state;
  const word = ready ? "Ready" : draining ? "Draining" : ready === undefined ? "Unreachable" : "Not ready";
  at("status").dataset.state = ready ? "live" : ready === undefined ? "failed" : "cut";
  write(at("status-word"), word);
  write(at("store"), upOn("store") ?? store ?? "–");
  write(at("bus"), upOn("bus") ?? bus ?? "–");
  at("icon").href = new URL(ready ? "icon.svg" : ready === undefined ? "icon-fault.svg" : "icon-away.svg", import.meta.url).href;
  document.title = ready ? "All feeds · Rejoin" : `${word} · All feeds · Rejoin`;
}

// "up", or on how many nodes it is down.
function upOn(part) {
  const heard = alive.filter(({ silent }) => !silent);
  const down = heard.filter((node) => !node[part]?.up).length;
  if (heard.length < 2) return undefined;
  return down === 0 ? "up" : down < heard.length ? `down on ${down} of ${heard.length}` : "down";
}

// Feeds that are busy now keep their places: they are in the order of their names.
const BUSY = 10000;

function draw() {
  const now = Date.now();
  const rank = new Map([...known.values()].map((info) => [info, Math.min(new Date(info.updated).getTime() || 0, now - BUSY)]));
  const list = [...known.values()].sort((a, b) => rank.get(b) - rank.get(a) || (a.feed < b.feed ? -1 : 1));
  const shown = list.slice(0, ROWS_MOST);
  for (const [feed, row] of rows) if (!shown.some((one) => one.feed === feed)) (row.remove(), rows.delete(feed));
  let last = null;
  for (const info of shown) {
    const row = rows.get(info.feed) ?? make(info.feed);
    fill(row, info);
    // Only a row whose place has changed is moved: the focus stays where it is.
    const next = last ? last.nextElementSibling : at("feeds-list").firstElementChild;
    if (next !== row) at("feeds-list").insertBefore(row, next);
    last = row;
  }
  at("feeds-empty").hidden = shown.length > 0 || begun + failures === 0;
  at("feeds-empty").textContent = failures > 0 ? "The feeds cannot be listed." : wanted() ? `No feed’s name begins with ${short(wanted())}.` : "There is no feed yet. A feed begins with its first event.";
  if (!wanted()) at("count").textContent = begun === 0 ? "–" : `${more ? "more than " : ""}${number(list.length)}`;
  at("feeds-rest").textContent = list.length > shown.length || more ? `The ${plural(shown.length, "feed")} with the newest events${more ? ` among the first ${number(list.length)} by name` : ""}. Search for others.` : "";
}

function make(feed) {
  const row = element("li", "");
  const link = element("a", "name", feed);
  link.href = pageOf([feed]);
  row.append(link, element("span", "closed"), cell("Last id", "last"), cell("Rate", "rate"), cell("Subscribers", "subscribers"), cell("Active", "updated"));
  rows.set(feed, row);
  return row;
}

function cell(label, name) {
  const made = element("span", "cell");
  made.append(element("span", "label", label), " ", element("span", name));
  return made;
}

function fill(row, info) {
  const set = (name, text) => {
    const place = row.querySelector(`.${name}`);
    write(place, text);
    return place;
  };
  const grew = info.seen.length > 1 && info.seen.at(-1)[1] > info.seen.at(-2)[1];
  row.dataset.grew = grew;
  set("closed", info.closed ? "closed" : "");
  set("last", info.first > info.last && info.last > 0 ? `${number(info.last)}, none kept` : number(info.last));
  const rate = rateOf(info);
  set("rate", rate > 0 ? perSecond(rate) : "–");
  const count = nodes.subscribersOf(info.feed, alive);
  set("subscribers", count === undefined ? "–" : number(count));
  const age = Date.now() - new Date(info.updated);
  set("updated", age < 1500 ? "now" : `${duration(age)} ago`).title = fullTimeOf(new Date(info.updated));
}

// Events a second over the last half minute, or since the page was opened.
function rateOf({ seen }) {
  const [from, to] = [seen[0], seen.at(-1)];
  return to[0] > from[0] ? (1000 * (to[1] - from[1])) / (to[0] - from[0]) : 0;
}

// The figures come as events of a feed, which those may follow who may list feeds.
function follow() {
  if (followed === tokenInUse()) return;
  followed = tokenInUse();
  stream.follow([[NODES, 0]], followed);
}

function unfollow() {
  stream.leave();
  followed = cut = null;
  nodes.clear();
  drawFigures();
}

function takeBlock(block) {
  switch (block.type) {
    case "event":
      nodes.take(block.event);
      if (nodes.points.length < 3) drawFigures(); // the first ones at once
      break;
    case "feed.open":
      cut = null;
      break;
    case "feed.expired":
      look();
      break;
    case "state":
      cut = block;
      drawFigures();
  }
}

let alive = [];

function drawFigures() {
  const now = Date.now();
  alive = nodes.list(now);
  at("figures").hidden = nodes.points.length === 0;
  at("nodes").hidden = alive.length === 0;
  at("alive").textContent = alive.length > 0 ? number(alive.filter(({ silent }) => !silent).length) : "–";
  say("figures", cut ? "trouble" : "calm", cut ? cutText() : "");
  charts.draw(nodes.points, now);
  nodeList.show(alive, now);
}

function cutText() {
  switch (cut.state) {
    case "waiting": return "The figures wait for a connection: a browser opens a few to one server, and they are all in use.";
    case "failed": return `No figures: ${cut.detail}`;
    default: return `The figures are cut off${cut.detail ? `: ${cut.detail}` : ""}; trying again`;
  }
}

setInterval(() => document.visibilityState === "visible" && drawFigures(), 1000);
addEventListener("rejoin-return", () => { followed = null; look(); });

let typing = 0;
at("search").addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(look, 200);
});
at("open").addEventListener("submit", (event) => {
  event.preventDefault();
  const feeds = parseFeeds(at("search").value);
  if (feeds.length > 0) location.href = pageOf(feeds);
});
// The nodes report only while somebody looks: a tab in the background does not, after a while.
let asleep = 0;
document.addEventListener("visibilitychange", () => {
  clearTimeout(asleep);
  if (document.visibilityState === "visible") return look();
  asleep = setTimeout(() => {
    stream.leave();
    followed = cut = null;
  }, ASLEEP);
});
look();
