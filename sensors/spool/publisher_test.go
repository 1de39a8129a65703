package spool

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"vigie/sensors"
)

// errAway is what the broker of the tests answers when it is down.
var errAway = errors.New("nothing listens there")

// errTooLarge is what it answers to a read that it will never take.
var errTooLarge = errors.New("too large")

// broker is a Kafka for tests.
type broker struct {
	mu      sync.Mutex
	down    bool
	hung    bool          // stores or not, and does not answer
	delay   time.Duration // of an answer
	turn    chan struct{} // when not nil, serves one publish after the other
	each    time.Duration // and takes as long for a read
	log     []sensors.Read
	reject  string // id of a read that is too large
	rng     *rand.Rand
	waiting int  // publishes that have met a hung broker
	loses   bool // acknowledges one publish in fifty without storing it
}

func newBroker() *broker { return &broker{rng: rand.New(rand.NewPCG(1, 2))} }

func (b *broker) set(change func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	change()
}

func (b *broker) Publish(ctx context.Context, reads []sensors.Read) error {
	b.mu.Lock()
	down, hung, delay := b.down, b.hung, b.delay
	if hung {
		b.waiting++
		if b.rng.IntN(2) == 0 {
			b.store(reads)
		}
	}
	b.mu.Unlock()
	if hung {
		<-ctx.Done()
		return ctx.Err()
	}
	if b.turn != nil {
		select {
		case b.turn <- struct{}{}:
			defer func() { <-b.turn }()
		case <-ctx.Done():
			return ctx.Err()
		}
		delay = b.each * time.Duration(len(reads))
	}
	if delay > 0 {
		pause(ctx, delay, nil)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if down {
		return errAway
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := range reads {
		if b.reject != "" && reads[i].ID == b.reject {
			return errTooLarge
		}
	}
	b.store(reads)
	return nil
}

func (b *broker) store(reads []sensors.Read) {
	if b.loses && b.rng.IntN(50) == 0 {
		return
	}
	for i := range reads {
		b.log = append(b.log, reads[i].Clone())
	}
}

// firsts are the ids of the log in order, without repeats.
func (b *broker) firsts() (ids []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	seen := map[string]bool{}
	for i := range b.log {
		if id := b.log[i].ID; !seen[id] {
			seen[id] = true
			ids = append(ids, id)
		}
	}
	return ids
}

// site is a publisher on a broker and a spool in memory, with Run running.
type site struct {
	broker *broker
	disk   *memDisk
	spool  *Spool
	pub    *Publisher
	stop   func()
}

func newSite(t *testing.T, cfg Config, pcfg PublisherConfig) *site {
	t.Helper()
	s := &site{broker: newBroker(), disk: newMemDisk()}
	s.spool = open(t, s.disk.config(cfg))
	pcfg.Direct, pcfg.Spool = s.broker, s.spool
	var err error
	if s.pub, err = NewPublisher(pcfg); err != nil {
		t.Fatal(err)
	}
	s.stop = func() {}
	return s
}

func (s *site) run(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.pub.Run(ctx) }()
	s.stop = func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
		s.stop = func() {}
	}
}

// wait waits until the spool is empty and the circuit closed.
func (s *site) wait(t *testing.T, within time.Duration) time.Duration {
	t.Helper()
	began := time.Now()
	for s.spool.Stats().Depth > 0 || s.pub.Stats().Open {
		if time.Since(began) > within {
			t.Fatalf("not drained within %v: %+v, %+v", within, s.spool.Stats(), s.pub.Stats())
		}
		time.Sleep(10 * time.Millisecond)
	}
	return time.Since(began)
}

// fleet is sensors that each send one request after the other, again when it fails, and what
// they were told.
type fleet struct {
	mu      sync.Mutex
	acked   []string
	spooled map[string][]string // by sensor, acknowledged while the broker was down all the time
	slowest time.Duration
}

// send lets n sensors send perSecond reads each for a time. Three reads in a row are a passage,
// each in a request of its own.
func (f *fleet) send(ctx context.Context, s *site, n, perSecond int, passages bool) {
	var wg sync.WaitGroup
	for k := range n {
		wg.Go(func() {
			sensor := fmt.Sprintf("s%02d", k)
			for i := 0; ctx.Err() == nil; i++ {
				r := sensors.Read{
					ID: fmt.Sprintf("%s-%07d", sensor, i), Sensor: sensor, Plate: "AB123CD",
					TS: time.Now().UnixMilli(), Received: time.Now().UnixMilli(),
				}
				if passages {
					r.Passage, r.Revision = fmt.Sprintf("%s/%d", sensor, i/3), uint32(i%3)
				}
				s.broker.mu.Lock()
				down := s.broker.down
				s.broker.mu.Unlock()
				for {
					began := time.Now()
					err := s.pub.Publish(context.Background(), []sensors.Read{r})
					took := time.Since(began)
					f.mu.Lock()
					f.slowest = max(f.slowest, took)
					if err == nil {
						f.acked = append(f.acked, r.ID)
						s.broker.mu.Lock()
						if down && s.broker.down {
							f.spooled[sensor] = append(f.spooled[sensor], r.ID)
						}
						s.broker.mu.Unlock()
					}
					f.mu.Unlock()
					if err == nil {
						break
					}
					time.Sleep(100 * time.Millisecond)
				}
				pause(ctx, time.Second/time.Duration(perSecond), nil)
			}
		})
	}
	wg.Wait()
}

// check holds the log of the broker to what the fleet was told. It returns how many
// acknowledged reads are missing, and how many came after a later one of their passage, or, when
// both were spooled, of their sensor.
func (f *fleet) check(s *site) (missing, disorder int) {
	firsts := s.broker.firsts()
	place := make(map[string]int, len(firsts))
	for i, id := range firsts {
		place[id] = i
	}
	for _, id := range f.acked {
		if _, ok := place[id]; !ok {
			missing++
		}
	}
	for _, ids := range f.spooled {
		for i := range ids[1:] {
			if place[ids[i+1]] < place[ids[i]] {
				disorder++
			}
		}
	}
	last := map[string]string{}
	for _, id := range firsts {
		sensor, n, _ := strings.Cut(id, "-")
		i, _ := strconv.Atoi(n)
		p := fmt.Sprint(sensor, "/", i/3)
		if last[p] > id {
			disorder++
		}
		last[p] = id
	}
	return missing, disorder
}

// TestKafkaAway: Kafka hangs, is down for five minutes, and comes back. Nothing that was
// acknowledged is lost, a request never waits longer than Patience, spooled reads
// keep the order of their sensor and passages keep theirs.
func TestKafkaAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, Config{}, PublisherConfig{})
		s.run(t)
		f := &fleet{spooled: map[string][]string{}}
		ctx, cancel := context.WithCancel(t.Context())
		sent := make(chan struct{})
		go func() { f.send(ctx, s, 20, 10, true); close(sent) }()
		time.Sleep(5 * time.Second)
		if st := s.pub.Stats(); st.Open || st.Spooled > 0 || st.Direct < 900 {
			t.Errorf("before: %+v", st)
		}
		s.broker.set(func() { s.broker.hung = true })
		time.Sleep(10 * time.Second)
		s.broker.set(func() { s.broker.down, s.broker.hung = true, false })
		time.Sleep(5 * time.Minute)
		if st := s.spool.Stats(); st.Depth < 50_000 || st.OldestAge < 5*time.Minute {
			t.Errorf("down: %+v", st)
		}
		s.broker.set(func() { s.broker.down = false })
		s.wait(t, 10*time.Second)
		before := s.pub.Stats().Direct
		time.Sleep(5 * time.Second)
		if st := s.pub.Stats(); st.Direct-before < 900 {
			t.Errorf("after: %+v", st)
		}
		cancel()
		<-sent
		s.wait(t, 10*time.Second)
		s.stop()
		if f.slowest > 900*time.Millisecond {
			t.Errorf("a request took %v, want at most Patience", f.slowest)
		}
		if missing, disorder := f.check(s); missing > 0 || disorder > 0 {
			t.Errorf("%d of %d acknowledged reads are missing, %d came after a later one", missing, len(f.acked), disorder)
		}
		spooled := 0
		for _, ids := range f.spooled {
			spooled += len(ids)
		}
		if spooled < 50_000 {
			t.Errorf("%d reads were spooled", spooled)
		}
		s.spool.Close()
	})
}

// flapping lets a broker come and go for minutes.
func flapping(t *testing.T, passages, loses bool) (missing, disorder int) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, Config{SegmentBytes: 20_000}, PublisherConfig{BatchReads: 500})
		s.broker.delay, s.broker.loses = 5*time.Millisecond, loses
		s.run(t)
		f := &fleet{spooled: map[string][]string{}}
		ctx, cancel := context.WithCancel(t.Context())
		sent := make(chan struct{})
		go func() { f.send(ctx, s, 20, 50, passages); close(sent) }()
		rng := rand.New(rand.NewPCG(3, 4))
		for range 60 {
			s.broker.set(func() {
				s.broker.down, s.broker.hung, s.broker.delay = false, false, 5*time.Millisecond
				switch rng.IntN(5) {
				case 0:
					s.broker.down = true
				case 1:
					s.broker.hung = true
				case 2:
					s.broker.delay = 1500 * time.Millisecond // slower than Patience
				}
			})
			time.Sleep(time.Duration(100+rng.IntN(4000)) * time.Millisecond)
		}
		s.broker.set(func() { s.broker.down, s.broker.hung, s.broker.delay = false, false, 5*time.Millisecond })
		cancel()
		<-sent
		s.wait(t, time.Minute)
		s.stop()
		if st := s.pub.Stats(); st.Trips < 5 {
			t.Errorf("stats %+v", st)
		}
		if f.slowest > 900*time.Millisecond {
			t.Errorf("a request took %v, want at most Patience", f.slowest)
		}
		missing, disorder = f.check(s)
		s.spool.Close()
	})
	return missing, disorder
}

// TestFlapping: Kafka comes and goes, hangs, and is slow.
func TestFlapping(t *testing.T) {
	if missing, disorder := flapping(t, true, false); missing > 0 || disorder > 0 {
		t.Errorf("%d acknowledged reads are missing, %d came after a later one of their passage", missing, disorder)
	}
}

// TestFlappingUnguarded sees reads overtaken that do not tell their passage, and lost by a
// broker that loses them.
func TestFlappingUnguarded(t *testing.T) {
	if missing, disorder := flapping(t, false, true); missing == 0 || disorder == 0 {
		t.Errorf("%d reads are missing and %d overtaken, want some of both", missing, disorder)
	}
}

// TestDrainYields drains into a Kafka that serves one request after the other, at 150,000 reads
// per second: live reads do not wait for more than a batch, and draining is fast all the same.
func TestDrainYields(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const backlog = 60_000
		s := newSite(t, Config{}, PublisherConfig{LiveTarget: 10 * time.Millisecond})
		s.broker.turn, s.broker.each = make(chan struct{}, 1), time.Second/150_000
		for i := 0; i < backlog; i += 5000 {
			appendAll(t, s.spool, readsFrom(i, 5000)...)
		}
		s.run(t)
		f := &fleet{spooled: map[string][]string{}}
		ctx, cancel := context.WithCancel(t.Context())
		sent := make(chan struct{})
		go func() { f.send(ctx, s, 20, 100, true); close(sent) }()
		took := s.wait(t, backlog/20_000*time.Second)
		cancel()
		<-sent
		s.stop()
		if f.slowest > 100*time.Millisecond {
			t.Errorf("a live read took %v", f.slowest)
		}
		if missing, disorder := f.check(s); missing > 0 || disorder > 0 {
			t.Errorf("%d of %d acknowledged reads are missing, %d came after a later one", missing, len(f.acked), disorder)
		}
		t.Logf("drained within %v, slowest live read %v", took, f.slowest)
		s.spool.Close()
	})
}

// TestPassageStaysBehind: with a backlog and Kafka there, a read of a passage in the backlog
// goes to the spool, and every other to Kafka at once.
func TestPassageStaysBehind(t *testing.T) {
	s := newSite(t, Config{}, PublisherConfig{})
	behind := read(0)
	appendAll(t, s.spool, behind)
	next, other, none := read(1), read(100), read(101) // read(1) has the passage of read(0), at another sensor
	next.Sensor = behind.Sensor
	none.Passage = ""
	foreign := next
	foreign.ID, foreign.Sensor = "foreign", "B1"
	if err := s.pub.Publish(t.Context(), []sensors.Read{other, next, none, foreign}); err != nil {
		t.Fatalf("Publish: %v", err)
	}
	wantIDs(t, s.broker.log, []sensors.Read{other, none, foreign})
	if st := s.pub.Stats(); st.HeldBack != 1 || st.Spooled != 1 || st.Direct != 3 {
		t.Errorf("stats %+v", st)
	}
	s.run(t)
	s.wait(t, 10*time.Second)
	s.stop()
	wantIDs(t, s.broker.log, []sensors.Read{other, none, foreign, behind, next})
	next.ID = "again"
	if err := s.pub.Publish(t.Context(), []sensors.Read{next}); err != nil || s.pub.Stats().HeldBack != 1 {
		t.Errorf("Publish: %v, stats %+v: the passage is drained", err, s.pub.Stats())
	}
}

// TestFull: Kafka away and the spool full is an error, and it ends with either.
func TestFull(t *testing.T) {
	s := newSite(t, Config{MaxBytes: 5000, SegmentBytes: 1000}, PublisherConfig{})
	s.broker.down = true
	s.run(t)
	acked := 0
	var err error
	for err == nil {
		if err = s.pub.Publish(t.Context(), []sensors.Read{read(acked)}); err == nil {
			acked++
		}
	}
	if !errors.Is(err, ErrFull) || acked < 20 {
		t.Errorf("after %d reads: %v, want ErrFull", acked, err)
	}
	s.broker.set(func() { s.broker.down = false })
	s.wait(t, 10*time.Second)
	if err := s.pub.Publish(t.Context(), []sensors.Read{read(acked)}); err != nil {
		t.Errorf("Publish: %v", err)
	}
	s.stop()
	wantIDs(t, s.broker.log, readsFrom(0, acked+1))
}

// TestRefused: a read that Kafka will never take is told to its sender, and does not keep the
// spool from draining.
func TestRefused(t *testing.T) {
	s := newSite(t, Config{}, PublisherConfig{Refused: func(err error) bool { return errors.Is(err, errTooLarge) }})
	s.broker.reject = read(37).ID
	if err := s.pub.Publish(t.Context(), readsFrom(35, 5)); !errors.Is(err, errTooLarge) || s.pub.Stats().Open {
		t.Errorf("Publish: %v, stats %+v", err, s.pub.Stats())
	}
	invalid := read(1)
	invalid.Color = "\xff"
	s.broker.down = true
	if err := s.pub.Publish(t.Context(), []sensors.Read{invalid}); !errors.Is(err, ErrInvalid) || s.pub.Stats().Open {
		t.Errorf("Publish: %v, stats %+v", err, s.pub.Stats())
	}
	if err := s.pub.Publish(t.Context(), readsFrom(0, 100)); err != nil || !s.pub.Stats().Open {
		t.Errorf("Publish: %v, stats %+v", err, s.pub.Stats())
	}
	s.broker.set(func() { s.broker.down = false })
	s.run(t)
	s.wait(t, 10*time.Second)
	s.stop()
	wantIDs(t, s.broker.log, without(readsFrom(0, 100), 37, 1))
	if st := s.pub.Stats(); st.Refused != 1 {
		t.Errorf("stats %+v", st)
	}
}

// TestImpatientCallers: Kafka hangs, and no sender waits for as long as Patience. The first
// publish opens the circuit all the same and is spooled, and so is what follows, at once.
func TestImpatientCallers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, Config{}, PublisherConfig{})
		s.run(t)
		s.broker.set(func() { s.broker.hung = true })
		for i := range 6 {
			ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
			began := time.Now()
			if err := s.pub.Publish(ctx, readsFrom(i, 1)); err != nil {
				t.Errorf("Publish: %v", err)
			}
			if took := time.Since(began); took > 900*time.Millisecond || i > 0 && took > 10*time.Millisecond {
				t.Errorf("publish %d took %v", i, took)
			}
			cancel()
		}
		if st := s.pub.Stats(); !st.Open || st.Trips != 1 || st.Spooled != 6 || s.spool.Stats().Depth != 6 {
			t.Errorf("stats %+v, %+v", st, s.spool.Stats())
		}
		s.broker.set(func() { s.broker.hung = false })
		s.wait(t, 10*time.Second)
		s.stop()
		if got, want := s.broker.firsts(), ids(readsFrom(0, 6)); !slices.Equal(got, want) {
			t.Errorf("Kafka has %v, want %v", got, want)
		}
		s.spool.Close()
	})
}

// TestCallerGone: that a caller gives up says nothing of Kafka.
func TestCallerGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, Config{}, PublisherConfig{})
		s.broker.delay = 100 * time.Millisecond
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		if err := s.pub.Publish(ctx, readsFrom(0, 1)); err != nil {
			t.Errorf("Publish: %v", err)
		}
		if err := s.pub.Publish(ctx, readsFrom(1, 1)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Publish of a caller that has gone before: %v", err)
		}
		if st := s.pub.Stats(); st.Open || st.Spooled > 0 || st.Direct != 1 {
			t.Errorf("stats %+v", st)
		}
		s.spool.Close()
	})
}

// TestOneFailsAllFallBack: when one publish fails, those under way do not wait out their
// Patience.
func TestOneFailsAllFallBack(t *testing.T) {
	s := newSite(t, Config{}, PublisherConfig{Patience: time.Hour})
	s.broker.hung = true
	errs := make(chan error)
	for i := range 3 {
		go func() { errs <- s.pub.Publish(t.Context(), readsFrom(i, 1)) }()
	}
	for waiting := 0; waiting < 3; time.Sleep(time.Millisecond) {
		s.broker.set(func() { waiting = s.broker.waiting })
	}
	s.broker.set(func() { s.broker.hung, s.broker.down = false, true })
	if err := s.pub.Publish(t.Context(), readsFrom(3, 1)); err != nil {
		t.Errorf("Publish: %v", err)
	}
	for range 3 {
		if err := <-errs; err != nil {
			t.Errorf("Publish: %v", err)
		}
	}
	if st := s.pub.Stats(); st.Spooled != 4 || st.Trips != 1 {
		t.Errorf("stats %+v", st)
	}
}

func TestNewPublisherRequires(t *testing.T) {
	s := open(t, newMemDisk().config(Config{}))
	for _, cfg := range []PublisherConfig{{}, {Direct: newBroker()}, {Spool: s}, {Direct: newBroker(), Spool: s, Patience: -1}} {
		if _, err := NewPublisher(cfg); err == nil {
			t.Errorf("NewPublisher(%+v) is no error", cfg)
		}
	}
}
