package e2e

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/rejoin/rejoin/storage/testserver"
)

// BenchmarkAIAnswers publishes answers with one token an event, each as one stream with a
// key and with one reader. An operation is an event: published, stored and read. The
// answers are as fast as they can be, or have 50 tokens a second each.
func BenchmarkAIAnswers(b *testing.B) {
	postgres := testserver.StartPostgres(b)
	for _, store := range []struct{ name, bus string }{{"sqlite", "memory"}, {"postgres", "postgres"}} {
		for _, run := range []struct {
			answers int
			pause   time.Duration // between two tokens
		}{{1, 0}, {100, 0}, {100, time.Second / 50}} {
			b.Run(fmt.Sprintf("%s/answers=%d/pause=%v", store.name, run.answers, run.pause), func(b *testing.B) {
				url := "sqlite:" + filepath.Join(b.TempDir(), "bench.db")
				if store.name == "postgres" {
					url = postgres.NewDatabase(b)
				}
				node := serveBenchmarkNode(b, url, store.bus)
				cpu := node.cpu()
				b.ResetTimer()
				var work sync.WaitGroup
				for i := range run.answers {
					feed := fmt.Sprintf("%s/v1/feeds/chat:%d:answer", node.url, i)
					events := b.N / run.answers
					if i < b.N%run.answers {
						events++
					}
					body, answer := io.Pipe()
					work.Go(func() { writeTokens(answer, events, run.pause) })
					work.Go(func() { publishTokens(b, feed, body) })
					work.Go(func() { readTokens(b, feed, events) })
				}
				work.Wait()
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
				b.ReportMetric(float64((node.cpu()-cpu).Microseconds())/float64(b.N), "cpu-µs/event")
			})
		}
	}
}

const token = "data: {\"type\":\"text-delta\",\"id\":\"0\",\"delta\":\" token\"}\n\n"

func writeTokens(answer *io.PipeWriter, events int, pause time.Duration) {
	begin := time.Now()
	for i := range events {
		time.Sleep(time.Until(begin.Add(time.Duration(i) * pause))) // the pace of a model
		if _, err := io.WriteString(answer, token); err != nil {
			break // publishTokens reports it
		}
	}
	answer.Close()
}

func publishTokens(b *testing.B, feed string, body *io.PipeReader) {
	defer body.Close()
	request, err := http.NewRequest(http.MethodPost, feed+"/events?close=true", body)
	if err != nil {
		b.Error(err)
		return
	}
	request.Header.Set("Content-Type", "text/event-stream")
	request.Header.Set("Idempotency-Key", "answer")
	resp, err := http.DefaultClient.Do(request)
	if err != nil {
		b.Error(err)
		return
	}
	if resp.Body.Close(); resp.StatusCode != http.StatusCreated {
		b.Errorf("publish: %s", resp.Status)
	}
}

func readTokens(b *testing.B, feed string, events int) {
	resp, err := http.Get(feed + "/stream")
	if err != nil {
		b.Error(err)
		return
	}
	defer resp.Body.Close()
	read, err := io.ReadAll(resp.Body)
	if n := bytes.Count(read, []byte("data: ")); err != nil || n != events {
		b.Errorf("a reader has %d events of %d: %v", n, events, err)
	}
}
