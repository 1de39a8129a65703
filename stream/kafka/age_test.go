package kafka

import (
	"context"
	"testing"
	"time"

	"vigie/stream"
	"vigie/stream/streamtest"
)

// A replica of an idle control log stays young, because every answer of the broker counts. One
// that is cut off grows old, whether its connections fail or hang, and is young again
// once the brokers are back.
func TestReplicaAge(t *testing.T) {
	each(t, func(t *testing.T, b backend) {
		c := open(t, b, Config{})
		topics(t, c, TopicsConfig{})
		far, way := through(t, b, Config{Prefix: c.prefix, Timeout: 2 * time.Second})
		log := far.ControlLog()
		r := stream.NewReplica(nil)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- r.Follow(ctx, log) }()
		t.Cleanup(func() {
			cancel()
			if err := <-ended; err != nil {
				t.Errorf("Follow: %v", err)
			}
		})
		const old = 1500 * time.Millisecond // an answer comes within 250 ms
		streamtest.Eventually(t, patience, "the replica", func() bool { return r.CaughtUp() && r.Age() < old })
		var oldest time.Duration
		for began := time.Now(); time.Since(began) < 2*time.Second; time.Sleep(5 * time.Millisecond) {
			oldest = max(oldest, r.Age())
		}
		if oldest > old {
			t.Errorf("an idle replica is %v old", oldest)
		}
		for _, o := range []outage{down, hung} {
			o.begin(way)
			time.Sleep(old + 500*time.Millisecond)
			if age := r.Age(); age < old {
				t.Errorf("brokers %s for %v: its age is %v", o.name, old+500*time.Millisecond, age)
			}
			way.Heal()
			streamtest.Eventually(t, patience, "news after the cut", func() bool { return r.Age() < 500*time.Millisecond })
		}
	})
}
