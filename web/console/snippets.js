// The same from a program or a terminal: to follow, to resume and to publish, in several languages.

import { at, write } from "./dom.js";
import { eventsURL, followURL } from "./place.js";
import { optionsOf } from "./deliver.js";
import { copyOnClick, curlOf, quote } from "./copy.js";

const literal = (text) => JSON.stringify(text);
const base = () => new URL("../", import.meta.url).href.replace(/\/$/, "");
const isHere = () => base() === "http://127.0.0.1:8080";
const PARTS = ["follow", "resume", "publish"];

// Each language writes three texts from {feeds, cursor, types, draft}; the draft has feed, data, type, json, close, ephemeral.
const LANGUAGES = {
  curl: {
    follow: ({ feeds }) => `curl -N ${quote(followURL(feeds, { from: "-50" }))}`,
    resume: ({ feeds, cursor }) => `curl -N ${quote(followURL(feeds))} \\\n  -H ${quote(`Last-Event-ID: ${cursor}`)}`,
    publish: ({ draft }) => curlOf(draft.feed, draft),
  },
  javascript: {
    follow: (at) => eventSource(followURL(at.feeds, { from: "-50" }), at.types),
    resume: (at) => eventSource(followURL(at.feeds, { lastEventId: at.cursor }), at.types),
    publish: ({ draft }) => `const response = await fetch(${literal(publishURL(draft))}, {
  method: "POST",
  headers: { "Content-Type": ${literal(mediaOf(draft))}${draft.type ? `, "Event-Type": ${literal(draft.type)}` : ""} },
  body: ${literal(draft.data)},
})
console.log(await response.${draft.ephemeral ? "text" : "json"}())`,
  },
  python: {
    follow: ({ feeds }) => python(followURL(feeds, { from: "-50" })),
    resume: ({ feeds, cursor }) => python(followURL(feeds, { lastEventId: cursor })),
    publish: ({ draft }) => `import urllib.request

request = urllib.request.Request(
    ${literal(publishURL(draft))},
    data=${literal(draft.data)}.encode(),
    headers={"Content-Type": ${literal(mediaOf(draft))}${draft.type ? `, "Event-Type": ${literal(draft.type)}` : ""}},
)
print(urllib.request.urlopen(request).read().decode())`,
  },
  go: {
    follow: ({ feeds }) => goFollow(feeds, `From: "-50"`),
    resume: ({ feeds, cursor }) => goFollow(feeds, `Cursor: ${literal(cursor)}`),
    publish: ({ draft }) => `c, err := client.New(${literal(base())}, client.Options{})
if err != nil {
	log.Fatal(err)
}
result, err := c.Publish(ctx, client.Publication{
	Feed:   ${literal(draft.feed)},
	Drafts: []feed.Draft{{${draft.type ? `Type: ${literal(draft.type)}, ` : ""}Data: ${literal(draft.data)}${draft.json ? ", JSON: true" : ""}}},${draft.close ? "\n\tClose:  true," : ""}
})
if err != nil {
	log.Fatal(err)
}
fmt.Println(result.IDs)`,
  },
  cli: {
    follow: ({ feeds }) => `rejoin tail ${feeds.map(bare).join(" ")} --from -50 --id${where()}`,
    resume: ({ feeds, cursor }) => `rejoin tail ${feeds.map(bare).join(" ")} --last-event-id ${cursor}${where()}`,
    publish: ({ draft }) => `rejoin publish ${bare(draft.feed)}${draft.type ? ` --type ${draft.type}` : ""}${draft.json ? " --json" : ""}${draft.close ? " --close" : ""}${where()} -- ${quote(draft.data)}`,
  },
};

const bare = (text) => (/^[A-Za-z0-9._:@~-]+$/.test(text) ? text : quote(text));
const where = () => (isHere() ? "" : ` --url ${base()}`);
const mediaOf = ({ json }) => (json ? "application/json" : "text/plain");
const publishURL = (draft) => eventsURL(draft.feed, optionsOf(draft));

function eventSource(url, types) {
  const listeners = types.slice(0, 5).map((type) => `source.addEventListener(${literal(type)}, show)\n`).join("");
  return `const source = new EventSource(${literal(url)})
const show = (event) => console.log(event.lastEventId, event.data)
source.onmessage = show
${listeners}source.addEventListener("feed.closed", () => source.close())`;
}

const python = (url) => `import json, urllib.request

request = urllib.request.Request(
    ${literal(url)},
    headers={"Accept": "application/x-ndjson"},
)
for line in urllib.request.urlopen(request):
    event = json.loads(line) if line.strip() else None  # a keep-alive
    if event and not event["type"].startswith("feed."):
        print(event.get("id"), event["type"], event["data"])`;

const goFollow = (feeds, start) => `c, err := client.New(${literal(base())}, client.Options{})
if err != nil {
	log.Fatal(err)
}
for e, err := range c.Follow(ctx, client.Subscription{Feeds: []string{${feeds.map(literal).join(", ")}}, ${start}}) {
	if err != nil {
		log.Fatal(err)
	}
	if e.Kind == client.KindEvent {
		fmt.Println(e.ID, e.Type, e.Data)
	}
}`;

export class Snippets {
  #language = "curl";
  #state = null;
  #tabs = [...document.querySelectorAll("#languages [role=tab]")];

  constructor() {
    for (const part of PARTS) copyOnClick(at(`copy-${part}`), () => at(`code-${part}`).textContent, at(`code-${part}`));
    for (const tab of this.#tabs) tab.addEventListener("click", () => this.#choose(tab));
    at("languages").addEventListener("keydown", (event) => this.#key(event));
  }

  show(state) {
    const { feeds, draft } = state;
    this.#state = {
      ...state,
      cursor: state.cursor || (feeds.length === 1 ? "0" : feeds.map((feed) => `${feed}=0`).join(",")),
      draft: { ...draft, feed: draft.feed || feeds[0], data: draft.data || (draft.json ? '{"text":"hello"}' : "hello") },
    };
    this.#draw();
  }

  #draw() {
    if (!this.#state) return;
    for (const part of PARTS) write(at(`code-${part}`), LANGUAGES[this.#language][part](this.#state));
  }

  #choose(tab) {
    this.#language = tab.dataset.language;
    for (const one of this.#tabs) {
      one.setAttribute("aria-selected", String(one === tab));
      one.tabIndex = one === tab ? 0 : -1;
    }
    at("snippets").setAttribute("aria-labelledby", tab.id);
    this.#draw();
  }

  #key(event) {
    const here = this.#tabs.findIndex((tab) => tab.getAttribute("aria-selected") === "true");
    const to = { ArrowRight: here + 1, ArrowLeft: here - 1, Home: 0, End: -1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    const tab = this.#tabs.at(to % this.#tabs.length);
    this.#choose(tab);
    tab.focus();
  }
}
