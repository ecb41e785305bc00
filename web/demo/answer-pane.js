// The answer, and what a reload does to it.

import { ask, read, stop } from "./answer.js";
import { at, element, feedInAddress, isRefused, problemWith, putInAddress, showState, write } from "./page.js";

const had = (feed) => `rejoin-demo ${feed}`;
let feed = feedInAddress("answer");
let source = null;
let words = 0;
let late = 0;

function begin(before) {
  source?.close();
  words = late = 0;
  let there = 0;
  at("words").replaceChildren();
  at("answer-feed").href = `feeds/${feed}`;
  at("answer-feed").hidden = false;
  at("ask").textContent = "Ask again";
  state("connecting", "Connecting");
  const show = (id, word) => {
    // Words up to the last id at the opening were written before; those that this page had not seen came while it was away.
    const missed = before > 0 && id > before && id <= there;
    words++;
    if (missed) late++;
    at("words").append(element("span", missed ? "late" : "", word));
    at("answer").scrollTop = at("answer").scrollHeight;
    score(before);
  };
  const ended = () => {
    source.close();
    state("closed", words > 0 ? "Ended" : "Nothing here");
  };
  source = read(feed, show, ended);
  source.addEventListener("feed.open", (event) => {
    there = JSON.parse(event.data).last;
    state("live", "Being written");
  });
  source.onerror = () => (isRefused(source) ? state("failed", "Cannot be read") : state("connecting", "Connecting again"));
}

function state(name, label) {
  showState(at("answer-state"), name, label);
  at("stop").disabled = name !== "live";
  at("reload").disabled = feed === null;
}

function score(before) {
  const parts = [["Words", words]];
  if (before > 0) parts.push(["before the reload", Math.min(before, words)], ["during it", late]);
  at("answer-score").replaceChildren(...parts.flatMap(([label, count], n) => [n ? `, ${label} ` : `${label} `, element("b", "", count)]));
}

async function start() {
  at("ask").disabled = true;
  const asked = ask();
  const problem = await problemWith(asked.then((response) => response.clone()));
  write(at("answer-problem"), problem);
  if (problem === "") {
    ({ feed } = await (await asked).json());
    putInAddress("answer", feed);
    begin(0);
  }
  at("ask").disabled = false;
}

function seen(feed) {
  try {
    return Number(sessionStorage.getItem(had(feed)));
  } catch {
    return 0; // Storage may be forbidden.
  }
}

at("ask").addEventListener("click", start);
at("reload").addEventListener("click", () => location.reload());
at("stop").addEventListener("click", async () => write(at("answer-problem"), await problemWith(stop(feed))));
addEventListener("pagehide", () => {
  try {
    if (feed) sessionStorage.setItem(had(feed), words);
  } catch {
    // Then all words look the same after a reload.
  }
});

if (feed) begin(seen(feed));
