package server

import (
	"context"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/rejoin/rejoin/feed"
)

// Sources holds the parts of a node that have metrics.
type Sources struct {
	Hub       *feed.Hub
	Publisher *feed.Publisher
	// Server may be nil.
	Server *Server
	// Refused returns how many events the bus refused because it already had them
	// or later ones; nil if it never refuses any.
	Refused func() uint64
	// EnqueueRefused returns how many events of the store's queue could not be
	// numbered; nil if the store has no queue.
	EnqueueRefused func() uint64
	// Appends may be nil.
	Appends *Appends
}

// Metrics returns a handler that Prometheus can scrape. Feed names are in no label.
func Metrics(sources Sources) http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collector{sources})
	if a := sources.Appends; a != nil {
		registry.MustRegister(a.seconds, a.events)
	}
	if s := sources.Server; s != nil {
		registry.MustRegister(s.deliveries)
	}
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{})
}

// Appends measures what a publisher appends.
type Appends struct{ seconds, events prometheus.Histogram }

// NewAppends returns an Appends without measurements.
func NewAppends() *Appends {
	return &Appends{
		// From a fast disk to a store that hardly answers.
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "rejoin_append_seconds",
			Help:    "Time that the store took to commit, of each commit.",
			Buckets: []float64{.0002, .0005, .001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5, 10},
		}),
		// From a single event to the largest commit.
		events: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "rejoin_append_batch_events",
			Help:    "Events that were committed together, of each commit.",
			Buckets: prometheus.ExponentialBuckets(1, 2, 13),
		}),
	}
}

// deliveries is the histogram of delivery delays. It is cheap, because each write to
// each subscriber adds a value.
type deliveries struct {
	counts [len(deliveryBuckets) + 1]atomic.Uint64 // the last one is above all buckets
	sum    atomic.Int64                            // milliseconds
}

// deliveryBuckets are the upper bounds in milliseconds: from the delay on one node to
// the delay that a fault may cause, and more.
var deliveryBuckets = [...]int64{1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 2000, 5000, 10_000, 30_000}

// observe adds a delivery that was late by so many milliseconds. That can be negative,
// because the clocks of nodes differ.
func (d *deliveries) observe(late int64) {
	late = max(late, 0)
	i := 0
	for i < len(deliveryBuckets) && late > deliveryBuckets[i] {
		i++
	}
	d.counts[i].Add(1)
	d.sum.Add(late)
}

var deliveriesDesc = describe("delivery_seconds", "Time from an event's commit until it was written to a subscriber that was there before, of the oldest event of each write. Commits have whole milliseconds.")

// Describe implements [prometheus.Collector].
func (d *deliveries) Describe(to chan<- *prometheus.Desc) { to <- deliveriesDesc }

// Collect implements [prometheus.Collector].
func (d *deliveries) Collect(to chan<- prometheus.Metric) {
	buckets, count := make(map[float64]uint64, len(deliveryBuckets)), uint64(0)
	for i, bound := range deliveryBuckets {
		count += d.counts[i].Load()
		buckets[float64(bound)/1000] = count
	}
	count += d.counts[len(deliveryBuckets)].Load()
	to <- prometheus.MustNewConstHistogram(deliveriesDesc, count, float64(d.sum.Load())/1000, buckets)
}

// Observe is for feed.PublisherOptions.
func (a *Appends) Observe(took time.Duration, events int) {
	a.seconds.Observe(took.Seconds())
	a.events.Observe(float64(events))
}

// collector reads the metrics at each scrape.
type collector struct{ Sources }

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("rejoin_"+name, help, labels, nil)
}

var (
	subscribersDesc = describe("subscribers", "Subscribers of this node now.")
	publishedDesc   = describe("events_published_total", "Events that this node has stored.")
	deliveredDesc   = describe("events_delivered_total", "Events handed to subscribers of this node.")
	replayedDesc    = describe("replayed_events_total", "Events by where they were read: handed to subscribers from memory (log) or from the store (store), taken from the bus (bus).", "source")
	gapsDesc        = describe("gaps_total", "Gaps sent to subscribers.", "reason")
	refusedDesc     = describe("bus_refused_total", "Events that the bus refused because it already had them or later ones.")
	enqueueDesc     = describe("enqueue_refused_total", "Enqueued events that this node could not number. They are in the table rejoin.refused.")
	shedDesc        = describe("shed_total", "Subscribers that were rejected with a time after which to come back.")
	repairsDesc     = describe("bus_repairs_total", "Times that this node read events from the store that the bus had not delivered.")
	storeUpDesc     = describe("store_up", "Whether the store answers.")
	busUpDesc       = describe("bus_up", "Whether the bus works.")
	memoryDesc      = describe("memory_bytes", "Bytes that this node holds on behalf of clients, roughly, by what holds them.", "holder")
	limitDesc       = describe("memory_limit_bytes", "Bytes that this node may hold on behalf of clients, by what holds them: parts of limits.memory.", "holder")
	waitingDesc     = describe("publish_waiting", "Publishes that wait for their commit to begin or to end.")
)

// Describe implements [prometheus.Collector].
func (c collector) Describe(to chan<- *prometheus.Desc) { prometheus.DescribeByCollect(c, to) }

// Collect implements [prometheus.Collector].
func (c collector) Collect(to chan<- prometheus.Metric) {
	stats := c.Hub.Stats()
	counter := func(d *prometheus.Desc, n uint64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	memory := c.Hub.Memory()
	for _, h := range feed.Holders() {
		gauge(memoryDesc, float64(memory.Used(h)), h.String())
		gauge(limitDesc, float64(memory.Limit(h)), h.String())
	}
	gauge(waitingDesc, float64(c.Publisher.Waiting()))
	gauge(subscribersDesc, float64(stats.Subscribers))
	counter(publishedDesc, c.Publisher.Published())
	counter(deliveredDesc, stats.FromLog+stats.FromStore)
	counter(replayedDesc, stats.FromLog, "log")
	counter(replayedDesc, stats.FromBus, "bus")
	counter(replayedDesc, stats.FromStore, "store")
	counter(gapsDesc, stats.Trimmed, string(feed.Trimmed))
	counter(gapsDesc, stats.Ahead, string(feed.Ahead))
	counter(repairsDesc, stats.Repairs)
	if c.Server != nil {
		counter(shedDesc, c.Server.rejected.Load())
	}
	refused := uint64(0)
	if c.Refused != nil {
		refused = c.Refused()
	}
	counter(refusedDesc, refused)
	if c.EnqueueRefused != nil {
		counter(enqueueDesc, c.EnqueueRefused())
	}

	ctx, cancel := context.WithTimeout(context.Background(), readyTimeout)
	defer cancel()
	health := c.Hub.Health(ctx)
	gauge(storeUpDesc, up(health.Store))
	gauge(busUpDesc, up(health.Bus))
}

func up(err error) float64 {
	if err != nil {
		return 0
	}
	return 1
}
