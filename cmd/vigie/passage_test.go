package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"testing"

	"go.uber.org/zap"

	"vigie/sensors"
	"vigie/stream/alert"
	"vigie/stream/kafka"
)

// heard are the events of a patrol's stream, as words.
type heard struct {
	mu    sync.Mutex
	words []string
}

func (h *heard) String() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return fmt.Sprint(h.words)
}

// listen follows the site's queue: each event becomes its kind, the plate or the reason that it
// tells, and the state.
func (s *site) listen(p *process) *heard {
	s.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	req, err := http.NewRequestWithContext(ctx, "GET", p.url+"/v1/alerts/stream?queue="+s.queue, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+patrolToken)
	req.Header.Set("Last-Event-ID", "0")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	h := new(heard)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = readEvents(resp.Body, func(_, kind, data string) error { // it ends when the test does
			var e struct {
				Match   struct{ Read string }
				Amended struct{ Match struct{ Read string } }

				State, Outcome, Reason string
			}
			if err := json.Unmarshal([]byte(data), &e); err != nil {
				s.t.Errorf("%s: %v", kind, err)
			}
			if kind == "hello" {
				return nil
			}
			word := kind
			for _, part := range []string{e.Match.Read, e.Amended.Match.Read, e.State, e.Outcome, e.Reason} {
				if part != "" {
					word += " " + part
				}
			}
			h.mu.Lock()
			h.words = append(h.words, word)
			h.mu.Unlock()
			return nil
		})
	}()
	s.t.Cleanup(func() { cancel(); <-ended; resp.Body.Close() })
	return h
}

// TestPassageChanges posts a passage as an axis camera sends it, with a plate that changes, to
// // the gateway as JSON, and kills the matcher after the first read: the alert of the first text is
// taken back by the second, which has one of its own, and comes back with the third. Once it is
// taken a fourth text is told and changes nothing else.
func TestPassageChanges(t *testing.T) {
	s := newSite(t)
	office := s.serve("gateway,operator,patrol")
	s.list(office, "exact")
	first := s.entry(office, "AB-123-CD")
	s.entry(office, "AB-128-CD")
	got := s.listen(office)
	read := func(revision uint32, plate string) sensors.Read {
		r := readOf(fmt.Sprint("r", revision), plate)
		r.Passage, r.Revision = "car-77", revision
		return r
	}
	want := "["
	expect := func(words string) {
		t.Helper()
		if want != "[" {
			want += " "
		}
		want += words
		s.until("the patrol hears "+words, func() bool { return len(got.String()) >= len(want)+1 })
		if g := got.String(); g != want+"]" {
			t.Fatalf("the patrol hears %s\nwant %s]", g, want)
		}
	}
	matcher := s.serve("matcher")
	r0 := read(0, "AB-123-CD")
	s.post(office, r0)
	expect("alert AB123CD")
	matcher.kill()
	s.serve("matcher")
	s.post(office, read(1, "AB-128-CD"))
	expect("alert AB128CD withdrawn the camera now reads another plate")
	s.post(office, read(2, "ab 123 cd"))
	expect("amended AB123CD new read_again withdrawn the camera now reads another plate")

	id := alert.ID(&r0, first)
	s.must(http.StatusOK, "POST", office.url+"/v1/alerts/"+id+"/take", patrolToken, jsonType, nil)
	expect("update taken")
	s.post(office, read(3, "ZZ-999-ZZ"))
	expect("update taken other_plate")

	var view struct {
		Alert    alert.Alert
		Standing alert.Standing
	}
	if err := json.Unmarshal(s.must(http.StatusOK, "GET", office.url+"/v1/alerts/"+id, patrolToken, "", nil), &view); err != nil {
		t.Fatal(err)
	}
	if view.Alert.Read.ID != "r2" || view.Alert.Read.Revision != 2 || view.Standing.State != alert.StateTaken ||
		view.Standing.Owner != "bri-12" || len(view.Standing.Events) != 4 {
		t.Errorf("alert of read %s revision %d, standing %+v", view.Alert.Read.ID, view.Alert.Read.Revision, view.Standing)
	}

	// The hits topic tells the same.
	cluster, err := kafka.Open(kafka.Config{Brokers: []string{s.kafka}, Prefix: s.prefix, Log: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	defer cluster.Close()
	wanted := []string{"1 new ", "2 withdrawn other_plate", "3 new read_again", "4 taken ", "5 taken other_plate"}
	s.until("the hits topic has every step", func() bool {
		steps := map[uint32]string{}
		err := cluster.Journal().ReadAll(t.Context(), func(events []*alert.Event) error {
			for _, e := range events {
				if e.AlertID == id {
					steps[e.Step] = fmt.Sprintf("%d %s %s", e.Step, e.State, e.Outcome)
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		for i, w := range wanted {
			if steps[uint32(i+1)] != w {
				return false
			}
		}
		return len(steps) == len(wanted)
	})
}
