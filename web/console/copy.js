// Copies texts, and writes the command that publishes an event.

import { eventsURL } from "./place.js";
import { optionsOf } from "./deliver.js";

export const quote = (text) => `'${text.replaceAll("'", `'\\''`)}'`;

// How a publish differs from its defaults, as headers and query.
export function curlOf(feed, { data, type, json, close, ephemeral, key }) {
  return [
    `curl ${quote(eventsURL(feed, { ...optionsOf({ close, ephemeral }), ...(key !== undefined && { key }) }))}`,
    `-H 'Content-Type: ${json ? "application/json" : "text/plain"}'`,
    ...(type ? [`-H ${quote(`Event-Type: ${type}`)}`] : []),
    // Not -d, which would read a file when the data begins with @.
    `--data-raw ${quote(data)}`,
  ].join(" \\\n  ");
}

export function copyOnClick(button, text, place) {
  const label = button.textContent;
  let timer = 0;
  button.addEventListener("click", async () => {
    button.textContent = (await copy(text(), place)) ? "Copied" : place ? "Selected" : "Not allowed here";
    clearTimeout(timer);
    timer = setTimeout(() => { button.textContent = label; }, 1600);
  });
}

// Browsers offer the clipboard only to secure origins. Elsewhere, use the old way, or select the text.
async function copy(text, place) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    if (place) {
      getSelection().selectAllChildren(place);
      return false;
    }
    const field = document.createElement("textarea");
    const focused = document.activeElement;
    field.value = text;
    field.className = "hidden";
    document.body.append(field);
    field.select();
    const copied = document.execCommand("copy");
    field.remove();
    focused?.focus({ preventScroll: true });
    return copied;
  }
}
