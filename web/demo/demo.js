// The page: the source of the modules that it shows, and its two parts.

import "./chat-panes.js";
import "./answer-pane.js";

for (const place of document.querySelectorAll("[data-source]")) {
  fetch(new URL(place.dataset.source, import.meta.url))
    .then((response) => response.text())
    .then((source) => { place.textContent = source.trimEnd(); }, () => { place.textContent = "The source cannot be read right now."; });
}
