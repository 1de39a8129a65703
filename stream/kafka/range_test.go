package kafka

import (
	"fmt"
	"testing"
	"time"

	"vigie/stream/alert"
	"vigie/stream/streamtest"
)

// ReadRange gives what came between two times, and nothing of outside.
func TestReadRange(t *testing.T) {
	each(t, func(t *testing.T, b backend) {
		c := open(t, b, Config{})
		topics(t, c, TopicsConfig{})
		j := c.Journal()
		var marks []time.Time
		for round := range 3 {
			marks = append(marks, time.Now())
			time.Sleep(10 * time.Millisecond) // the times of the records are in whole milliseconds
			var events []*alert.Event
			for i := range 10 {
				a := streamtest.NewAlert(fmt.Sprintf("a-%d-%d", round, i), "q1", 3)
				events = append(events, alert.Hit(a))
			}
			if err := j.Append(t.Context(), events); err != nil {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Millisecond)
		}
		for _, tc := range []struct {
			name     string
			from, to time.Time
			want     string
		}{
			{"all", time.Time{}, time.Time{}, "[10 10 10]"},
			{"from", marks[1], time.Time{}, "[0 10 10]"},
			{"to", time.Time{}, marks[1], "[10 0 0]"},
			{"both", marks[1], marks[2], "[0 10 0]"},
			{"later", time.Now().Add(time.Hour), time.Time{}, "[0 0 0]"},
			{"earlier", time.Time{}, marks[0].Add(-time.Hour), "[0 0 0]"},
		} {
			var got [3]int
			err := j.ReadRange(t.Context(), tc.from, tc.to, func(events []*alert.Event) error {
				for _, e := range events {
					var round, i int
					fmt.Sscanf(e.AlertID, "a-%d-%d", &round, &i)
					got[round]++
				}
				return nil
			})
			if err != nil || fmt.Sprint(got) != tc.want {
				t.Errorf("%s: %v, %v; want %s", tc.name, got, err, tc.want)
			}
		}
	})
}
