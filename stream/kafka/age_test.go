package kafka

import (
	"context"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

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

// TestThrottledIsNoAnswer: a broker whose quota is used up answers a fetch with nothing but a
// time to wait, which says nothing of the log.
func TestThrottledIsNoAnswer(t *testing.T) {
	k, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	c := open(t, backend{name: "kfake", addr: k.ListenAddrs()[0]}, Config{})
	topics(t, c, TopicsConfig{})
	log := c.ControlLog()
	r := stream.NewReplica(nil)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.Follow(ctx, log) }()
	if err := r.WaitCaughtUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	k.ControlKey(int16(kmsg.Fetch), func(req kmsg.Request) (kmsg.Response, error, bool) {
		k.KeepControl()
		res := req.ResponseKind().(*kmsg.FetchResponse)
		res.ThrottleMillis = 200
		return res, nil, true
	})
	streamtest.Eventually(t, patience, "lists that nobody speaks of to grow old", func() bool { return r.Age() > 1500*time.Millisecond })
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
