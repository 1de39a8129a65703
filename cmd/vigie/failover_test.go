package main

import (
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	deployed "vigie/deploy/services"
	"vigie/sensors"
	"vigie/stream/alert"
)

// TestRedisLost kills Redis while reads come in and starts it again without any data, twice,
// under a whole service on real Kafka: every alert of the last half minute is back, once.
// With redis.rewind 0 they are missing, which shows that the ledger sees a loss.
func TestRedisLost(t *testing.T) {
	for _, rewind := range []string{"30s", "0s"} {
		t.Run("rewind="+rewind, func(t *testing.T) {
			k, _ := services(t)
			r, err := deployed.StartRedis(t.Context(), deployed.RedisConfig{Dir: t.TempDir()})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := r.Kill(); err != nil {
					t.Error(err)
				}
			})
			s := newSiteOn(t, k, r.Addr(), "VIGIE_REDIS_REWIND="+rewind)
			p := s.serve("all")
			s.list(p, "exact")
			entry := s.entry(p, "AB-123-CD")
			ledger := map[string]bool{}
			send := func(round, n int) {
				t.Helper()
				var reads []sensors.Read
				for i := range n {
					reads = append(reads, readOf(fmt.Sprintf("r-%d-%03d", round, i), "AB-123-CD"))
					ledger[alert.ID(&reads[i], entry)] = true
				}
				s.must(http.StatusAccepted, "POST", p.url+"/v1/reads", sensorToken, jsonType, reads)
			}
			send(0, 50)
			s.until("the matcher works", func() bool { return len(s.stored()) == len(ledger) })
			for round := range 2 {
				send(1+2*round, 100)
				if err := r.Kill(); err != nil {
					t.Fatal(err)
				}
				send(2+2*round, 100) // Kafka takes them meanwhile
				if err := r.Restart(t.Context()); err != nil {
					t.Fatal(err)
				}
				began := time.Now()
				restored := func() bool {
					if rewind == "0s" {
						return strings.Contains(string(s.metrics(p)), fmt.Sprintf("vigie_queues_failovers_total %d", round+1)) && len(s.stored()) >= 100
					}
					return len(s.stored()) >= len(ledger)
				}
				s.until("the alerts are back", restored)
				t.Logf("all back %v after Redis was", time.Since(began).Round(time.Millisecond))
			}
			problems := compare(ledger, s.stored())
			switch {
			case rewind == "0s" && len(problems) < 50:
				t.Errorf("without a rewind only %d problems: the test would not see a loss", len(problems))
			case rewind != "0s" && len(problems) > 0:
				t.Errorf("the queue is not the ledger: %s", problems)
			}
			m := regexp.MustCompile(`(?m)^vigie_queues_(failovers|restored)_total .*$`).FindAllString(string(s.metrics(p)), -1)
			t.Logf("%s", m)
			if got := strings.Join(m, " "); !strings.Contains(got, "failovers_total 2") || strings.Contains(got, "restored_total 0") == (rewind != "0s") {
				t.Errorf("metrics %s", got)
			}
		})
	}
}

// metrics scrapes a process.
func (s *site) metrics(p *process) []byte {
	s.t.Helper()
	return s.must(http.StatusOK, "GET", p.url+"/metrics", operatorToken, "", nil)
}
