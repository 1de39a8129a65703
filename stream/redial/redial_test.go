package redial

import (
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"vigie/stream/streamtest"
)

// service is what is dialed: it notes when, and answers or does not.
type service struct {
	mu     sync.Mutex
	refuse bool // dials fail
	mute   bool // connections end without a byte
	dials  []time.Time
}

func (s *service) dial(context.Context, string, string) (net.Conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dials = append(s.dials, time.Now())
	if s.refuse {
		return nil, errors.New("refused")
	}
	return &line{mute: s.mute}, nil
}

func (s *service) set(refuse, mute bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refuse, s.mute = refuse, mute
}

// peak is the greatest number of dials within a second.
func (s *service) peak() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	most := streamtest.Peak(s.dials, time.Second)
	s.dials = nil
	return most
}

// line is a connection.
type line struct {
	net.Conn
	mute bool
}

func (l *line) Read(b []byte) (int, error) {
	if l.mute {
		return 0, os.ErrDeadlineExceeded
	}
	return len(b), nil
}

func (l *line) Close() error { return nil }

// storm lets many clients dial, use and close connections, again and again for a while.
func storm(d *Dialer, long time.Duration) {
	var wg sync.WaitGroup
	end := time.Now().Add(long)
	for range 50 {
		wg.Go(func() {
			for time.Now().Before(end) {
				ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
				if c, err := d.DialContext(ctx, "tcp", "redis"); err == nil {
					_, _ = c.Read(make([]byte, 1))
					_ = c.Close()
				}
				cancel()
				time.Sleep(10 * time.Millisecond)
			}
		})
	}
	wg.Wait()
}

// TestStorm: dials that lead nowhere are few, whether they fail or their connections end
// without a word, and those that lead somewhere are not held up.
func TestStorm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(service)
		d := New(s.dial)
		for _, bad := range []struct{ refuse, mute bool }{{true, false}, {false, true}} {
			s.set(false, false)
			storm(d, time.Second)
			if n := s.peak(); n < 1000 {
				t.Errorf("%d dials a second of a service that works", n)
			}
			s.set(bad.refuse, bad.mute)
			storm(d, 50*time.Millisecond) // what is under way when it stops working
			s.peak()
			storm(d, 10*time.Second)
			if n := s.peak(); n < 2 || n > 10 {
				t.Errorf("%+v: %d dials within a second, want some and at most 10", bad, n)
			}
		}
	})
}

// TestBack: the first connection that answers ends the waiting for all.
func TestBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(service)
		s.set(true, false)
		d := New(s.dial)
		storm(d, 5*time.Second)
		s.set(false, false)
		s.peak()
		began := time.Now()
		storm(d, time.Second)
		if n := s.peak(); n < 1000 {
			t.Errorf("%d dials in %v after it is back", n, time.Since(began))
		}
	})
}

// TestOldConnection: one from before, which still works, does not hide that no other does.
func TestOldConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(service)
		d := New(s.dial)
		old, err := d.DialContext(t.Context(), "tcp", "redis")
		if err != nil {
			t.Fatal(err)
		}
		s.set(true, false)
		storm(d, 50*time.Millisecond)
		s.peak()
		stop := make(chan struct{})
		go func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(time.Millisecond):
					_, _ = old.Read(make([]byte, 1))
				}
			}
		}()
		storm(d, 5*time.Second)
		close(stop)
		if n := s.peak(); n > 10 {
			t.Errorf("%d dials within a second", n)
		}
	})
}

// TestGivingUp: a dial that waits for its turn ends with its context, and takes no turn.
func TestGivingUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(service)
		s.set(true, false)
		d := New(s.dial)
		for range 2 * burst {
			_, _ = d.DialContext(t.Context(), "tcp", "redis")
		}
		ctx, cancel := context.WithTimeout(t.Context(), pace/10)
		defer cancel()
		began := time.Now()
		if _, err := d.DialContext(ctx, "tcp", "redis"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("it ended with %v", err)
		}
		if took := time.Since(began); took != pace/10 {
			t.Errorf("it took %v", took)
		}
	})
}

func TestSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(service)
		s.set(false, true)
		d := New(s.dial)
		use := func() {
			c, err := d.DialContext(t.Context(), "tcp", "a")
			if err != nil {
				t.Fatal(err)
			}
			_, _ = c.Read(make([]byte, 1))
			_ = c.Close()
		}
		if d.Silent("a", time.Minute) {
			t.Error("silent before it was asked")
		}
		use()
		if !d.Silent("a", time.Minute) || d.Silent("b", time.Minute) {
			t.Error("it has let somebody wait, and another has not")
		}
		time.Sleep(2 * time.Minute)
		if d.Silent("a", time.Minute) {
			t.Error("that was long ago")
		}
		use()
		s.set(false, false)
		use()
		if d.Silent("a", time.Minute) {
			t.Error("it has answered since")
		}
	})
}
