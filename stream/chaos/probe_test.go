//go:build linux

package chaos

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	kafkago "github.com/segmentio/kafka-go"

	"vigie/stream/ledger"
)

const (
	probeQueue = "probe"
	probePlate = "PR-001-BE"
	probeEvery = 100 * time.Millisecond
	// inTime is how soon a read must be an alert for the service to count as recovered (I4).
	inTime = time.Second
	// steady is how many rounds in a row must be in time: a second's worth.
	steady = 10
)

// probe sends reads of one wanted plate, to every partition every 100 ms, beside the load: the
// times at which their alerts are stored say when the service is away and when it is back. It
// is a second ledger, too: no acknowledged probe may be missing, none may alert twice.
type probe struct {
	s       *site
	gateway *process
	sensors []string // one for each partition

	cancel  context.CancelFunc
	stopped sync.WaitGroup

	mu     sync.Mutex
	rounds []round // sent so far

	// longest is the longest that a probe waited to be stored: as long, give or take the 100 ms
	// between two probes, as any read did. judge sets it.
	longest time.Duration
}

// round is one probe of every partition.
type round struct {
	sent   time.Time
	result ledger.Result // empty while no answer is there
}

// newProbe makes the list of the probe.
func (s *site) newProbe(gateway *process) *probe {
	s.t.Helper()
	p := &probe{s: s, gateway: gateway, sensors: make([]string, partitions)}
	ids := make([]int, partitions)
	for i := range ids {
		ids[i] = i
	}
	for left, n := partitions, 0; left > 0; n++ {
		name := fmt.Sprint("probe-", n)
		part := kafkago.Murmur2Balancer{}.Balance(kafkago.Message{Key: []byte(name)}, ids...)
		if p.sensors[part] == "" {
			p.sensors[part] = name
			left--
		}
	}
	for url, body := range map[string]any{"/v1/lists": map[string]any{
		"id": probeQueue, "name": "Sonde", "owner": "chaos", "legal_basis": "essai technique, plaques inventées",
		"tolerance": "exact", "queue": probeQueue, "default_action": "inform",
	}} {
		if err := call(s.t.Context(), "POST", gateway.url+url, operatorToken, body, nil); err != nil {
			s.t.Fatal(err)
		}
	}
	if err := call(s.t.Context(), "POST", gateway.url+"/v1/lists/"+probeQueue+"/entries", operatorToken, map[string]any{
		"plate": probePlate, "country": "FR", "reason": "probe", "case_ref": "chaos",
		"valid_from": time.Now().Add(-time.Hour), "valid_until": time.Now().Add(24 * time.Hour),
	}, nil); err != nil {
		s.t.Fatal(err)
	}
	return p
}

// send sends a round and returns what became of it.
func (p *probe) send(ctx context.Context, name string) ledger.Result {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	var reads []map[string]any
	for part, sensor := range p.sensors {
		reads = append(reads, map[string]any{
			"id": fmt.Sprintf("probe-%s-%d", name, part), "sensor": sensor, "plate": probePlate, "country": "FR", "ts": time.Now().UnixMilli(), "conf": 0.95,
		})
	}
	err := call(ctx, "POST", p.gateway.url+"/v1/reads", sensorToken, reads, nil)
	switch {
	case err == nil:
		return ledger.OK
	case errors.Is(err, errRefused):
		return ledger.Fail
	default:
		return ledger.Unknown
	}
}

// reaches sends one round and reports whether, by now, an alert of each partition is there.
func (p *probe) reaches() bool {
	p.s.t.Helper()
	p.send(p.s.t.Context(), fmt.Sprint("w", time.Now().UnixNano()))
	time.Sleep(probeEvery)
	reached := map[string]bool{}
	for id := range p.alerts() {
		reached[id[strings.LastIndexByte(id, '-'):]] = true
	}
	return len(reached) == partitions
}

// alerts returns when each alert of the probe was stored, by the id of its read.
func (p *probe) alerts() map[string][]time.Time {
	p.s.t.Helper()
	at := map[string][]time.Time{}
	for _, m := range p.s.stored(probeQueue) {
		var a struct{ Read struct{ ID string } }
		var ms int64
		text, _ := m.Values["data"].(string)
		if _, err := fmt.Sscanf(m.ID, "%d-", &ms); err != nil || m.Values["kind"] != "alert" || json.Unmarshal([]byte(text), &a) != nil {
			p.s.t.Fatalf("the queue of the probe holds %v", m)
		}
		at[a.Read.ID] = append(at[a.Read.ID], time.UnixMilli(ms))
	}
	return at
}

// start sends a round every 100 ms, whatever became of those before, until stop.
func (p *probe) start() {
	ctx, cancel := context.WithCancel(context.Background())
	p.cancel = cancel
	p.stopped.Go(func() {
		tick := time.NewTicker(probeEvery)
		defer tick.Stop()
		for n := 0; ; n++ {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			p.mu.Lock()
			p.rounds = append(p.rounds, round{sent: time.Now()})
			p.mu.Unlock()
			p.stopped.Go(func() {
				result := p.send(context.WithoutCancel(ctx), fmt.Sprint(n)) // one that was sent is waited for
				p.mu.Lock()
				p.rounds[n].result = result
				p.mu.Unlock()
			})
		}
	})
}

func (p *probe) stop() {
	p.cancel()
	p.stopped.Wait()
}

// recovered lets a steady number of rounds more be sent and answered, and stops.
func (p *probe) recovered(t *testing.T) {
	t.Helper()
	time.Sleep((steady + 2) * probeEvery)
	p.stop()
}

// judge holds the alerts of the probe to what was sent, and works out the recovery.
func (p *probe) judge(tr *trial) {
	tr.t.Helper()
	at := p.alerts()
	stored := make([]time.Time, len(p.rounds)) // when the last alert of a round was; zero for one that is not whole
	for n, r := range p.rounds {
		whole := r.result == ledger.OK
		for part := range partitions {
			id := fmt.Sprintf("probe-%d-%d", n, part)
			times := at[id]
			switch {
			case len(times) > 1:
				tr.t.Errorf("probe %s alerted %d times", id, len(times))
			case len(times) == 0 && r.result == ledger.OK:
				tr.t.Errorf("probe %s was acknowledged and has no alert", id)
			case len(times) == 1 && r.result == ledger.Fail:
				tr.t.Errorf("probe %s was refused and has an alert", id)
			}
			if len(times) == 0 {
				whole = false
				continue
			}
			p.longest = max(p.longest, times[0].Sub(r.sent))
			if times[0].After(stored[n]) {
				stored[n] = times[0]
			}
		}
		tr.res.Probes++
		if !whole {
			tr.res.ProbesRefused++
			stored[n] = time.Time{}
			continue
		}
		tr.res.WorstSeconds = max(tr.res.WorstSeconds, stored[n].Sub(r.sent).Seconds())
	}
	undisturbed := true // the last mending was followed by a recovery, or there was none yet
	for i, heal := range tr.heals {
		// A fault that came before the recovery from the last one leaves none to be measured.
		until := time.Now()
		for _, strike := range slices.Backward(tr.strikes) {
			if strike.After(heal) {
				until = strike
			}
		}
		took, ok := recovery(p.rounds, stored, heal, until)
		if !ok && i == len(tr.heals)-1 {
			tr.t.Errorf("reads were not alerts within %v again, %d rounds in a row, after everything was whole", inTime, steady)
		}
		if ok && undisturbed {
			tr.res.RecoverySeconds = max(tr.res.RecoverySeconds, took.Seconds())
		} else if ok {
			tr.res.DisturbedSeconds = max(tr.res.DisturbedSeconds, took.Seconds())
		}
		undisturbed = ok
	}
	disturbed := ""
	if tr.res.DisturbedSeconds > 0 {
		disturbed = fmt.Sprintf(" (%.2f s where the service had not recovered from the fault before)", tr.res.DisturbedSeconds)
	}
	tr.t.Logf("recovered %.2f s after it was whole%s; the slowest probe took %.2f s, %d of %d rounds were not taken",
		tr.res.RecoverySeconds, disturbed, tr.res.WorstSeconds, tr.res.ProbesRefused, tr.res.Probes)
}

// recovery is how long after heal the first of a steady number of rounds in a row was stored
// that were all in time, of those sent before until.
func recovery(rounds []round, stored []time.Time, heal, until time.Time) (time.Duration, bool) {
	run := 0
	for n, r := range rounds {
		switch {
		case r.sent.Before(heal):
		case r.sent.After(until):
			return 0, false
		case stored[n].IsZero() || stored[n].Sub(r.sent) > inTime:
			run = 0
		default:
			if run++; run == steady {
				return stored[n-steady+1].Sub(heal), true
			}
		}
	}
	return 0, false
}
