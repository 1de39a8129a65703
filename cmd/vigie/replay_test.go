package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/zap"

	"vigie/cmd/vigie/internal/app"
	"vigie/sensors"
	"vigie/stream/alert"
	"vigie/stream/embedded"
	"vigie/stream/kafka"
)

// TestReplayEmbedded plays a replay through, on embedded services and with the program
// itself: reads match entries that came after them, as late alerts, once; what was
// delivered stays as it was; and queues that were lost come back from the hits topic
// without what was withdrawn meanwhile.
func TestReplayEmbedded(t *testing.T) {
	svc, err := embedded.Start(embedded.Config{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- svc.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if err := svc.Close(); err != nil {
			t.Error(err)
		}
	})
	s := newSiteOn(t, svc.KafkaAddrs()[0], svc.RedisAddr(), "VIGIE_REDIS_PASSWORD="+svc.RedisPassword(),
		"VIGIE_KAFKA_SASL_MECHANISM=PLAIN", "VIGIE_KAFKA_SASL_USERNAME="+svc.KafkaUser(), "VIGIE_KAFKA_SASL_PASSWORD="+svc.KafkaPassword())
	testReplay(t, s, kafka.Config{
		Brokers: svc.KafkaAddrs(), Prefix: s.prefix, Log: zap.NewNop(),
		SASL: &kafka.SASL{Mechanism: "PLAIN", Username: svc.KafkaUser(), Password: svc.KafkaPassword()},
	}, &redis.Options{Addr: svc.RedisAddr(), Password: svc.RedisPassword()})
}

// TestReplayReal is the same on real Kafka and Redis.
func TestReplayReal(t *testing.T) {
	s := newSite(t)
	testReplay(t, s, kafka.Config{Brokers: []string{s.kafka}, Prefix: s.prefix, Log: zap.NewNop()}, &redis.Options{Addr: s.redis})
}

func testReplay(t *testing.T, s *site, kc kafka.Config, ro *redis.Options) {
	const n = 20 // reads of each plate
	p := s.serve("all")
	s.list(p, "exact")
	s.entry(p, "AB-123-CD")
	got := s.patrol(p)
	var reads []sensors.Read
	for i := range n {
		for _, plate := range []string{"AB-123-CD", "EF-456-GH", "JK-789-LM", "NO-000-NE"} {
			r := readOf(fmt.Sprintf("%s-%02d", plate, i), plate)
			r.Sensor = fmt.Sprint("s-", i%7)
			reads = append(reads, r)
		}
	}
	s.must(http.StatusAccepted, "POST", p.url+"/v1/reads", sensorToken, jsonType, reads)
	s.until("the live alerts are there", func() bool { return len(got.all()) == n })

	cluster, err := kafka.Open(kc)
	if err != nil {
		t.Fatal(err)
	}
	defer cluster.Close()
	s.until("the live matcher has committed the reads", func() bool {
		r, err := cluster.Replay(t.Context(), kafka.ReplayConfig{From: time.Now().Add(-time.Hour), Group: s.queue})
		return err == nil && r.Left() == 0 && r.Total() == int64(len(reads))
	})
	replay := func(args ...string) (res app.ReplayResult) {
		t.Helper()
		cmd := s.command(append([]string{"replay", "--from", "1h", "-o", "json"}, args...)...)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("replay %v: %v\n%s", args, err, stderr.Bytes())
		}
		for _, canary := range []string{"AB-123", "AB123", "EF-456", "EF456", "JK-789", "JK789"} {
			if bytes.Contains(stderr.Bytes(), []byte(canary)) || bytes.Contains(out, []byte(canary)) {
				t.Errorf("replay %v shows a plate", args)
			}
		}
		if err := json.Unmarshal(out, &res); err != nil {
			t.Fatalf("replay %v: %v in %s", args, err, out)
		}
		return res
	}
	hits := func() map[string]int {
		t.Helper()
		got := map[string]int{}
		if err := cluster.Journal().ReadAll(t.Context(), func(events []*alert.Event) error {
			for _, e := range events {
				got[e.AlertID]++
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		return got
	}
	want := func(what string, got, want app.ReplayResult) {
		t.Helper()
		if got != want {
			t.Errorf("%s: %+v, want %+v", what, got, want)
		}
	}
	all := int64(len(reads))
	want("nothing has changed", replay(), app.ReplayResult{Total: all, Done: all, Reads: all, Hits: n, There: n})
	gone := s.entry(p, "EF-456-GH")
	want("a new entry", replay(), app.ReplayResult{Total: all, Done: all, Reads: all, Hits: 2 * n, New: n, There: n})
	want("once more", replay(), app.ReplayResult{Total: all, Done: all, Reads: all, Hits: 2 * n, There: 2 * n})
	for id, times := range hits() {
		if times != 1 {
			t.Errorf("alert %s is %d times on the hits topic", id, times)
		}
	}
	s.entry(p, "JK-789-LM")
	want("into the queue only", replay("--queue-only"), app.ReplayResult{Total: all, Done: all, Reads: all, Hits: 3 * n, New: n, There: 2 * n})
	if got := len(hits()); got != 2*n {
		t.Errorf("%d alerts on the hits topic, want %d", got, 2*n)
	}
	began := time.Now()
	want("slowly", replay("--rate", "40"), app.ReplayResult{Total: all, Done: all, Reads: all, Hits: 3 * n, There: 3 * n})
	if took := time.Since(began); took < time.Duration(all-8)*time.Second/40 {
		t.Errorf("%d reads at 40 a second took %v", all, took)
	}
	if got := len(hits()); got != 3*n { // what --queue-only left out
		t.Errorf("%d alerts on the hits topic, want %d", got, 3*n)
	}
	s.until("the patrol has all", func() bool { return len(got.all()) >= 3*n })
	count := map[string]int{}
	for _, a := range got.all() {
		live := a.Entry.Plate == "AB-123-CD"
		if a.Late == live || a.Stop != live {
			t.Errorf("alert %s: late %v, stop %v, live %v", a.ID, a.Late, a.Stop, live)
		}
		if count[a.ID]++; count[a.ID] > 1 {
			t.Errorf("the patrol got alert %s twice", a.ID)
		}
	}

	// Redis loses everything while nobody runs.
	s.must(http.StatusOK, "DELETE", p.url+"/v1/lists/stolen/entries/"+gone, operatorToken, jsonType, map[string]string{"reason": "found"})
	p.kill()
	rdb := redis.NewClient(ro)
	defer rdb.Close()
	for it := rdb.Scan(t.Context(), 0, s.queue+":*", 1000).Iterator(); it.Next(t.Context()); {
		if err := rdb.Del(t.Context(), it.Val()).Err(); err != nil {
			t.Fatal(err)
		}
	}
	want("rebuild", replay("--rebuild"), app.ReplayResult{Total: 3 * n, Done: 3 * n, Hits: 3 * n, New: 2 * n, Unwanted: n})
	want("rebuild again", replay("--rebuild"), app.ReplayResult{Total: 3 * n, Done: 3 * n, Hits: 3 * n, There: 2 * n, Unwanted: n})
	again := s.patrol(s.serve("all"))
	s.until("the rebuilt queue is handed out", func() bool { return len(again.all()) >= 2*n })
	for _, a := range again.all() {
		if live := a.Entry.Plate == "AB-123-CD"; a.Stop != live || a.Late == live || a.Entry.ID == gone {
			t.Errorf("alert %s: late %v, stop %v, entry %s", a.ID, a.Late, a.Stop, a.Entry.ID)
		}
	}
}
