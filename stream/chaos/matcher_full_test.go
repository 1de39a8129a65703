//go:build linux && chaos

package chaos

import (
	"fmt"
	"testing"
	"time"
)

// TestEndedWhileJoining sends SIGTERM to matchers that have not joined the group yet. The
// brokers name a member only when it has joined, so such a one cannot take its leave, and the
// group waits for it as for a dead one.
func TestEndedWhileJoining(t *testing.T) {
	s, gateway, ms := newMatcherSite(t, 1)
	tr := s.begin("SIGTERM while joining, 3 times", plan{rate: 1000, share: 0.1, changes: 2, duration: 20 * time.Second}, gateway, ms...)
	time.Sleep(time.Second)
	tr.strike()
	for n := range 3 {
		m := s.start(fmt.Sprint("joining-", n), "matcher")
		select {
		case <-m.serving:
		case <-time.After(patience):
			t.Fatal("a matcher does not start")
		}
		time.Sleep(between(dice(t), 0, 200*time.Millisecond))
		tr.shown("ended %.2f s after SIGTERM, last in generation %d", s.terminate(m).Seconds(), m.assignment.Load().generation)
	}
	tr.heal()
	tr.finish()
	if limit := 2*session + recoverySlack; tr.res.RecoverySeconds > limit.Seconds() {
		t.Errorf("recovered after %v s, want within %v", tr.res.RecoverySeconds, limit)
	}
}
