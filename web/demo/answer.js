// An answer is a feed: each word is an event. After the last one, the
// server closes the feed.
export const ask = () => fetch("demo/answers", { method: "POST" });

// Reads an answer from its first word, also after a reload.
export function read(feed, { opened, show, ended }) {
  const source = new EventSource(`v1/feeds/${feed}/events?from=start`);
  const tell = (then) => (e) => then(Number(e.lastEventId), e.data);
  source.addEventListener("feed.open", tell(opened));
  source.onmessage = tell(show);
  source.addEventListener("feed.closed", () => {
    source.close();
    ended();
  });
  return source;
}

// Ends it for everybody: its readers, and the program that writes it.
export const stop = (feed) =>
  fetch(`v1/feeds/${feed}/close`, { method: "POST" });
