// What stands in place of a list without events.

import { at } from "./dom.js";

export class Empty {
  show(pages, readings) {
    const gone = pages.length === 1 && pages[0].last > 0;
    const say = (title, hint) => {
      at("empty-title").textContent = title;
      at("empty-hint").textContent = hint;
    };
    const were = pages[0].last === 1 ? "Event 1 was" : `Events 1 to ${pages[0].last} were`;
    if (gone && pages[0].closed) say("Closed, and nothing is kept", `${were} trimmed or deleted.`);
    else if (gone) say("Nothing is kept here", `${were} trimmed or deleted. The next one will be ${pages[0].last + 1}.`);
    else if (readings.closed || pages.every((page) => page.closed)) say("Closed without an event", "Nobody can publish here any more.");
    else say("No events here yet", "Publish the first one, here or from a terminal.");
  }

  refuse(code) {
    at("empty-title").textContent = code === 400 ? "This cannot be followed" : code === 401 ? "Not logged in" : code === 403 ? "Not allowed" : "Refused";
    at("empty-hint").textContent = "";
  }
}
