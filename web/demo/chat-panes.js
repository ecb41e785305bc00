// The two panes of the chat: who speaks, when Ben's network breaks, and what each of them has missed.

import { follow, say } from "./chat.js";
import { at, element, feedInAddress, isRefused, newName, problemWith, putInAddress, showState, write } from "./page.js";

const STEP = 1100;
const AWAY = 4200;
const ROUNDS_MOST = 60; // then they are tired
const MESSAGES_MOST = 200;

// What Ada says while Ben is away, and what they say before and after.
const ROUNDS = [
  { before: [["Ada", "Are you on the train?"], ["Ben", "Yes. The next tunnel is close."]], away: ["Dinner is at eight.", "At the place by the river.", "And bring the key."], found: "Eight, the river, the key.", lost: "Did you say anything?" },
  { before: [["Ben", "Who else comes?"], ["Ada", "Let me see the list."]], away: ["Grace and Alan.", "Edsger if he can.", "And Barbara."], found: "Grace, Alan, Edsger, Barbara: five of us.", lost: "The list never came." },
  { before: [["Ada", "Can you do the shopping?"], ["Ben", "Sure. What do we need?"]], away: ["Bread.", "Two lemons.", "Not the yellow ones."], found: "Bread and two limes, then.", lost: "Hello? What do we need?" },
];

let room = feedInAddress("chat") ?? newName("chat");
let talking = false;
let round = 0;
let timer = 0;

class Pane {
  missed = { with: 0, without: 0 };
  connected = false;
  #cursor = 0; // the id of the last message shown, or counted as missed
  #source = null;
  #place;
  #list;
  #name;
  #withCursor = true;
  #back = false; // it was connected before

  constructor(id, name) {
    this.#place = at(id);
    this.#name = name;
    this.#list = this.#place.querySelector(".messages");
    this.#place.querySelector("form").addEventListener("submit", (event) => {
      event.preventDefault();
      const field = this.#place.querySelector("input");
      if (field.value.trim() === "" || !this.connected) return;
      speak(this.#name, field.value.trim());
      field.value = "";
    });
  }

  connect(withCursor) {
    this.#withCursor = withCursor;
    this.state("connecting", "Connecting");
    let late = 0; // up to this id, messages were there before
    const source = follow(room, withCursor ? this.#cursor : "", (id, data) => {
      this.#skip(id - 1);
      this.#cursor = Number(id);
      this.#add(messageOf(id, data, this.#name, id <= late));
    });
    source.addEventListener("feed.open", (event) => {
      const { first, last } = JSON.parse(event.data);
      if (this.#back) this.#skip(Number(event.lastEventId));
      else this.#cursor = Math.max(this.#cursor, first - 1);
      late = this.#back ? last : 0;
      this.connected = true;
      this.state("live", "Connected");
    });
    source.onerror = () => (isRefused(source) ? this.state("failed", "Refused") : this.state("connecting", "Connecting again"));
    this.#source = source;
  }

  disconnect(label) {
    this.#source.close();
    this.#back = true;
    this.connected = false;
    this.state("cut", label);
  }

  state(name, label) {
    showState(this.#place.querySelector(".state"), name, label);
    this.#place.querySelector("button").disabled = name !== "live";
  }

  // Ids are dense, so a number passed over is an event that this pane never gets.
  #skip(id) {
    const count = id - this.#cursor;
    if (count <= 0) return;
    this.missed[this.#withCursor ? "with" : "without"] += count;
    this.#add(element("li", "lost", count === 1 ? `${id} is missing` : `${this.#cursor + 1} to ${id} are missing`));
    this.#cursor = id;
    scores();
  }

  #add(row) {
    const list = this.#list;
    const atEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
    list.append(row);
    while (list.children.length > MESSAGES_MOST) list.firstElementChild.remove();
    if (atEnd) list.scrollTop = list.scrollHeight;
  }
}

function messageOf(id, data, self, late) {
  let from = "", text = data;
  try {
    const message = JSON.parse(data);
    if (typeof message.text === "string") ({ from = "", text } = message);
  } catch {
    // Anybody may publish anything to this feed.
  }
  const row = element("li", late ? "late" : "");
  row.dataset.id = id;
  row.dataset.own = from === self;
  const said = element("span", "text", text);
  said.dir = "auto";
  row.append(element("span", "id", id), " ", element("b", "", from), " ", said);
  return row;
}

const ada = new Pane("ada", "Ada");
const ben = new Pane("ben", "Ben");
const withCursor = () => at("with-cursor").checked;

function scores() {
  write(at("ada").querySelector(".missed"), ada.missed.with);
  write(at("score-with").querySelector("b"), ben.missed.with);
  write(at("score-without").querySelector("b"), ben.missed.without);
  at("score-with").dataset.now = withCursor();
  at("score-without").dataset.now = !withCursor();
}

async function speak(from, text) {
  const problem = await problemWith(say(room, { from, text }));
  write(at("chat-problem"), problem);
  if (problem !== "") pause();
}

const wait = (time) => new Promise((resolve) => { timer = setTimeout(resolve, time); });

async function talk() {
  const mine = Symbol("talk");
  talking = mine;
  at("talk").textContent = "Pause";
  putInAddress("chat", room);
  for (let n = 0; talking === mine && n < ROUNDS_MOST; n++) {
    const { before, away, found, lost } = ROUNDS[round++ % ROUNDS.length];
    for (const [from, text] of before) {
      await speak(from, text);
      await wait(STEP);
      if (talking !== mine) return;
    }
    ben.disconnect("No network");
    for (const text of away) {
      await wait(AWAY / (away.length + 1));
      if (talking !== mine) return;
      await speak("Ada", text);
    }
    await wait(AWAY / (away.length + 1));
    if (talking !== mine) return;
    ben.connect(withCursor());
    await wait(2 * STEP);
    if (talking !== mine) return;
    await speak("Ben", withCursor() ? found : lost);
    await wait(STEP);
  }
  if (talking === mine) pause();
}

function pause() {
  talking = false;
  clearTimeout(timer);
  at("talk").textContent = "Let them talk";
  if (!ben.connected && document.visibilityState === "visible") {
    ben.disconnect("No network");
    ben.connect(withCursor());
  }
}

at("talk").addEventListener("click", () => (talking ? pause() : talk()));
at("with-cursor").addEventListener("change", scores);
// A page that nobody sees holds no connection: over HTTP/1.1 a browser has six. It comes back with its cursors.
let hidden = document.visibilityState === "hidden";
document.addEventListener("visibilitychange", () => {
  const hides = document.visibilityState === "hidden";
  if (hides === hidden) return;
  hidden = hides;
  if (hides) pause();
  for (const pane of [ada, ben]) hides ? pane.disconnect("Asleep") : pane.connect(true);
});

at("chat-feed").href = `feeds/${room}`;
scores();
if (!hidden) for (const pane of [ada, ben]) pane.connect(true);
