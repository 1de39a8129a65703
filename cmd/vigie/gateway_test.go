//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	deployed "vigie/deploy/services"
	"vigie/sensors"
	"vigie/stream/streamtest"
)

// TestGatewayWithoutKafka takes the broker away from under a gateway. Everything that was
// acknowledged is in Kafka in the end. The rehearsal at full length is `make bench-gateway
// E2E='-outage 5m -kill'`.
func TestGatewayWithoutKafka(t *testing.T) {
	redis := streamtest.Need(t, "VIGIE_TEST_REDIS")
	jars, err := deployed.KafkaJars(t.Context(), t.Output())
	if err != nil {
		t.Fatal(err)
	}
	k, err := deployed.StartKafka(t.Context(), deployed.KafkaConfig{Dir: t.TempDir(), Jars: jars, JVM: deployed.QuickJVM})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := k.Kill(); err != nil {
			t.Error(err)
		}
	})
	t.Run("killed", func(t *testing.T) { gatewayKilled(t, k, redis) })
	t.Run("disk full", func(t *testing.T) { gatewayDiskFull(t, k, redis) })
}

// acknowledged are the reads that a gateway has taken.
type acknowledged struct {
	mu   sync.Mutex
	by   map[string]ack // by id
	slow time.Duration  // longest that a request took
}

type ack struct{ sent, acked time.Time }

// send posts reads once and notes them when they are taken. It is what the gateway answers; a
// gateway that is not there answers 0.
func (a *acknowledged) send(url string, reads []sensors.Read) (status int, header http.Header) {
	body, err := json.Marshal(reads)
	if err != nil {
		panic(err)
	}
	req, err := http.NewRequest("POST", url+"/v1/reads", strings.NewReader(string(body)))
	if err != nil {
		panic(err)
	}
	req.Header.Set("Authorization", "Bearer "+sensorToken)
	req.Header.Set("Content-Type", jsonType)
	sent := time.Now()
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, nil
	}
	defer resp.Body.Close()
	var res sensors.Result
	if resp.StatusCode == http.StatusAccepted && json.NewDecoder(resp.Body).Decode(&res) == nil && res.Accepted == len(reads) {
		acked := time.Now()
		a.mu.Lock()
		defer a.mu.Unlock()
		a.slow = max(a.slow, acked.Sub(sent))
		for i := range reads {
			a.by[reads[i].ID] = ack{sent, acked}
		}
	}
	return resp.StatusCode, resp.Header
}

// passing makes n reads of a sensor, the first of which has a number. Ids of a sensor rise.
func passing(sensor string, first, n int) []sensors.Read {
	reads := make([]sensors.Read, n)
	for i := range reads {
		reads[i] = sensors.Read{
			ID: fmt.Sprintf("%s-%06d", sensor, first+i), Sensor: sensor, Plate: fmt.Sprintf("AB-%03d-CD", 1+(first+i)%999),
			Country: "FR", TS: time.Now().UnixMilli(), Conf: 0.9,
		}
	}
	return reads
}

// inKafka is a read of the topic.
type inKafka struct {
	id, sensor string
	at         time.Time // when the broker appended it, to the millisecond
	again      bool      // it is there more than once
}

// topic returns the reads of the reads topic, each where it is first, when nothing has come for
// a while: a shorter one once all that were acknowledged are there. Those of a sensor are in order.
func (s *site) topic(a *acknowledged) []inKafka {
	s.t.Helper()
	still := 10 * time.Second
	c, err := kgo.NewClient(kgo.SeedBrokers(s.kafka), kgo.ConsumeTopics(s.prefix+"reads"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		s.t.Fatal(err)
	}
	defer c.Close()
	var out []inKafka
	place := map[string]int{}
	missing := len(a.by)
	for {
		if missing == 0 {
			still = time.Second
		}
		ctx, cancel := context.WithTimeout(s.t.Context(), still)
		fetches := c.PollFetches(ctx)
		idle := ctx.Err() != nil
		cancel()
		fetches.EachRecord(func(rec *kgo.Record) {
			var r sensors.Read
			if err := sensors.Decode(rec.Value, &r); err != nil {
				s.t.Errorf("the topic has what is no read: %v", err)
			}
			if i, ok := place[r.ID]; ok {
				out[i].again = true
				return
			}
			place[r.ID] = len(out)
			if _, ok := a.by[r.ID]; ok {
				missing--
			}
			out = append(out, inKafka{id: r.ID, sensor: r.Sensor, at: rec.Timestamp})
		})
		if idle {
			return out
		}
	}
}

// against says what of the acknowledged reads is missing on the topic or in another order than
// sent. A live read, which Kafka had when it was acknowledged, may be before earlier ones that
// were spooled, and so may one that went both ways, which is there more than once.
func (a *acknowledged) against(topic []inKafka) (problems []string) {
	found := map[string]bool{}
	type last struct{ live, spooled string }
	sensor := map[string]last{}
	for _, r := range topic {
		ack, ok := a.by[r.id]
		if !ok {
			continue // its sender was told to come again, or nothing
		}
		found[r.id] = true
		l := sensor[r.sensor]
		live := r.at.UnixMilli() <= ack.acked.UnixMilli()
		if live || r.again && r.id > l.live {
			if r.id < max(l.live, l.spooled) {
				problems = append(problems, "out of order, live: "+r.id)
			}
			l.live = r.id
		} else {
			if r.id < l.spooled {
				problems = append(problems, "out of order, spooled: "+r.id)
			}
			l.spooled = r.id
		}
		sensor[r.sensor] = l
	}
	for id := range a.by {
		if !found[id] {
			problems = append(problems, "missing: "+id)
		}
	}
	if n := len(problems); n > 20 {
		return append(problems[:20], fmt.Sprintf("and %d more", n-20))
	}
	return problems
}

// drained reports whether nothing waits for Kafka.
func (s *site) drained(p *process) func() bool {
	return func() bool {
		m := string(s.metrics(p))
		return strings.Contains(m, "\nvigie_spool_reads 0\n") && strings.Contains(m, "\nvigie_spool_circuit_open 0\n")
	}
}

// gatewayKilled sends 500 reads per second while Kafka is away for eight seconds, and kills the
// gateway in the middle: it starts again without Kafka. A gateway without a spool says that
// it takes nothing.
func gatewayKilled(t *testing.T, k *deployed.Kafka, redis string) {
	const sensorsN, perCall, pace = 20, 5, 200 * time.Millisecond
	s := newSiteOn(t, k.Addr(), redis)
	plain := s.serve("gateway")
	s.env = append(s.env, "VIGIE_GATEWAY_SPOOL_DIR="+filepath.Join(t.TempDir(), "spool"))
	p := s.serve("gateway")

	a := &acknowledged{by: map[string]ack{}}
	var mu sync.Mutex
	url := p.url
	sending, halt := context.WithCancel(t.Context())
	var senders sync.WaitGroup
	defer func() { halt(); senders.Wait() }()
	for i := range sensorsN {
		senders.Go(func() {
			tick := time.NewTicker(pace)
			defer tick.Stop()
			for n := 0; ; n += perCall {
				reads := passing(fmt.Sprintf("A7-%02d", i), n, perCall)
				for {
					mu.Lock()
					to := url
					mu.Unlock()
					status, _ := a.send(to, reads)
					if status == http.StatusAccepted {
						break
					}
					if status != 0 { // there is room, and whoever is there takes reads
						t.Errorf("status %d", status)
						return
					}
					select {
					case <-time.After(20 * time.Millisecond):
					case <-sending.Done():
						return
					}
				}
				select {
				case <-tick.C:
				case <-sending.Done():
					return
				}
			}
		})
	}

	time.Sleep(time.Second)
	if err := k.Stop(); err != nil {
		t.Fatal(err)
	}
	down := time.Now()
	refused := make(chan int, 1)
	go func() {
		status, header := (&acknowledged{by: map[string]ack{}}).send(plain.url, passing("A7-99", 0, 1))
		if header.Get("Retry-After") == "" {
			status = -1
		}
		refused <- status
	}()
	time.Sleep(4 * time.Second)
	p.kill()
	killed := time.Now()
	p = s.serve("gateway")
	t.Logf("ready %v after it was killed", time.Since(killed).Round(time.Millisecond))
	mu.Lock()
	url = p.url
	mu.Unlock()
	time.Sleep(time.Until(down.Add(8 * time.Second)))
	if err := k.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	back := time.Now()
	s.until("the spool is empty", s.drained(p))
	t.Logf("Kafka was away for %v; drained %v later", back.Sub(down).Round(time.Millisecond), time.Since(back).Round(time.Millisecond))
	time.Sleep(time.Second)
	halt()
	senders.Wait()
	if status := <-refused; status != http.StatusServiceUnavailable {
		t.Errorf("a gateway without a spool answered %d while Kafka was away, want 503 with Retry-After (-1: without)", status)
	}

	topic := s.topic(a)
	if problems := a.against(topic); len(problems) > 0 {
		t.Errorf("of %d acknowledged reads: %s", len(a.by), problems)
	}
	spooled, after, late := 0, 0, time.Duration(0)
	for _, r := range topic {
		ack := a.by[r.id]
		if r.at.After(ack.acked) {
			spooled++
		}
		if ack.sent.After(back) {
			after++
			late = max(late, r.at.Sub(ack.sent))
		}
	}
	t.Logf("%d reads acknowledged, %d spooled; slowest request %v; %d sent after Kafka was back, there after at most %v",
		len(a.by), spooled, a.slow.Round(time.Millisecond), after, late.Round(time.Millisecond))
	if spooled < 2000 || after < 100 {
		t.Errorf("%d reads were spooled, %d sent afterwards", spooled, after)
	}
	if limit := 5 * busy; late > limit || a.slow > limit {
		t.Errorf("a read sent after Kafka was back took %v, a request %v, want at most %v", late, a.slow, limit)
	}
	// The check must see a loss and a change of order.
	swapped := slices.Clone(topic)
	once := func(r inKafka) bool { return !r.again && r.at.After(a.by[r.id].acked.Add(time.Second)) }
	i := slices.IndexFunc(swapped, once)
	j := i + 1 + slices.IndexFunc(swapped[i+1:], func(r inKafka) bool { return r.sensor == swapped[i].sensor && once(r) })
	swapped[i], swapped[j] = swapped[j], swapped[i]
	if a.against(topic[1:]) == nil || a.against(swapped) == nil {
		t.Error("the check against what was acknowledged is blind")
	}
}

// gatewayDiskFull has the spool on a file system of 8 MB: the gateway says 503 before the last
// of them, loses nothing, and takes reads again by itself once Kafka is back.
func gatewayDiskFull(t *testing.T, k *deployed.Kafka, redis string) {
	const perCall = 100
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=8m"); err != nil {
		if os.Getenv("VIGIE_TEST_REQUIRE") == "" && errors.Is(err, syscall.EPERM) {
			t.Skip("mounting a small file system needs root: run make test as root")
		}
		t.Fatalf("mount: %v; run the tests as root", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	free := func() int64 {
		var fs syscall.Statfs_t
		if err := syscall.Statfs(dir, &fs); err != nil {
			t.Fatal(err)
		}
		return int64(fs.Bavail) * fs.Bsize
	}
	s := newSiteOn(t, k.Addr(), redis, "VIGIE_GATEWAY_SPOOL_DIR="+dir)
	p := s.serve("gateway")
	empty := free()
	if err := k.Stop(); err != nil {
		t.Fatal(err)
	}
	a := &acknowledged{by: map[string]ack{}}
	n, status := 0, http.StatusAccepted
	var header http.Header
	for ; status == http.StatusAccepted; n += perCall {
		if free() < 1<<20 {
			t.Fatalf("%d bytes are free, and the gateway still takes reads", free())
		}
		status, header = a.send(p.url, passing("A7-01", n, perCall))
	}
	if status != http.StatusServiceUnavailable || header.Get("Retry-After") == "" {
		t.Errorf("status %d, Retry-After %q when the spool is full, want 503 and a number", status, header.Get("Retry-After"))
	}
	if left := free(); left < 1<<20 || left > 1<<20+64<<10 || len(a.by) < 20_000 {
		t.Errorf("%d bytes are free when the spool is full, after %d reads", left, len(a.by))
	}
	full := len(a.by)
	p.kill() // what is on a full disk is good enough to start from
	p = s.serve("gateway")
	if status, _ := a.send(p.url, passing("A7-01", n, perCall)); status != http.StatusServiceUnavailable {
		t.Errorf("status %d of a spool that was full before, want 503", status)
	}
	if err := k.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	back := time.Now()
	s.until("the gateway takes reads again", func() bool {
		n += perCall
		status, _ := a.send(p.url, passing("A7-01", n, perCall))
		return status == http.StatusAccepted
	})
	t.Logf("full after %d reads; takes reads again %v after Kafka does", full, time.Since(back).Round(time.Millisecond))
	s.until("the spool is empty", s.drained(p))
	s.until("the disk is empty", func() bool { return free() >= empty-64<<10 })
	if problems := a.against(s.topic(a)); len(problems) > 0 {
		t.Errorf("of %d acknowledged reads: %s", len(a.by), problems)
	}
}
