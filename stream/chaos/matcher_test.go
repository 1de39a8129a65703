//go:build linux

package chaos

import (
	"context"
	"fmt"
	"slices"
	"syscall"
	"testing"
	"time"

	kafkago "github.com/segmentio/kafka-go"

	"vigie/stream/ledger"
)

// newMatcherSite is a site on the shared services with the given number of matchers.
func newMatcherSite(t *testing.T, matchers int) (s *site, gateway *process, ms []*process) {
	t.Helper()
	s = newSite(t, siteConfig{kafka: []string{sharedKafka(t)}, redis: sharedRedis(t).Addr()})
	gateway = s.serve("office", office)
	for i := range matchers {
		ms = append(ms, s.serve(fmt.Sprint("matcher-", i), "matcher"))
	}
	return s, gateway, ms
}

// session is how long a dead member of the group keeps its partitions, and recovery must follow
// within recoverySlack.
const (
	session       = 10 * time.Second
	recoverySlack = 3 * time.Second
)

// TestMatcherKilled kills one of two matchers with SIGKILL again and again, at random times, and
// starts another in its place. The last of every five comes while the group has not recovered
// from the one before; the others after that.
func TestMatcherKilled(t *testing.T) {
	beside(t)
	rng, kills := dice(t), short(3, 20)
	s, gateway, ms := newMatcherSite(t, 2)
	tr := s.begin(fmt.Sprintf("matcher killed, %d times", kills), plan{
		rate: 1000, changes: 2, share: 0.1, duration: time.Duration(kills) * short(11*time.Second, 13*time.Second),
	}, gateway, ms...)
	time.Sleep(between(rng, time.Second, 2*time.Second))
	for n := range kills {
		i := rng.IntN(len(ms))
		tr.strike()
		ms[i].kill()
		t.Logf("kill %d: %s", n+1, ms[i].name)
		ms[i] = s.serve(ms[i].name, "matcher")
		tr.heal()
		switch {
		case n == kills-1:
		case n%5 == 3 || n == kills-2:
			time.Sleep(between(rng, 0, 2*time.Second))
		default:
			s.until("the group has recovered", func() bool {
				lag := tr.lag()
				return shared(ms) && lag >= 0 && lag < 500
			})
			time.Sleep(steady*probeEvery + between(rng, 500*time.Millisecond, 3*time.Second))
		}
	}
	rep := tr.finish(ms...)
	if tr.res.WorstSeconds < inTime.Seconds() {
		t.Errorf("the slowest probe took %v s: no kill has been felt", tr.res.WorstSeconds)
	}
	if limit := session + recoverySlack; tr.res.RecoverySeconds == 0 || tr.res.RecoverySeconds > limit.Seconds() {
		t.Errorf("recovered after %v s, want within %v", tr.res.RecoverySeconds, limit)
	}
	// A member that dies while the group waits for a dead one counts as joined, and has a session
	// of its own after that.
	if limit := 2*session + recoverySlack; tr.res.DisturbedSeconds > limit.Seconds() {
		t.Errorf("recovered after %v s from a kill while the group had not recovered, want within %v", tr.res.DisturbedSeconds, limit)
	}
	// What a kill repeats is what was stored and not committed: commit_every of alerts, and what
	// came between two looks at the clock.
	alerts := 1000 * 0.1
	perKill, limit := float64(rep.HitRepeats)/float64(kills), 2*alerts*0.2
	tr.shown("%.1f alerts were stored again per kill: %.0f ms of reads; a commit is due every 200 ms", perKill, perKill/alerts*1000)
	if perKill > limit {
		t.Errorf("%v alerts were stored again per kill, more than %v", perKill, limit)
	}
}

// TestRebalanceStorm lets three matchers leave and join every half second to second. Those that
// leave have joined before; see TestEndedWhileJoining.
func TestRebalanceStorm(t *testing.T) {
	beside(t)
	rng, storm := dice(t), short(10*time.Second, 60*time.Second)
	s, gateway, ms := newMatcherSite(t, 3)
	tr := s.begin(fmt.Sprintf("rebalance storm, %v", storm), plan{
		rate: 1000, share: 0.2, changes: 2, duration: storm + 3*time.Second,
	}, gateway, ms...)
	time.Sleep(time.Second)
	generations, moves := s.generation(), 0
	leaving := map[*process]time.Time{}
	for until := time.Now().Add(storm); time.Now().Before(until); time.Sleep(between(rng, 500*time.Millisecond, time.Second)) {
		i := rng.IntN(len(ms))
		_, told := leaving[ms[i]]
		tr.strike()
		switch {
		case ms[i].gone():
			ms[i] = s.start(ms[i].name, "matcher")
		case told || ms[i].assignment.Load().generation == 0:
			continue // still on its way out, or in
		default:
			leaving[ms[i]] = time.Now()
			s.signal(ms[i], syscall.SIGTERM)
		}
		moves++
	}
	for m, since := range leaving {
		s.ended(m, since)
	}
	for i, m := range ms {
		if m.gone() {
			ms[i] = s.start(m.name, "matcher")
		}
	}
	for _, m := range ms {
		s.awaitReady(m)
	}
	tr.heal()
	generations = s.generation() - generations
	tr.shown("%d joins and leaves, %d generations of the group", moves, generations)
	if least := int(storm / (3 * time.Second)); moves < least || int(generations) < least {
		t.Errorf("%d moves and %d generations are no storm", moves, generations)
	}
	rep := tr.finish(ms...)
	again := 100 * float64(rep.HitRepeats) / float64(rep.Found+rep.Allowed)
	tr.shown("%.1f %% of the reads that alerted were processed twice", again)
	if again > 5 {
		t.Errorf("%.1f %% of the reads that alerted were processed twice, more than 5 %%", again)
	}
	if limit := session + recoverySlack; tr.res.RecoverySeconds > limit.Seconds() {
		t.Errorf("recovered %v s after the storm, want within %v", tr.res.RecoverySeconds, limit)
	}
}

// TestZombie stops a matcher (SIGSTOP) for longer than its session, until another has taken its
// partitions over and gone on, and wakes it.
func TestZombie(t *testing.T) {
	beside(t)
	s, gateway, ms := newMatcherSite(t, 2)
	tr := s.begin("matcher stopped beyond its session, then woken", plan{
		rate: 1000, share: 0.1, changes: 2, duration: 22 * time.Second,
	}, gateway, ms...)
	time.Sleep(between(dice(t), 500*time.Millisecond, time.Second))
	tr.strike()
	s.signal(ms[0], syscall.SIGSTOP)
	stopped := time.Now()
	time.Sleep(time.Second)
	var before []int64
	s.until("Kafka says what is committed", func() bool { before = s.committed(); return before != nil })
	s.until("its partitions are taken over", func() bool {
		now := s.committed()
		for i := range now {
			if now[i] <= before[i] {
				return false
			}
		}
		return now != nil
	})
	tr.shown("its partitions were committed by the other one %.1f s after it was stopped", time.Since(stopped).Seconds())
	if early := session - 2*time.Second; time.Since(stopped) < early {
		t.Errorf("they moved within %v: it had none", early)
	}
	time.Sleep(between(dice(t), 500*time.Millisecond, 1500*time.Millisecond))
	s.signal(ms[0], syscall.SIGCONT)
	tr.heal()
	tr.finish(ms...)
}

// TestTerminatedUnderLoad sends SIGTERM to a matcher in the middle of the load, and to the next
// one while it works off what has piled up. Both must end in order, and the third must repeat
// nothing.
func TestTerminatedUnderLoad(t *testing.T) {
	const share = 0.1
	rate, lasting := short(20_000, 25_000), short(5*time.Second, 20*time.Second)
	s, gateway, ms := newMatcherSite(t, 1)
	tr := s.begin(fmt.Sprintf("SIGTERM under load and in a backlog of %d reads", rate*int(lasting/time.Second)), plan{
		rate: rate, share: share, duration: lasting, via: "kafka",
	}, gateway, ms...)
	time.Sleep(between(dice(t), 200*time.Millisecond, time.Second))
	tr.strike()
	took := s.terminate(ms[0])
	tr.shown("under load it ended within %.2f s", took.Seconds())
	first := sum(s.committed())
	<-tr.ended
	backlog := sum(s.ends()) - first
	if sent := float64(rate) * lasting.Seconds(); float64(backlog) < sent/4 {
		t.Fatalf("a backlog of %d reads: the load ended before the matcher", backlog)
	}

	second := s.serve(ms[0].name, "matcher")
	reads := 0.0
	s.until("it works the backlog off", func() bool {
		if m, err := second.scrape(); err == nil {
			reads = max(reads, m["vigie_stream_reads_total"])
		}
		return reads > float64(backlog)/20
	})
	took = s.terminate(second)
	done, left := sum(s.committed())-first, s.lag()
	tr.shown("it ended within %.2f s with %d of %d reads committed", took.Seconds(), done, backlog)
	if left < backlog/20 || float64(done) < reads {
		t.Errorf("it committed %d of %d reads and was seen to have matched %v: want some left, and no fewer committed", done, backlog, reads)
	}

	before, end := sum(s.committed()), sum(s.ends())
	third := s.serve(ms[0].name, "matcher")
	tr.heal()
	rep := tr.finish(third)
	m, err := third.scrape()
	if err != nil {
		t.Fatal(err)
	}
	// The probe goes on meanwhile; what was left, and what came, is what the third has matched.
	matched, want := int64(m["vigie_stream_reads_total"]), sum(s.ends())-before
	tr.shown("%d reads were left at its end, the next one matched %d of %d that it had not committed", end-before, matched, want)
	if matched != want {
		t.Errorf("the third matcher matched %d reads, want %d: those that were not committed, each once", matched, want)
	}
	if rep.HitRepeats != 0 {
		t.Errorf("%d alerts were stored again", rep.HitRepeats)
	}
}

// TestControlOffsetsPassed is the negative control of all: the offsets of reads that nobody has
// processed are committed, as a matcher would that commits before it stores. The check must
// report every alert of theirs as lost.
func TestControlOffsetsPassed(t *testing.T) {
	beside(t)
	s, gateway, ms := newMatcherSite(t, 1)
	tr := s.begin("CONTROL: offsets committed past unprocessed reads", plan{rate: 1000, share: 0.1, duration: 4 * time.Second}, gateway, ms...)
	time.Sleep(time.Second)
	tr.strike()
	s.terminate(ms[0])
	<-tr.ended
	tr.probe.stop()
	var offsets []kafkago.OffsetCommit
	for i, end := range s.ends() {
		offsets = append(offsets, kafkago.OffsetCommit{Partition: i, Offset: end})
	}
	passed := s.lag()
	res, err := s.kafk.OffsetCommit(context.Background(), &kafkago.OffsetCommitRequest{
		GroupID: s.id, GenerationID: -1, Topics: map[string][]kafkago.OffsetCommit{s.readsTopic(): offsets},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range res.Topics[s.readsTopic()] {
		if p.Error != nil {
			t.Fatal(p.Error)
		}
	}
	s.serve(ms[0].name, "matcher")
	rep := tr.check(tr.ledger, time.Second, 2)
	tr.res.Reads, tr.res.Expected, tr.res.Found = rep.Reads, rep.Expected, rep.Found
	lost := rep.Count(ledger.Missing)
	tr.shown("%d reads were passed over; the check reports %d of %d alerts missing", passed, lost, rep.Expected)
	if lost != rep.Expected-rep.Found || lost < 20 {
		t.Errorf("%d alerts are reported missing of %d expected and %d found", lost, rep.Expected, rep.Found)
	}
	if kinds := slices.DeleteFunc(rep.Violations, func(v ledger.Violation) bool {
		return v.Kind == ledger.Missing || v.Kind == ledger.NotRecorded
	}); len(kinds) > 0 {
		t.Errorf("and something else: %v", kinds)
	}
}
