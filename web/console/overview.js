// The page of all feeds: those that the visitor may list, the newest activity first.

import { READY, feedsURL, pageOf, parseFeeds } from "./place.js";
import { ask, isFinal } from "./api.js";
import { TokenBox, wantsToken } from "./token.js";
import { duration, fullTimeOf, number, plural } from "./words.js";
import { element } from "./rows.js";

const PAGE = 1000;
const PAGES_MOST = 5;
const PERIOD = 2000;
const PERIOD_MOST = 30000;
const ROWS_MOST = 200;
const RATE_OVER = 30000;

const at = (id) => document.getElementById(id);

// What is known of each feed: {feed, first, last, closed, updated, seen: [[time, last]…]}.
const known = new Map();
const rows = new Map();
let more = false;
let failures = 0;
let timer = 0;
let round = 0;
let begun = 0;

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
    failures = 0;
    begun ||= Date.now();
    token.accepted();
    say("calm", "");
  } catch (error) {
    if (mine !== round) return;
    failures++;
    refused(error);
    if (isFinal(error.status)) {
      known.clear();
      draw();
      return;
    }
  }
  await ready;
  draw();
  // A store with many feeds takes its time: ask it less often.
  const pause = Math.min(PERIOD_MOST, Math.max(PERIOD * 2 ** Math.min(failures, 4), 10 * (performance.now() - start)));
  if (mine === round) timer = setTimeout(() => (document.visibilityState === "visible" ? look() : undefined), pause);
}

async function allFeeds() {
  const found = [];
  let after;
  more = false;
  for (let page = 0; page < PAGES_MOST; page++) {
    const prefix = at("search").value.trim();
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
  if (error.status === 401) return say("error", wantsToken(error.challenge) ? error.message : `${error.message}. Log in to the application in another tab, then reload this page.`);
  if (error.status === 403) return say("error", "Only an administrator may list all feeds. A feed that you may read opens by its name, above.");
  say("trouble", isFinal(error.status) ? error.message : `${error.message}; trying again`);
}

function say(kind, text) {
  at("notice").hidden = text === "";
  at("notice").dataset.kind = kind;
  if (at("notice-text").textContent !== text) at("notice-text").textContent = text;
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
  const show = (id, text) => { if (at(id).textContent !== text) at(id).textContent = text; };
  at("status").dataset.state = ready ? "live" : ready === undefined ? "failed" : "cut";
  show("status-word", word);
  show("store", store ?? "–");
  show("bus", bus ?? "–");
  at("icon").href = new URL(ready ? "icon.svg" : ready === undefined ? "icon-fault.svg" : "icon-away.svg", import.meta.url).href;
  document.title = ready ? "All feeds · Rejoin" : `${word} · All feeds · Rejoin`;
}

function draw() {
  const list = [...known.values()].sort((a, b) => (a.updated < b.updated ? 1 : a.updated > b.updated ? -1 : a.feed < b.feed ? -1 : 1));
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
  at("feeds-empty").hidden = shown.length > 0 || begun === 0;
  at("feeds-empty").textContent = at("search").value.trim() ? `No feed begins with ${at("search").value.trim()}` : "There is no feed yet. A feed begins with its first event.";
  const rate = list.reduce((sum, info) => sum + rateOf(info), 0);
  at("count").textContent = `${more ? "more than " : ""}${number(list.length)}`;
  at("rate").textContent = rateText(rate);
  at("feeds-rest").textContent = list.length > shown.length || more ? `The ${plural(shown.length, "feed")} with the newest events${more ? ` among the first ${number(list.length)} by name` : ""}. Search for others.` : "";
}

function make(feed) {
  const row = element("li", "");
  const link = element("a", "name", feed);
  link.href = pageOf([feed]);
  row.append(link, element("span", "closed"), cell("Last", "last"), cell("Rate", "rate"), cell("Active", "updated"));
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
    if (place.textContent !== text) place.textContent = text;
    return place;
  };
  const grew = info.seen.length > 1 && info.seen.at(-1)[1] > info.seen.at(-2)[1];
  row.dataset.grew = grew;
  set("closed", info.closed ? "closed" : "");
  set("last", info.first > info.last && info.last > 0 ? `${number(info.last)}, none kept` : number(info.last));
  set("rate", rateText(rateOf(info)));
  const age = Date.now() - new Date(info.updated);
  set("updated", age < 1500 ? "now" : `${duration(age)} ago`).title = fullTimeOf(new Date(info.updated));
}

// Events a second over the last half minute, or since the page was opened.
function rateOf({ seen }) {
  const [from, to] = [seen[0], seen.at(-1)];
  return to[0] > from[0] ? (1000 * (to[1] - from[1])) / (to[0] - from[0]) : 0;
}

function rateText(rate) {
  if (rate === 0) return "–";
  return `${rate < 10 ? rate.toFixed(1) : number(Math.round(rate))}/s`;
}

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
document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && look());
look();
