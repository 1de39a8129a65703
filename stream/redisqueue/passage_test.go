package redisqueue

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"

	"pgregory.net/rapid"

	"vigie/stream"
	"vigie/stream/alert"
	"vigie/stream/streamtest"
)

// passageAlert is an alert of passage p1 by one of its reads.
func passageAlert(id, text string, revision uint32) *alert.Alert {
	a := makeAlert(id, "q1")
	a.Read.Passage, a.Read.Revision, a.Read.Plate, a.Match.Read = "p1", revision, text, text
	return a
}

func reread(text string, revision uint32, hits ...*alert.Alert) stream.Revision {
	r := passageAlert("", text, revision).Read
	return stream.Revision{Read: r, Alerts: hits, At: time.Now()}
}

func revise(t testing.TB, q *Queues, reads ...stream.Revision) []*alert.Event {
	t.Helper()
	events, err := q.Revise(ctx, reads)
	if err != nil {
		t.Fatal(err)
	}
	return events
}

// TestReviseTellsTheQueue: what a later read changes is in the queue once, with the alert as
// it then is, also when the first call died before it told.
func TestReviseTellsTheQueue(t *testing.T) {
	eachRedis(t, func(t *testing.T, b backend) {
		q := open(t, b)
		publish(t, q, passageAlert("a", "CA777RY", 0))
		var events []*alert.Event
		events = append(events, revise(t, q, reread("CA778RY", 1))...)
		again := passageAlert("a", "CA777RY", 2)
		// The read of revision 2 dies between the state and the queue.
		c, err := q.reviseCall("a", &stream.Revision{Read: again.Read, At: time.Now()}, again)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := q.run(ctx, []call{c}); err != nil {
			t.Fatal(err)
		}
		if got := list(inQueue(t, q, "q1")); got != "alert:a update:a" {
			t.Fatalf("queue holds %s", got)
		}
		for range 2 {
			if got := publish(t, q, again); got != "duplicate" {
				t.Fatalf("published again: %s", got)
			}
			last := revise(t, q, reread("CA777RY", 2, again))
			if len(last) != 1 || last[0].Amended == nil || !reflect.DeepEqual(last[0].Amended, again) {
				t.Fatalf("events %v", last)
			}
			events = append(events[:1], last...)
		}
		messages := inQueue(t, q, "q1")
		if got := list(messages); got != "alert:a update:a update:a" {
			t.Fatalf("queue holds %s", got)
		}
		for i, m := range messages[1:] {
			if want, _ := json.Marshal(events[i]); string(m.Data) != string(want) || m.List != "stolen" || m.Entry != "entry-a" {
				t.Errorf("message %+v %s, want %s", m, m.Data, want)
			}
		}
		a, standing, err := q.Get(ctx, "a", []string{"q1"})
		if err != nil || standing.State != alert.StateNew || standing.Owner != "" || len(standing.Events) != 2 || !reflect.DeepEqual(a, again) {
			t.Errorf("alert %v stands %+v, %v", a, standing, err)
		}
		// The step of the one that died is nobody's.
		if s := q.Stats(); s.Corrected != 1 || s.Raised != 0 || s.Amended != 0 {
			t.Errorf("stats %+v", s)
		}
	})
}

// TestWithdrawnIsNotTaken: nobody takes what the camera has taken back.
func TestWithdrawnIsNotTaken(t *testing.T) {
	eachRedis(t, func(t *testing.T, b backend) {
		q := open(t, b)
		publish(t, q, passageAlert("a", "CA777RY", 0))
		revise(t, q, reread("CA778RY", 1))
		var conflict *ConflictError
		_, err := q.Step(ctx, StepRequest{AlertID: "a", Verb: alert.VerbTake, Actor: "bri-12", Queues: []string{"q1"}})
		if !errors.As(err, &conflict) || conflict.State != alert.StateWithdrawn {
			t.Errorf("taken: %v", err)
		}
	})
}

// TestPassageIsForgotten: the key of a passage lives for an hour and holds no plate.
func TestPassageIsForgotten(t *testing.T) {
	eachRedis(t, func(t *testing.T, b backend) {
		q := open(t, b)
		a := passageAlert("a", "CA777RY", 0)
		publish(t, q, a, makeAlert("alone", "q1"))
		key := q.keys.passage(&a.Read)
		ttl, err := q.rdb.PTTL(ctx, key).Result()
		if err != nil || ttl <= passageTTL-time.Minute || ttl > passageTTL {
			t.Errorf("kept for %v, %v", ttl, err)
		}
		if got := q.rdb.Get(ctx, key).Val(); got != "a " {
			t.Errorf("the passage holds %q", got)
		}
		n := 0
		for _, name := range keyNames(t, q) {
			if len(name) > len(q.cfg.Prefix)+3 && name[len(q.cfg.Prefix):len(q.cfg.Prefix)+3] == "{p:" {
				n++
			}
		}
		if n != 1 {
			t.Errorf("%d keys of passages, want 1: a read without passage needs none", n)
		}
	})
}

// TestRestoreOfRevisions loses everything and puts it back from the events: the alerts stand as
// before, the passage is known, and a repeated read makes nothing new.
func TestRestoreOfRevisions(t *testing.T) {
	eachRedis(t, func(t *testing.T, b backend) {
		q, empty := open(t, b), open(t, b)
		first, second := passageAlert("a", "CA777RY", 0), passageAlert("b", "CA778RY", 1)
		third := passageAlert("a", "CA777RY", 2)
		third.Read.Conf = 0.5
		publish(t, q, first, second)
		events := []*alert.Event{alert.Hit(first), alert.Hit(second)}
		reads := []stream.Revision{reread("CA778RY", 1, second), reread("CA777RY", 2, third)}
		events = append(events, revise(t, q, reads...)...)
		if len(events) != 5 {
			t.Fatalf("%d events, want 5", len(events))
		}
		for range 2 {
			if err := empty.Restore(ctx, append(events, events[2:]...)); err != nil {
				t.Fatal(err)
			}
		}
		if got, want := list(inQueue(t, empty, "q1")), list(inQueue(t, q, "q1")); got != want {
			t.Errorf("queue holds %s, want %s", got, want)
		}
		for _, id := range []string{"a", "b"} {
			a, s, err := q.Get(ctx, id, []string{"q1"})
			a2, s2, err2 := empty.Get(ctx, id, []string{"q1"})
			if err != nil || err2 != nil || !reflect.DeepEqual(a, a2) || !reflect.DeepEqual(s, s2) {
				t.Errorf("%s: %v %+v, %v\nwant %v %+v, %v", id, a2, s2, err2, a, s, err)
			}
		}
		if got := revise(t, empty, reads...); fmt.Sprint(got) != fmt.Sprint(events[2:]) {
			t.Errorf("the reads again: %v, want %v", got, events[2:])
		}
		if got := revise(t, empty, reread("CA779RY", 3)); len(got) != 1 || got[0].AlertID != "a" || got[0].State != alert.StateWithdrawn {
			t.Errorf("a later read: %v", got)
		}
	})
}

// TestRevisionsProperty reads a passage as a camera may, crashes and repeats anywhere, and
// takes the alerts at any time: at the end those alerts stand that the last read hits.
func TestRevisionsProperty(t *testing.T) {
	eachRedis(t, func(t *testing.T, b backend) {
		q := open(t, b)
		run := 0
		rapid.Check(t, func(rt *rapid.T) {
			run++
			passage := fmt.Sprint("p", run)
			texts := rapid.SliceOfN(rapid.SampledFrom([]string{"CA777RY", "CA778RY", "ZZ999ZZ"}), 2, 6).Draw(rt, "texts")
			id := func(text string) string { return fmt.Sprint(text, "-", run) }
			make := func(i int) *alert.Alert {
				if texts[i] == "ZZ999ZZ" { // on no list
					return nil
				}
				a := passageAlert(id(texts[i]), texts[i], uint32(i))
				a.Read.Passage = passage
				return a
			}
			taken := map[string]bool{}
			for next := 0; next < len(texts); {
				// A batch that begins anywhere before what is done: the offsets were not committed.
				from := rapid.IntRange(0, next).Draw(rt, "from")
				to := rapid.IntRange(next+1, len(texts)).Draw(rt, "to")
				var alerts []*alert.Alert
				var reads []stream.Revision
				for i := from; i < to; i++ {
					var hits []*alert.Alert
					if a := make(i); a != nil {
						hits = append(hits, a)
					}
					alerts = append(alerts, hits...)
					if i > 0 {
						r := reread(texts[i], uint32(i), hits...)
						r.Read.Passage = passage
						reads = append(reads, r)
					}
				}
				if _, err := q.Publish(ctx, alerts); err != nil {
					rt.Fatal(err)
				}
				if rapid.Bool().Draw(rt, "dies") {
					// Any part of the reads gets through, and all come again.
					n := rapid.IntRange(0, len(reads)).Draw(rt, "part")
					if _, err := q.Revise(ctx, reads[:n]); err != nil {
						rt.Fatal(err)
					}
					continue
				}
				if _, err := q.Revise(ctx, reads); err != nil {
					rt.Fatal(err)
				}
				next = to
				if text := rapid.SampledFrom(texts).Draw(rt, "taken"); rapid.IntRange(0, 3).Draw(rt, "takes") == 0 {
					_, err := q.Step(ctx, StepRequest{AlertID: id(text), Verb: alert.VerbTake, Actor: "bri-12", Queues: []string{"q1"}})
					taken[text] = taken[text] || err == nil
				}
			}
			last := texts[len(texts)-1]
			for _, text := range []string{"CA777RY", "CA778RY"} {
				_, s, err := q.Get(ctx, id(text), []string{"q1"})
				if errors.Is(err, ErrUnknownAlert) && text != last {
					continue // never read
				}
				want := alert.StateWithdrawn
				switch {
				case taken[text]:
					want = alert.StateTaken
				case text == last:
					want = alert.StateNew
				}
				if err != nil || s.State != want {
					rt.Errorf("%v: %s is %v, %v; want %v", texts, text, s.State, err, want)
				}
				for i, e := range s.Events {
					if e.Step != uint32(i+2) {
						rt.Errorf("%v: step %d is the one after the hit number %d", texts, e.Step, i)
					}
				}
			}
		})
	})
}

func BenchmarkRevise(b *testing.B) {
	for _, n := range []int{1, 400} {
		b.Run(fmt.Sprintf("reads=%d/no_alert", n), func(b *testing.B) {
			q := open(b, backend{addr: streamtest.Need(b, "VIGIE_TEST_REDIS"), real: true})
			reads := make([]stream.Revision, n)
			for i := range reads {
				reads[i] = reread("CA777RY", 1)
				reads[i].Read.Passage = fmt.Sprint("p", i)
			}
			for b.Loop() {
				revise(b, q, reads...)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/read")
		})
	}
}
