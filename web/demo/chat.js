// A room is a feed. A reader keeps one number, its cursor: the id of the
// last event that it has.
export class Reader {
  cursor = null;

  connect(room, { withCursor, opened, show }) {
    const back = withCursor ? `lastEventId=${this.cursor}` : "from=now";
    const start = this.cursor === null ? "from=start" : back;
    this.source = new EventSource(`v1/feeds/${room}/events?${start}`);
    const keep = (then) => (event) => {
      this.cursor = Number(event.lastEventId);
      then(this.cursor, event.data);
    };
    this.source.addEventListener("feed.open", keep(opened));
    this.source.onmessage = keep(show);
  }

  disconnect() {
    this.source.close();
  }
}

export const say = (room, message) => fetch(`v1/feeds/${room}/events`, {
  method: "POST",
  headers: { "Content-Type": "application/json" },
  body: JSON.stringify(message),
});
