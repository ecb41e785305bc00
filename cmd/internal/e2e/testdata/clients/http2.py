"""Follows a feed over HTTP/2 with httpx, and prints a line of JSON for each event and for
each stream that breaks: python3 http2.py URL FEED CERTIFICATE. On the connection of each
stream, it publishes to a feed of its own and reads a page of it."""
import json
import sys
import time

import httpx

url, feed, certificate = sys.argv[1:]
last, published, closed = "0", 0, False


def say(**what):
    print(json.dumps({"who": "httpx", **what}), flush=True)


def visit(client):
    """Publishes an event and reads it, while the stream is open."""
    global published
    n = published + 1
    post = client.post("/v1/feeds/by-httpx/events", content=f"httpx {n}", headers={"Idempotency-Key": f"httpx-{n}"})
    assert post.status_code == 201 and post.json()["id"] == n, post.text
    page = client.get("/v1/feeds/by-httpx/events", params={"after": n - 1}, headers={"Accept": "application/json"})
    assert page.status_code == 200 and page.json()["events"][0]["data"] == f"httpx {n}", page.text
    # Another connection would begin with 1 again.
    assert [answer.extensions["stream_id"] for answer in (post, page)] == [3, 5], "it took another connection"
    published = n


while not closed:
    try:
        with httpx.Client(http2=True, verify=certificate, base_url=url, timeout=20) as client:
            headers = {"Accept": "text/event-stream", "Last-Event-ID": last}
            with client.stream("GET", f"/v1/feeds/{feed}/events", headers=headers) as stream:
                assert stream.status_code == 200, stream.status_code
                text = ""
                for chunk in stream.iter_text():
                    text += chunk
                    while "\n\n" in text:
                        block, text = text.split("\n\n", 1)
                        fields = dict(line.split(": ", 1) for line in block.split("\n") if ": " in line)
                        last = fields.get("id", last)
                        if "event" not in fields:
                            say(id=int(last), data=fields["data"])
                        elif fields["event"] == "feed.closed":
                            closed = True
                        elif fields["event"] == "feed.open":
                            visit(client)
        say(end="clean")
    except httpx.TransportError as error:
        say(end="error", error=repr(error))
        time.sleep(0.03)
