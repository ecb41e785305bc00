// What the nodes of the cluster report about themselves, and the totals of all of them. Each report is an ephemeral
// event of this feed; what counts is when it came, because clocks differ.

export const NODES = "feed.nodes";
export const MINUTES = 5;

const KEEP = MINUTES * 60;
const FORGET = 60000;
const FORGET_STOPPED = 8000;

export class Nodes {
  points = []; // the totals of each second that had a report: {at, nodes, in, out, …}
  #nodes = new Map();

  take({ data, arrived }) {
    let report;
    try {
      report = JSON.parse(data);
    } catch {
      return;
    }
    if (typeof report?.node !== "string") return;
    this.#nodes.set(report.node, { ...report, arrived });
    const at = Math.floor(arrived / 1000);
    if (this.points.at(-1)?.at === at) this.points.pop();
    this.points.push({ at, ...this.#totals(arrived) });
    while (this.points[0].at < at - KEEP) this.points.shift();
  }

  // All nodes that have reported lately, those in trouble first. One that is silent has died or cannot be heard; it goes
  // when another one has come in its place.
  list(now) {
    for (const [id, { arrived, draining }] of this.#nodes) if (now - arrived > (draining ? FORGET_STOPPED : FORGET)) this.#nodes.delete(id);
    // More than 50 nodes report more rarely.
    const patience = 5000 + 60 * this.#nodes.size;
    const heard = [...this.#nodes.values()].map((node) => ({ ...node, silent: now - node.arrived > patience }));
    const replaced = (old) => old.silent && heard.some((node) => !node.silent && node.name && node.name === old.name && node.started > old.started);
    const all = heard.filter((node) => !replaced(node));
    const rank = (node) => (node.silent ? 1 : node.store?.up && node.bus?.up ? 2 : 0);
    return all.sort((a, b) => rank(a) - rank(b) || compare(a.name ?? "", b.name ?? "") || compare(a.node, b.node));
  }

  // Returns how many subscribers a feed has on all nodes, or undefined where a node does not name all of its feeds.
  subscribersOf(feed, nodes) {
    const alive = nodes.filter(({ silent }) => !silent);
    if (alive.length === 0 || alive.some(({ followed, unnamed }) => unnamed && !Object.hasOwn(followed ?? {}, feed))) return undefined;
    return alive.reduce((sum, { followed }) => sum + (Object.hasOwn(followed ?? {}, feed) ? Number(followed[feed]) : 0), 0);
  }

  clear() {
    this.#nodes.clear();
    this.points = [];
  }

  // Latencies are those of the slowest node: percentiles of several nodes have no sum.
  #totals(now) {
    const alive = this.list(now).filter(({ silent }) => !silent);
    const sum = (of) => alive.some((node) => of(node) !== undefined) ? alive.reduce((total, node) => total + (Number(of(node)) || 0), 0) : undefined;
    const most = (of) => alive.reduce((max, node) => (of(node) === undefined ? max : Math.max(max ?? 0, Number(of(node)) || 0)), undefined);
    return {
      nodes: alive.length,
      in: sum(({ published }) => published),
      out: sum(({ delivered }) => delivered),
      subscribers: sum(({ subscribers }) => subscribers),
      delivery50: most(({ delivery }) => delivery?.p50),
      delivery99: most(({ delivery }) => delivery?.p99),
      commit50: most(({ commit }) => commit?.p50),
      commit99: most(({ commit }) => commit?.p99),
    };
  }
}

const compare = (a, b) => (a < b ? -1 : a > b ? 1 : 0);
