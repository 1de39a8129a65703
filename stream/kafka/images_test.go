package kafka

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"vigie/sensors"
	"vigie/stream/streamtest"
)

// TestImages checks that what Put returns is where the picture is, also when many are put at once.
func TestImages(t *testing.T) {
	each(t, func(t *testing.T, b backend) {
		const callers, perCaller = 40, 3
		c := open(t, b, Config{})
		topics(t, c, TopicsConfig{ReadsPartitions: 4})
		w := c.Images()
		picture := func(i int) []byte { return bytes.Repeat([]byte{byte(i), byte(i >> 8)}, 5000+i) }
		var mu sync.Mutex
		where := make(map[sensors.Image]int)
		var wg sync.WaitGroup
		for i := range callers {
			wg.Go(func() {
				for j := range perCaller {
					n := i*perCaller + j
					at, err := w.Put(t.Context(), fmt.Sprint("read-", n), picture(n))
					if err != nil {
						t.Errorf("Put: %v", err)
						return
					}
					mu.Lock()
					where[at] = n
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		if len(where) != callers*perCaller {
			t.Errorf("%d places, want %d", len(where), callers*perCaller)
		}
		for _, r := range readTopic(t, c, topicImages) {
			n, ok := where[sensors.Image{Partition: r.Partition, Offset: r.Offset}]
			if !ok || string(r.Key) != fmt.Sprint("read-", n) || !bytes.Equal(r.Value, picture(n)) {
				t.Errorf("%d/%d holds %s, which was told another place", r.Partition, r.Offset, r.Key)
			}
			delete(where, sensors.Image{Partition: r.Partition, Offset: r.Offset})
		}
		if len(where) > 0 {
			t.Errorf("%d pictures are not there", len(where))
		}

		if _, err := w.Put(t.Context(), "r", make([]byte, MaxImageBytes)); err != nil {
			t.Errorf("the largest: %v", err)
		}
		if _, err := w.Put(t.Context(), "r", make([]byte, MaxImageBytes+1)); !errors.Is(err, ErrTooLarge) {
			t.Errorf("one above the largest: %v, want ErrTooLarge", err)
		}
	})
}

// TestImagesDoNotWait checks that a picture gives up when its context ends while brokers are away,
// and when all slots are taken.
func TestImagesDoNotWait(t *testing.T) {
	t.Parallel()
	b := fake(t)
	c, p := through(t, b, Config{})
	topics(t, c, TopicsConfig{})
	w := c.Images()
	if _, err := w.Put(t.Context(), "r", []byte("x")); err != nil {
		t.Fatal(err)
	}
	brief := func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		start := time.Now()
		_, err := w.Put(ctx, "r", []byte("x"))
		if took := time.Since(start); took > 3*time.Second {
			t.Errorf("it took %v", took)
		}
		return err
	}
	p.Hold(streamtest.ToTarget)
	if err := brief(); err == nil {
		t.Error("put while the broker was away")
	}
	p.Release(streamtest.ToTarget)
	for range imagesAtOnce {
		w.slots <- struct{}{}
	}
	if err := brief(); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("without a slot: %v", err)
	}
	for range imagesAtOnce {
		<-w.slots
	}
	if _, err := w.Put(t.Context(), "r", []byte("x")); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}
