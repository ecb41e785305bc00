package server

import (
	"context"
	"net/http"
	"runtime"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/server/auth"
)

// Sources holds the parts of a node that have metrics. Without a Hub, the node has not
// reached its store yet.
type Sources struct {
	Hub       *feed.Hub
	Publisher *feed.Publisher
	// Server may be nil.
	Server *Server
	// Refusals are those of the node while it has no Server; nil means the Server's.
	Refusals *Refusals
	// Refused returns how many events the bus refused because it already had them
	// or later ones; nil if it never refuses any.
	Refused func() uint64
	// EnqueueRefused returns how many events of the store's queue could not be
	// numbered; nil if the store has no queue.
	EnqueueRefused func() uint64
	// Redis has the round trips of a bus on Redis; nil if there is none.
	Redis *feed.Durations
	// Appends may be nil.
	Appends *Appends
	// Version is that of this program.
	Version string
}

// Metrics returns a handler that Prometheus can scrape. Feed names are in no label.
func Metrics(sources Sources) http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collector{sources}, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	if a := sources.Appends; a != nil {
		registry.MustRegister(a.seconds, a.events)
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
	buildDesc           = describe("build_info", "Always 1, with the version of Rejoin and of Go that this node was built with.", "version", "goversion")
	storeUpDesc         = describe("store_up", "Whether the store answers: 1 or 0.")
	busUpDesc           = describe("bus_up", "Whether the bus works: 1 or 0.")
	storeSecondsDesc    = describe("store_seconds", "Time that calls of the store took, with those that failed.", "call")
	redisSecondsDesc    = describe("redis_seconds", "Time that Redis took to answer, with calls that failed. Calls that wait in Redis for news do not count.")
	comparedDesc        = describe("store_compared_timestamp_seconds", "A Unix time since which every open feed has been compared with the store. Its age bounds how long an event that the bus lost can stay unnoticed.")
	repairsDesc         = describe("bus_repairs_total", "Times that this node read events from the store that the bus had not delivered.")
	busRefusedDesc      = describe("bus_refused_total", "Events that the bus refused because it already had them or later ones.")
	enqueueDesc         = describe("enqueue_refused_total", "Enqueued events that this node could not number. They are in the table rejoin.refused.")
	roundsDesc          = describe("retention_rounds_total", "Rounds of retention that this node ran for all nodes.")
	failedRoundsDesc    = describe("retention_failures_total", "Rounds of retention that failed on this node, in whole or for some feeds.")
	trimsDesc           = describe("retention_trims_total", "Times that retention on this node trimmed a feed.")
	trimmedDesc         = describe("retention_trimmed_events_total", "Events that retention on this node removed.")
	publishedDesc       = describe("events_published_total", "Events that this node has stored.")
	waitingDesc         = describe("publish_waiting", "Publishes that wait for their commit to begin or to end.")
	waitingBytesDesc    = describe("publish_waiting_bytes", "Bytes that these publishes hold, roughly.")
	subscribersDesc     = describe("subscribers", "Subscriptions of this node now. A stream of several feeds has one for each.")
	deliveredDesc       = describe("events_delivered_total", "Events handed to subscribers of this node.")
	deliverySecondsDesc = describe("delivery_seconds", "Time from an event's commit until it was written to a subscriber that was there before, of the oldest event of each write, by where the node read the event: in its memory (log), or in the store, because the subscriber was behind (store). Commits have whole milliseconds.", "path")
	replayedDesc        = describe("replayed_events_total", "Events by where they were read: handed to subscribers from memory (log) or from the store (store), taken from the bus (bus).", "source")
	gapsDesc            = describe("gaps_total", "Gaps sent to subscribers, by why events were missing: trimmed by retention or a client (trimmed), or lost by the store after subscribers had seen them (ahead).", "reason")
	slowDesc            = describe("slow_subscribers", "Streams for which bytes wait because their clients read too slowly.")
	backlogDesc         = describe("worker_backlog", "Subscribers that have something to read and wait for their turn, roughly.")
	openedDesc          = describe("streams_opened_total", "Streams that clients have opened.")
	endedDesc           = describe("streams_ended_total", "Streams that have ended, by why.", "reason")
	shedDesc            = describe("shed_total", "Subscribers that were rejected with a time after which to come back.")
	requestsDesc        = describe("http_requests_total", "Answered requests by route and status. A stream that this node writes to the socket itself counts when it begins, any other answer when it has ended. Requests that fit no route, such as those for the console, have the route other.", "route", "status")
	refusedDesc         = describe("refused_total", "Requests that were refused, by why.", "reason")
	questionsDesc       = describe("auth_questions_total", "Questions to the application that decides who may do what, by its answer.", "verdict")
	questionSecondsDesc = describe("auth_question_seconds", "Time that the application took to answer, with questions that got no answer.")
	answerHitsDesc      = describe("auth_cache_hits_total", "Requests for which an earlier answer of the application counted.")
	memoryDesc          = describe("memory_bytes", "Bytes that this node holds on behalf of clients, roughly, by what holds them.", "holder")
	limitDesc           = describe("memory_limit_bytes", "Bytes that this node may hold on behalf of clients, by what holds them: parts of limits.memory.", "holder")
)

// Describe implements [prometheus.Collector].
func (c collector) Describe(to chan<- *prometheus.Desc) { prometheus.DescribeByCollect(c, to) }

// Collect implements [prometheus.Collector].
func (c collector) Collect(to chan<- prometheus.Metric) {
	m := metricsChannel(to)
	m.gauge(buildDesc, 1, c.Version, runtime.Version())
	switch {
	case c.Refusals != nil:
		c.Refusals.collect(m)
	case c.Server != nil:
		c.Server.refusals.collect(m)
	}
	if c.Hub == nil {
		m.gauge(storeUpDesc, 0)
		return
	}
	c.collectHub(m)
	c.collectStore(m)
	m.counter(publishedDesc, c.Publisher.Published())
	m.gauge(waitingDesc, float64(c.Publisher.Waiting()))
	m.gauge(waitingBytesDesc, float64(c.Publisher.WaitingBytes()))
	if c.Server != nil {
		c.Server.counters.collect(m)
		c.Server.collectQuestions(m)
	}
}

func (c collector) collectHub(m metricsChannel) {
	stats := c.Hub.Stats()
	m.gauge(subscribersDesc, float64(stats.Subscribers))
	m.gauge(backlogDesc, float64(stats.Backlog))
	m.counter(deliveredDesc, stats.FromLog+stats.FromStore)
	m.counter(replayedDesc, stats.FromLog, "log")
	m.counter(replayedDesc, stats.FromBus, "bus")
	m.counter(replayedDesc, stats.FromStore, "store")
	m.counter(gapsDesc, stats.Trimmed, string(feed.Trimmed))
	m.counter(gapsDesc, stats.Ahead, string(feed.Ahead))
	m.counter(repairsDesc, stats.Repairs)
	m.gauge(comparedDesc, float64(stats.Compared.UnixMilli())/1000)
	m.counter(roundsDesc, stats.RetentionRounds)
	m.counter(failedRoundsDesc, stats.RetentionFailures)
	m.counter(trimsDesc, stats.RetentionTrims)
	m.counter(trimmedDesc, stats.RetentionEvents)
	memory := c.Hub.Memory()
	for _, h := range feed.Holders() {
		m.gauge(memoryDesc, float64(memory.Used(h)), h.String())
		m.gauge(limitDesc, float64(memory.Limit(h)), h.String())
	}
}

// collectStore collects what concerns the store and the bus.
func (c collector) collectStore(m metricsChannel) {
	for _, call := range feed.StoreCalls() {
		m.histogram(storeSecondsDesc, c.Hub.StoreTimes(call), call.String())
	}
	if c.Redis != nil {
		m.histogram(redisSecondsDesc, c.Redis)
	}
	refused := uint64(0)
	if c.Refused != nil {
		refused = c.Refused()
	}
	m.counter(busRefusedDesc, refused)
	if c.EnqueueRefused != nil {
		m.counter(enqueueDesc, c.EnqueueRefused())
	}
	ctx, cancel := context.WithTimeout(context.Background(), readyTimeout)
	defer cancel()
	health := c.Hub.Health(ctx)
	m.gauge(storeUpDesc, up(health.Store))
	m.gauge(busUpDesc, up(health.Bus))
}

// collectQuestions collects what concerns the application that is asked.
func (s *Server) collectQuestions(m metricsChannel) {
	forward, ok := s.options().Auth.(*auth.Forward)
	if !ok {
		forward = &auth.Forward{} // which has asked nothing
	}
	stats := forward.Stats()
	for verdict, n := range stats.Questions {
		m.counter(questionsDesc, n, verdict)
	}
	m.counter(answerHitsDesc, stats.Hits)
	m.histogram(questionSecondsDesc, stats.Seconds)
}

// collect collects what the server has counted. Each reason is there from the start, and
// a status once a route has had it.
func (c *counters) collect(m metricsChannel) {
	for i, path := range paths {
		m.histogram(deliverySecondsDesc, &c.deliveries[i], path)
	}
	m.counter(shedDesc, c.rejected.Load())
	m.gauge(slowDesc, float64(c.slow.Load()))
	m.counter(openedDesc, c.opened.Load())
	for reason, n := range c.ended {
		m.counter(endedDesc, n.Load(), reason)
	}
	for route, counts := range c.requests {
		for i := range counts {
			if n := counts[i].Load(); n > 0 {
				m.counter(requestsDesc, n, route, strconv.Itoa(i+100))
			}
		}
	}
}

// metricsChannel passes metrics to Prometheus.
type metricsChannel chan<- prometheus.Metric

func (m metricsChannel) counter(d *prometheus.Desc, n uint64, labels ...string) {
	m <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
}

func (m metricsChannel) gauge(d *prometheus.Desc, v float64, labels ...string) {
	m <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}

func (m metricsChannel) histogram(d *prometheus.Desc, durations *feed.Durations, labels ...string) {
	buckets, count, sum := durations.Read()
	m <- prometheus.MustNewConstHistogram(d, count, sum, buckets, labels...)
}

func up(err error) float64 {
	if err != nil {
		return 0
	}
	return 1
}
