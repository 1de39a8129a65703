package redisqueue

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"vigie/stream/alert"
	"vigie/stream/streamtest"
)

// dialsWhileDown is the greatest number of dials within a second that publishers make while
// Redis resets and refuses connections for a while. Afterwards they must be served soon.
func dialsWhileDown(t *testing.T, b backend, change func(*Config)) int {
	way := streamtest.NewProxy(t, b.addr)
	q := open(t, b, func(c *Config) { c.Addr = way.Addr() }, change)
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for worker := range 12 {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := q.Publish(ctx, []*alert.Alert{makeAlert(fmt.Sprint(worker, "-", i), "q1")}); err != nil {
					time.Sleep(10 * time.Millisecond) // as Processor.retry begins
				}
			}
		})
	}
	defer func() { close(stop); wg.Wait() }()
	streamtest.Eventually(t, patience, "alerts", func() bool { return q.Stats().Stored > 100 })
	before := len(way.Dials())
	way.Down()
	time.Sleep(3 * time.Second)
	peak := streamtest.Peak(way.Dials()[before:], time.Second)
	way.Heal()
	stored := q.Stats().Stored
	healed := time.Now()
	streamtest.Eventually(t, patience, "alerts again", func() bool { return q.Stats().Stored > stored+100 })
	if took := time.Since(healed); took > 3*time.Second {
		t.Errorf("alerts again after %v", took)
	}
	return peak
}

// TestReconnectsSlowly: a Redis that comes back is not met by a storm.
func TestReconnectsSlowly(t *testing.T) {
	eachRedis(t, func(t *testing.T, b backend) {
		if n := dialsWhileDown(t, b, func(*Config) {}); n < 1 || n > 10 {
			t.Errorf("%d dials within a second, want some and at most 10", n)
		}
		// The negative control.
		if n := dialsWhileDown(t, b, func(c *Config) { c.dial = connect.DialContext }); n <= 10 {
			t.Errorf("%d dials without the limit: the test sees no storm", n)
		}
	})
}
