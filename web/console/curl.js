// Shows the commands that do the same from a terminal.

import { eventsURL, followURL } from "./place.js";
import { optionsOf } from "./deliver.js";

const quote = (text) => `'${text.replaceAll("'", `'\\''`)}'`;

export function showCommands(feeds, cursor, draft) {
  const data = draft.data || (draft.json ? '{"text":"hello"}' : "hello");
  const publish = [
    `curl ${quote(eventsURL(draft.feed || feeds[0], optionsOf(draft)))}`,
    `-H 'Content-Type: ${draft.json ? "application/json" : "text/plain"}'`,
    ...(draft.type ? [`-H ${quote(`Event-Type: ${draft.type}`)}`] : []),
    // Not -d, which would read a file when the data begins with @.
    `--data-raw ${quote(data)}`,
  ];
  set("curl-follow", `curl -N ${quote(followURL(feeds, { from: "-50" }))}`);
  set("curl-resume", `curl -N ${quote(followURL(feeds))} \\\n  -H ${quote(`Last-Event-ID: ${cursor || unread(feeds)}`)}`);
  set("curl-publish", publish.join(" \\\n  "));
}

const unread = (feeds) => (feeds.length === 1 ? "0" : feeds.map((feed) => `${feed}=0`).join(","));

function set(id, text) {
  const place = document.getElementById(id);
  // Rewriting the same text would undo a selection.
  if (place.textContent !== text) place.textContent = text;
}

export function enableCopying() {
  for (const button of document.querySelectorAll(".copy")) {
    let timer = 0;
    button.addEventListener("click", async () => {
      const place = document.getElementById(button.dataset.copies);
      button.textContent = (await copy(place)) ? "Copied" : "Selected";
      clearTimeout(timer);
      timer = setTimeout(() => { button.textContent = "Copy"; }, 1600);
    });
  }
}

// Browsers offer the clipboard only to secure origins. Elsewhere, select the text, so that one key copies it.
async function copy(place) {
  try {
    await navigator.clipboard.writeText(place.textContent);
    return true;
  } catch {
    getSelection().selectAllChildren(place);
    return false;
  }
}
