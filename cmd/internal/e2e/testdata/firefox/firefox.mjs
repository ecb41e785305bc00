// Firefox over HTTP/2. The arguments are its path, the server's address, and how many feeds
// and events there are. It uses the console, follows the feeds f0, f1 and so on from one
// page, prints "following", and a line of JSON once it has all events.
import puppeteer from "puppeteer-core";

const [executablePath, url, streams, events] = process.argv.slice(2);
const browser = await puppeteer.launch({ browser: "firefox", executablePath, headless: true, acceptInsecureCerts: true });
try {
  const page = await browser.newPage();
  const faults = [];
  page.on("pageerror", (error) => faults.push(String(error)));
  await useConsole(page);
  await page.goto(`${url}/healthz`);
  const protocol = await page.evaluate(() => performance.getEntriesByType("navigation")[0].nextHopProtocol);
  await page.evaluate((streams) => {
    window.got = Array.from({ length: streams }, () => []);
    return Promise.all(window.got.map((ids, i) => new Promise((opened) => {
      const source = new EventSource(`/v1/feeds/f${i}/events?from=start`);
      source.onopen = opened;
      source.onmessage = (e) => ids.push(e.lastEventId);
    })));
  }, Number(streams));
  console.log("following");
  await page.waitForFunction((events) => window.got.every((ids) => ids.length >= events), { timeout: 90_000, polling: 100 }, Number(events));
  console.log(JSON.stringify({ protocol, faults, got: await page.evaluate(() => window.got) }));
} finally {
  await browser.close();
}

// Publishes, cuts the connection, publishes three events meanwhile and gets them.
async function useConsole(page) {
  await page.goto(`${url}/feeds/orders`);
  await page.waitForSelector('#status[data-state="live"]');
  await page.type("#publish-data", "from the box");
  await page.click("#publish-send");
  await page.waitForSelector('#events [data-id="1"]');
  await page.click("#cut");
  await page.waitForSelector('#status[data-state="cut"]');
  await page.click("#publish-away");
  await page.waitForSelector('#events [data-mark="caught-up"]');
  await page.waitForSelector('#events [data-id="4"]');
}
